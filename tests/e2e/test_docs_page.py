"""The documentation page in a real browser that can reach nothing but the gateway."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser

from tests.processes import Gateway
from tests.registering import client, columns, register

NAME = "shown on the page"


def test_the_page_shows_every_model_without_internet(
    shared_gateway: Gateway, mlflow_uri: str, browser: Browser, tmp_path: Path
) -> None:
    """The page lists a model, opens its typed operation and asks no other host for anything."""
    register(
        mlflow_uri,
        NAME,
        lambda rows, params: rows,
        columns(("width (cm)", "double"), ("note", "string", False)),
        columns(("width (cm)", "double")),
    )
    shared_gateway.sync()
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{shared_gateway.url}/docs")
    operation = page.locator(".opblock", has_text=f"Predict with {NAME}")
    operation.wait_for()
    operation.locator(".opblock-summary").click()
    page.get_by_text("width (cm)").first.wait_for()
    page.get_by_text("X-Model-Version").first.wait_for()
    assert page.locator(".errors-wrapper").count() == 0
    elsewhere = [url for url in asked if not url.startswith((shared_gateway.url, "data:"))]
    assert elsewhere == []
    page.screenshot(path=str(tmp_path / "docs.png"))
    client(mlflow_uri).delete_registered_model(NAME)
    shared_gateway.sync()
