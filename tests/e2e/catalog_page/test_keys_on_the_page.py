"""The catalog page where keys are on."""

from __future__ import annotations

import hashlib

from playwright.sync_api import Browser, Page, Route, expect

from gateway.http.access_control import Access
from gateway.security.api_keys import parse_keys
from tests.e2e.catalog_page.driving import model, opened, outcome, send
from tests.support.page_catalog import (
    HELD,
    FixedKeys,
    shown,
    staged,
)


def _access(**options: frozenset[str]) -> Access:

    digest = hashlib.sha256(b"mmx_good").hexdigest()
    return Access(keys=FixedKeys(parse_keys(f"k sha256:{digest} predict:d*")), **options)


def test_with_keys_on_the_page_asks_for_one_and_keeps_it_in_the_tab(browser: Browser) -> None:
    """Nothing is shown without it; a wrong one is told; it is in sessionStorage alone."""
    with staged(shown(), _access()) as stage, opened(browser, stage) as page:
        page.goto("/")
        assert "delivery_time" not in page.content()
        _use(page, "wrong")
        expect(page.get_by_role("alert")).not_to_be_empty()
        _use(page, "mmx_good")
        expect(page.locator(".model-name")).to_have_text(["delivery_time"])
        page.get_by_role("link", name="delivery_time").click()
        send(page)
        outcome(page).to_contain_text("Version 2 answered")
        assert "mmx_good" not in page.locator("main").inner_text()
        assert page.evaluate("JSON.stringify(localStorage) + document.cookie") == "{}"
        model(page, HELD)
        expect(page.get_by_text("403 · forbidden")).to_be_visible()
        page.get_by_role("button", name="Forget key").click()
        expect(page.get_by_label("Key")).to_be_visible()


def _use(page: Page, secret: str) -> None:
    page.get_by_label("Key").fill(secret)
    page.get_by_role("button", name="Use key").click()


def test_an_answer_that_is_no_page_is_told_where_the_key_is_asked_for(browser: Browser) -> None:
    """Whoever stands before the gateway may refuse in its place: the key is tried again."""

    def refuse(route: Route) -> None:
        if "authorization" in route.request.headers:
            route.fulfill(status=503, content_type="application/json", body='{"code": "starting"}')
        else:
            route.continue_()

    with staged(shown(), _access()) as stage, opened(browser, stage) as page:
        page.goto("/")
        page.route("**/", refuse)
        _use(page, "mmx_good")
        expect(page.get_by_role("alert")).to_have_text(
            "The answer was 503, and no page. Try again."
        )
        page.unroute("**/")
        page.get_by_role("button", name="Use key").click()
        expect(page.locator(".model-name")).to_have_text(["delivery_time"])


def test_a_search_with_a_key_that_was_revoked_asks_for_another(browser: Browser) -> None:
    """It isn't as if nothing had been typed; the search is done with the next key."""
    with staged(shown(), _access()) as stage, opened(browser, stage) as page:
        page.goto("/")
        _use(page, "mmx_good")
        expect(page.locator(".model-name")).to_have_count(1)
        page.evaluate("sessionStorage.setItem('modelmux.key', 'mmx_revoked')")
        page.get_by_role("searchbox").fill("time")
        expect(page.get_by_role("alert")).not_to_be_empty()
        _use(page, "mmx_good")
        expect(page.get_by_role("searchbox")).to_have_value("time")
        expect(page.locator(".model-name")).to_have_text(["delivery_time"])


def test_where_the_documents_are_public_only_a_prediction_asks_for_a_key(browser: Browser) -> None:
    """The catalog is shown; 401 opens the field for the key, and the next try has it."""
    with (
        staged(shown(), _access(public=frozenset({"docs"}))) as stage,
        opened(browser, stage) as page,
    ):
        model(page, "delivery_time")
        send(page)
        outcome(page).to_have_text("A key is needed.")
        _use(page, "mmx_good")
        send(page)
        outcome(page).to_contain_text("Version 2 answered")
