"""The list of models, and the list of versions, in a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.catalog_page.driving import model, opened
from tests.support.catalogs import BREAKING, catalog, served, version
from tests.support.page_catalog import (
    HELD,
    many,
    shown,
    staged,
)


def test_the_list_has_every_model_with_its_state_and_reason(page: Page) -> None:
    """Name, state, default version, what is held, and why something isn't served."""
    page.goto("/")
    expect(page.locator(".model")).to_have_count(len(shown().models))
    row = page.locator(".model", has_text="translation_model")
    expect(row).to_contain_text("Ready")
    expect(row).to_contain_text("v2 of 3 · champion, german")
    expect(page.locator(".model", has_text=HELD)).to_contain_text("Version 7 held")
    broken = page.locator(".model", has_text="invoice_parser")
    expect(broken).to_contain_text("Not served")
    expect(broken).to_contain_text("the model has no signature")


def test_searching_shows_what_fits_and_says_how_many(page: Page) -> None:
    """While one types, by every word in name, alias or description; announced, and kept."""
    page.goto("/")
    page.get_by_role("searchbox").type("ENGLISH german")
    expect(page.locator(".model-name")).to_have_text(["translation_model"])
    expect(page.locator("#announcement")).to_have_text("1 model found for “ENGLISH german”")
    assert page.url.endswith("/?q=ENGLISH+german")
    page.reload()
    expect(page.locator(".model-name")).to_have_text(["translation_model"])
    page.get_by_role("searchbox").fill("nothing like it")
    expect(page.get_by_text("Nothing fits.")).to_be_visible()


def test_the_list_can_be_filtered_by_state(page: Page) -> None:
    """Held and unservable models are found without reading."""
    page.goto("/")
    page.get_by_role("link", name="Held 1").click()
    expect(page.locator(".model-name")).to_have_text([HELD])
    page.get_by_role("link", name="Not served 1").click()
    expect(page.locator(".model-name")).to_have_text(["invoice_parser"])


def test_a_thousand_models_come_in_pages(browser: Browser) -> None:
    """Fifty at a time, with search over all of them."""
    with staged(many(1000)) as stage, opened(browser, stage) as page:
        page.goto("/")
        expect(page.locator(".model")).to_have_count(50)
        page.get_by_role("link", name="Next").click()
        expect(page.locator(".model-name").first).to_have_text("model_0050")
        expect(page.get_by_text("51–100 of 1000")).to_be_visible()
        page.get_by_role("searchbox").fill("0777")
        expect(page.locator(".model-name")).to_have_text(["model_0777"])


def test_a_version_that_breaks_is_marked_in_the_list_of_versions(browser: Browser) -> None:
    """Beside each version it says whether it keeps the contract, and what doesn't."""
    now = catalog(served(*(version(n) for n in range(1, 31)), version(31, BREAKING), default=2))
    with staged(now) as stage, opened(browser, stage) as page:
        model(page, "m")
        expect(page.locator(".version-row")).to_have_count(21)  # the newest 20, and the default
        expect(page.locator("#version-31")).to_contain_text("Breaks the contract")
        expect(page.locator("#version-2")).to_contain_text("Default")
        page.get_by_role("link", name="Show all 31 versions").click()
        expect(page.locator(".version-row")).to_have_count(31)
        expect(page.get_by_role("link", name="Show all")).to_have_count(0)


_MODEL = 'model="delivery_time"'
_LOADED = f'processes{{{_MODEL},machine="a"}} 1\nmodelmux_loaded_versions{{{_MODEL}}} 2'


def look(heard: int | None = None, **replicas: dict[str, int]) -> str:
    """What `/metrics` tells: how many predictions of each version each replica has answered, half
    of them within 10 ms."""
    lines = [] if heard is None else [f"modelmux_ingress_replicas {heard}"]
    for replica, versions in replicas.items():
        for number, count in versions.items():
            labels = f'replica="{replica}",model="delivery_time",version="{number}"'
            lines.append(f'modelmux_requests_total{{{labels},status="200"}} {count}')
            for le, n in (("0.01", count * 0.5), ("0.1", count), ("+Inf", count)):
                bucket = f'{{{labels},le="{le}"}} {n}'
                lines.append(f"modelmux_request_duration_seconds_bucket{bucket}")
    return "\n".join(lines)


def test_the_figures_of_each_model_are_read_from_the_counters(page: Page) -> None:
    """Rate and quantiles of what came between two looks; nothing per second where none came.
    A replica that comes with a million behind it adds nothing."""
    later = look(a={"2": 100}, b={"2": 1_000_000})
    looks = iter([look(a={"2": 0}), later, later, later])
    page.route("**/metrics", lambda route: route.fulfill(body=next(looks)))
    page.goto("/")
    row = page.locator(".model", has_text="delivery_time")
    expect(row.locator('[data-number="rate"]')).to_have_text(
        re.compile(r"^[1-5]?[0-9](\.[0-9])?/s$")
    )
    expect(row.locator('[data-number="median"]')).to_have_text("10 ms")
    other = page.locator(".model", has_text=HELD)
    expect(other.locator('[data-number="rate"]')).to_have_text("0/s")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        pytest.param("", "asleep", id="nothing is told of it"),
        pytest.param(f'deployments{{{_MODEL},state="starting"}} 1', "starting", id="starts"),
        pytest.param(
            f'deployments{{{_MODEL},state="running"}} 1', "awake, nothing loaded", id="runs"
        ),
        pytest.param(f'processes{{{_MODEL},machine="a"}} 1', "asleep", id="had something loaded"),
        pytest.param(_LOADED, "2 versions loaded", id="on one machine"),
        pytest.param(
            f'{_LOADED}\nmodelmux_model_processes{{{_MODEL},machine="b"}} 1',
            "2 versions loaded on a, b", id="on several machines",
        ),
    ],
)  # fmt: skip
def test_it_is_shown_whether_a_model_is_awake(page: Page, told: str, said: str) -> None:
    """Asleep, starting, or so many versions loaded, and where; nothing where that isn't known."""
    body = f"modelmux_sync_service_up 1\nmodelmux_model_{told}\n"
    page.route("**/metrics", lambda route: route.fulfill(body=body))
    page.goto("/")
    expect(page.locator('[data-activity="delivery_time"]')).to_have_text(said)
    page.route("**/metrics", lambda route: route.fulfill(body="modelmux_sync_service_up 0\n"))
    page.goto("/")
    expect(page.locator('[data-activity="delivery_time"]')).to_have_text("")


def test_pages_lead_to_mlflow(page: Page) -> None:
    """To the registered model, to each version, and to the run that logged it."""
    page.goto("/catalog/delivery_time")
    at = "https://mlflow.example.com/ui/#/models/delivery_time"
    expect(page.get_by_role("link", name="in MLflow", exact=True)).to_have_attribute("href", at)
    newest = page.locator(".version-row").first
    number = page.locator(".version-row h3").first.inner_text().removeprefix("Version ")
    expect(newest.get_by_role("link", name="In MLflow")).to_have_attribute(
        "href", f"{at}/versions/{number}"
    )


@pytest.mark.parametrize(
    ("looks", "grown"),
    [
        pytest.param([look(a={"1": 10}), look(a={"1": 25})], 15, id="grows"),
        pytest.param([look(a={"1": 5}), look(a={"1": 8}, b={"1": 999})], 3, id="comes"),
        pytest.param([look(a={"1": 5}, b={"1": 999}), look(a={"1": 8})], 3, id="goes"),
        pytest.param(
            [look(a={"1": 5}, b={"1": 900}), look(a={"1": 6}), look(a={"1": 8}, b={"1": 904})],
            7, id="misses a look",
        ),
        pytest.param([look(), look(a={"1": 5}), look(a={"1": 8})], 3, id="comes to none"),
        pytest.param([look(1), look(1, a={"1": 5})], 5, id="had counted nothing"),
        pytest.param([look(1), look(2, a={"1": 5})], 0, id="one more, with a past"),
        pytest.param(
            [look(1, a={"1": 2}), look(1, b={"1": 999})], 0, id="one takes another's place"
        ),
        pytest.param([look(a={"1": 5}), look(a={"1": 5, "2": 4})], 4, id="a version's first"),
        pytest.param([look(a={"1": 50, "2": 1}), look(a={"2": 3})], 2, id="a version goes"),
        pytest.param([look(a={"1": 50, "2": 1}), look(a={"1": 7, "2": 3})], 2, id="goes down"),
    ],
)  # fmt: skip
def test_what_counters_grew_by_is_found_for_each_replica(
    page: Page, looks: list[str], grown: int
) -> None:
    """Whoever comes, goes or misses a look adds what it answered meanwhile, and no more."""
    page.goto("/")
    found = page.evaluate(
        """async (looks) => {
          const numbers = await import("/docs/assets/catalog/numbers.js");
          const grown = numbers.growth(looks.map(numbers.counters)).get("delivery_time");
          return [grown.requests, grown.upTo.get(Infinity), numbers.figures(grown, 2).rate];
        }""",
        looks,
    )
    assert found == [grown, grown, grown / 2]
