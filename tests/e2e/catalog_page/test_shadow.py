"""What a person sees of a shadow on the model's page."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.e2e.catalog_page.driving import PHONE, model
from tests.support.page_catalog import SHADOWED


def test_agreement_is_seen_at_a_glance_and_over_time(page: Page) -> None:
    """The share, a chart of an hour, and what a bar of it stands for."""
    model(page, SHADOWED)
    card = page.get_by_role("region", name="Shadow: version 1 beside version 2")
    expect(card.locator('[data-shadow="agreement"]')).to_contain_text("%")
    chart = card.get_by_role("img", name="Share of equal answers over time")
    expect(chart).to_be_visible()
    assert chart.locator("g.stretch").count() >= 60
    assert "equal" in str(chart.locator("g.stretch title").first.text_content())


def test_rows_that_differ_are_side_by_side(page: Page) -> None:
    """Both answers, with the columns that differ marked, and what was asked as text."""
    model(page, SHADOWED)
    rows = page.get_by_role("region", name="Rows that differ").get_by_role("row")
    expect(rows).to_have_count(4)
    newest = rows.nth(1)
    expect(newest.locator(".differs")).to_have_count(2)
    expect(newest).to_contain_text("31.5")
    expect(newest).to_contain_text("35")
    expect(newest).to_contain_text("<img src=x")
    expect(rows.nth(3)).to_contain_text("not kept")


def test_the_chart_fits_a_phone(page: Page) -> None:
    """Nothing is wider than the screen."""
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    model(page, SHADOWED)
    expect(page.get_by_role("img", name="Share of equal answers over time")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
