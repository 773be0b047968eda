"""What the tests of the catalog page do in a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Browser, LocatorAssertions, Page, expect

from tests.support.page_catalog import Stage

PHONE, DESKTOP = (360, 740), (1280, 900)

# Far more than a page takes: other tests may run beside.
_PATIENCE_MS = 30_000
expect.set_options(timeout=_PATIENCE_MS)


@contextmanager
def opened(
    browser: Browser, stage: Stage, *, size: tuple[int, int] = DESKTOP, dark: bool = False
) -> Iterator[Page]:
    """A page that fails the test on a script's error, a broken policy, or a request elsewhere."""
    context = browser.new_context(
        base_url=stage.url,
        viewport={"width": size[0], "height": size[1]},
        reduced_motion="reduce",
        color_scheme="dark" if dark else "light",
    )
    page = context.new_page()
    page.set_default_timeout(_PATIENCE_MS)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.extend(_problems(said.text)))
    page.on("request", lambda asked: problems.extend(_elsewhere(asked.url, stage)))
    try:
        yield page
    finally:
        context.close()
    assert problems == []


def _problems(text: str) -> list[str]:
    return [text] if "Content Security Policy" in text or "Uncaught" in text else []


def _elsewhere(url: str, stage: Stage) -> list[str]:
    return [] if url.startswith((stage.url, "data:")) else [url]


def model(page: Page, name: str) -> None:
    """Go to the page of a model."""
    page.goto(f"/catalog/{quote(name, safe='')}")


def send(page: Page) -> None:
    """Press the button."""
    page.get_by_role("button", name="Predict").click()


def outcome(page: Page) -> LocatorAssertions:
    """What must be said about the answer."""
    return expect(page.locator("#outcome"))


def answer(page: Page) -> Any:
    """The answer as JSON, as the page shows it."""
    page.get_by_role("tab", name="JSON").last.click()
    return json.loads(page.get_by_label("The answer as JSON").inner_text())
