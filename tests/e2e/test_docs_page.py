"""The pages of a real gateway in a real browser that can reach nothing but that."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.support.processes import Gateway
from tests.support.registering import client, columns, register

NAME = "shown on the page"


@pytest.fixture(scope="module")
def showing(shared_gateway: Gateway, mlflow_uri: str) -> Iterator[Gateway]:
    """A gateway that serves a model of that name."""
    register(
        mlflow_uri,
        NAME,
        lambda rows, params: rows,
        columns(("width (cm)", "double"), ("note", "string", False)),
        columns(("width (cm)", "double")),
    )
    shared_gateway.sync()
    yield shared_gateway
    client(mlflow_uri).delete_registered_model(NAME)
    shared_gateway.sync()


def test_the_page_shows_every_model_without_internet(
    showing: Gateway, browser: Browser, tmp_path: Path
) -> None:
    """The page lists a model, opens its typed operation and asks no other host for anything."""
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{showing.url}/docs")
    operation = page.locator(".opblock", has_text=f"Predict with {NAME}")
    operation.wait_for()
    operation.locator(".opblock-summary").click()
    page.get_by_text("width (cm)").first.wait_for()
    page.get_by_text("X-Model-Version").first.wait_for()
    assert page.locator(".errors-wrapper").count() == 0
    elsewhere = [url for url in asked if not url.startswith((showing.url, "data:"))]
    assert elsewhere == []
    page.screenshot(path=str(tmp_path / "docs.png"))


def test_the_catalog_page_finds_a_model_and_tries_it(showing: Gateway, browser: Browser) -> None:
    """Through the front door and Ray: the list, the form, an answer of the real model."""
    page = browser.new_page()
    page.goto(f"{showing.url}/")
    page.get_by_role("searchbox").fill(NAME)
    page.get_by_role("link", name=NAME).click()
    page.get_by_label("width (cm)").fill("2.5")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#outcome")).to_contain_text("Version 1 answered", timeout=60_000)
    expect(page.get_by_label("The answer as a table")).to_contain_text("2.5")
    expect(page.locator(".timings")).to_contain_text("request")
    # Counted by the gateway, and read from its counters within moments.
    expect(page.locator('[data-number="rate"]')).to_have_text(re.compile("/s"), timeout=20_000)
    expect(page.locator('[data-number="median"]')).to_have_text(re.compile("s$"))
