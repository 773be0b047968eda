"""The catalog page for everybody: by keyboard, for screen readers, dark, on a phone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.catalog_page.driving import DESKTOP, PHONE, model, opened, outcome, send
from tests.support.page_catalog import (
    HELD,
    HOSTILE,
    TYPES,
    Stage,
)

AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def test_everything_works_by_keyboard_alone(page: Page) -> None:
    """From the skip link over the list and the form to the tabs of the answer."""
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("minutes from")
    expect(page.locator(".model")).to_have_count(1)
    link = page.get_by_role("link", name="delivery_time")
    _tab_until(page, "delivery_time")
    expect(link).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/catalog/delivery_time")
    _tab_until(page, "Form")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("Request body")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_label("zone")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_label("items")).to_be_focused()
    page.keyboard.press("Enter")  # sends, as in every form
    outcome(page).to_contain_text("Version 2 answered")
    _tab_until(page, "Table")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("The answer as JSON")).to_be_visible()


def _tab_until(page: Page, text: str) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == text:
            return
    raise AssertionError(f"Tab doesn't reach {text!r}")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing(browser: Browser, stage: Stage, dark: bool) -> None:
    """The list, an answer, a refusal and differences keep WCAG 2.2 AA, as far as axe can tell."""
    with opened(browser, stage, dark=dark) as page:
        page.goto("/")
        _require_accessible(page)
        model(page, "question_answerer")
        send(page)
        outcome(page).to_contain_text("answered")
        _require_accessible(page)
        model(page, HELD)
        page.get_by_role("textbox", name="age").fill("x")
        send(page)
        outcome(page).to_contain_text("fit")
        page.get_by_text("2 differences").click()
        _require_accessible(page)


def _require_accessible(page: Page) -> None:
    page.evaluate(AXE)
    options = {"runOnly": {"type": "tag", "values": RULES}}
    found = page.evaluate("options => axe.run(document, options)", options)
    told = [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]]
    assert told == []
    assert len(found["passes"]) > 20  # it has looked


def test_the_theme_follows_the_system_or_the_button(browser: Browser, stage: Stage) -> None:
    """Dark where the system is; what was chosen is kept."""
    background = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, stage, dark=True) as page:
        page.goto("/")
        dark = page.evaluate(background)
        page.get_by_role("button", name="Theme: system").click()
        light = page.evaluate(background)
        assert [_is_dark(dark), _is_dark(light)] == [True, False]
        page.reload()
        expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
        assert page.evaluate(background) == light


def _is_dark(colour: str) -> bool:
    return sum(map(int, re.findall(r"\d+", colour)[:3])) < 384


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_is_wider_than_the_screen(
    browser: Browser, stage: Stage, size: tuple[int, int]
) -> None:
    """No page scrolls sideways, with an answer, differences and a long name in it."""
    with opened(browser, stage, size=size) as page:
        page.goto("/")
        assert _overflow(page) <= 0
        for name in (HELD, HOSTILE, TYPES, "question_answerer"):
            model(page, name)
            send(page)
            outcome(page).to_have_text(re.compile("answered|fit"))
            assert _overflow(page) <= 0, name


def _overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))
