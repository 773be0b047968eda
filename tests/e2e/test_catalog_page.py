"""The catalog page in a real browser, over models that answer in this process: no Ray, no MLflow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from gateway.access import parse_keys
from gateway.errors import ModelUnavailable, Overloaded
from gateway.http.access_control import Access
from tests.catalogs import BREAKING, served, version
from tests.chromium import chromium
from tests.page_catalog import (
    HELD,
    HOSTILE,
    TENSOR,
    TUPLE,
    TYPES,
    FixedKeys,
    Stage,
    many,
    shown,
    staged,
)

AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
MAX_INTEGER = "9223372036854775807"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged(shown()) as running:
        yield running


@pytest.fixture
def page(browser: Browser, stage: Stage) -> Iterator[Page]:
    """A page that fails the test on a script's error, a broken policy, or a request elsewhere."""
    stage.models.error = None
    yield from _page(browser, stage)


def _page(browser: Browser, stage: Stage) -> Iterator[Page]:
    context = browser.new_context(base_url=stage.url, viewport=DESKTOP, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(5_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if _is_problem(said.text) else None)
    page.on(
        "request",
        lambda asked: problems.append(asked.url) if _is_elsewhere(asked.url, stage) else None,
    )
    yield page
    context.close()
    assert problems == []


def _is_problem(text: str) -> bool:
    return "Content Security Policy" in text or "Uncaught" in text


def _is_elsewhere(url: str, stage: Stage) -> bool:
    return not url.startswith((stage.url, "data:"))


def model(page: Page, name: str) -> None:
    page.goto(f"/catalog/{quote(name, safe='')}")


def send(page: Page) -> None:
    page.get_by_role("button", name="Predict").click()


def outcome(page: Page) -> object:
    return expect(page.locator("#outcome"))


def answer(page: Page) -> object:
    """The answer as JSON, as the page shows it."""
    page.get_by_role("tab", name="JSON").last.click()
    return json.loads(page.get_by_label("The answer as JSON").inner_text())


# --- the list -----------------------------------------------------------------------------------


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
    """While one types, by every word in name, alias or description; announced, kept in the address."""
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
    with staged(many(1000)) as stage:
        for page in _page(browser, stage):
            page.goto("/")
            expect(page.locator(".model")).to_have_count(50)
            page.get_by_role("link", name="Next").click()
            expect(page.locator(".model-name").first).to_have_text("model_0050")
            expect(page.get_by_text("51–100 of 1000")).to_be_visible()
            page.get_by_role("searchbox").fill("0777")
            expect(page.locator(".model-name")).to_have_text(["model_0777"])


# --- one model ----------------------------------------------------------------------------------


def test_a_prediction_is_tried_with_the_form(page: Page) -> None:
    """The answer as a table, with the version that gave it, its request id and where time went."""
    page.goto("/")
    page.get_by_role("link", name="delivery_time").click()
    page.get_by_label("distance_km").fill("10")
    page.get_by_label("express").select_option("true")
    send(page)
    outcome(page).to_have_text(re.compile(r"Version 2 answered in [0-9.]+ ms\."))
    cells = page.get_by_label("The answer as a table").locator("tbody tr > *")
    expect(cells).to_have_text(["1", "59.4", "0.495"])
    expect(page.locator(".timings")).to_contain_text("model 2.31 ms")
    expect(page.locator(".timings")).to_contain_text(re.compile("request [0-9a-f]{32}"))
    assert answer(page) == [{"minutes": 59.4, "late_risk": 0.495}]


def test_several_inputs_travel_as_a_list(page: Page) -> None:
    """Inputs are added and removed; each is a row of the answer."""
    model(page, "delivery_time")
    page.get_by_role("button", name="Add an input").click()
    page.get_by_role("button", name="Add an input").click()
    page.get_by_role("button", name="Remove this input").nth(1).click()
    send(page)
    expect(page.get_by_label("The answer as a table").locator("tbody tr")).to_have_count(2)


def test_a_refusal_is_explained_at_the_field_that_it_names(page: Page) -> None:
    """By its pointer: in the second input the field is marked, described and focused."""
    model(page, "delivery_time")
    page.get_by_role("button", name="Add an input").click()
    second = page.locator("[data-row]").nth(1)
    second.get_by_label("items").fill("three")
    send(page)
    outcome(page).to_contain_text("does not fit the model's signature")
    field = second.get_by_label("items")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("integer", re.IGNORECASE))
    expect(page.locator("[aria-invalid]")).to_have_count(1)
    field.fill("3")
    expect(page.locator("[aria-invalid]")).to_have_count(0)


def test_a_required_field_that_is_empty_is_explained_there(page: Page) -> None:
    """An empty number is left out, and the gateway says that it must not be."""
    model(page, "delivery_time")
    page.get_by_label("items").fill("")
    send(page)
    expect(page.get_by_label("items")).to_be_focused()
    expect(
        page.locator(".field", has=page.get_by_label("items")).locator(".error")
    ).not_to_be_empty()


def test_raw_json_is_sent_as_it_is_written(page: Page) -> None:
    """The tab begins with the form's request; what doesn't fit is told by input and field."""
    model(page, "delivery_time")
    page.get_by_role("tab", name="JSON").first.click()
    box = page.get_by_label("Request body")
    body = json.loads(box.input_value())
    assert body == {"zone": "harbour", "items": 3, "distance_km": 4.2, "express": False}
    box.fill("[{")
    send(page)
    expect(box).to_have_accessible_description("This is not JSON yet.")
    box.fill(json.dumps([body, {**body, "colour": "red"}]))
    send(page)
    row = page.get_by_label("What doesn’t fit").locator("tbody tr")
    expect(row.locator("> *").nth(0)).to_have_text("2")
    expect(row.locator("> *").nth(1)).to_have_text("colour")
    box.fill(json.dumps([body, body]))
    send(page)
    expect(page.get_by_label("The answer as a table").locator("tbody tr")).to_have_count(2)


def test_a_held_version_is_shown_with_its_differences_field_by_field(page: Page) -> None:
    """In a notice, and as the answer of who asks for it all the same."""
    model(page, HELD)
    expect(page.get_by_role("heading", name="Version 7 is held")).to_be_visible()
    held = page.get_by_label("What is different in the held version").locator("tbody tr")
    expect(held.nth(0).locator("> *")).to_have_text(
        ["monthly_spend", "inputs", "type", "float", "string"]
    )
    page.get_by_label("Version", exact=True).select_option("7")
    send(page)
    outcome(page).to_have_text("The version does not keep the model's contract.")
    asked = page.locator("#answer").get_by_label("Differences of version 7").locator("tbody tr")
    expect(asked).to_have_count(2)
    expect(asked.nth(1).locator("> *")).to_have_text(
        ["country", "inputs", "added", "nothing", "string (required)"]
    )


def test_versions_are_chosen_by_number_or_name(page: Page) -> None:
    """All versions and aliases can be asked for; the answer says which it was."""
    model(page, "translation_model")
    choice = page.get_by_label("Version", exact=True)
    for selector, number in (("german", 1), ("champion", 2), ("1", 1), ("", 2)):
        choice.select_option(selector)
        send(page)
        outcome(page).to_contain_text(f"Version {number} answered")
    choice.select_option("latest")
    send(page)
    outcome(page).to_have_text("The version does not keep the model's contract.")


def test_params_are_sent_only_where_they_are_given(page: Page) -> None:
    """The field shows the default; a wrong param is explained at its field."""
    model(page, "question_answerer")
    field = page.get_by_label("max_answer_len")
    expect(field).to_have_attribute("placeholder", "15")
    expect(page.locator("#curl")).not_to_contain_text("params")
    field.fill("3")
    expect(page.locator("#curl")).to_contain_text('"params": {"max_answer_len": 3}')
    send(page)
    outcome(page).to_contain_text("Version 1 answered")
    field.fill("many")
    send(page)
    expect(field).to_be_focused()
    expect(field).to_have_accessible_description(re.compile("integer", re.IGNORECASE))


def test_every_type_has_a_field_and_no_number_is_rounded(page: Page) -> None:
    """Numbers travel as they are written, both ways; lists and objects are JSON."""
    model(page, TYPES)
    page.get_by_label("boolean").select_option("false")
    page.get_by_label("long").fill(MAX_INTEGER)
    page.get_by_label("datetime").fill("2024-02-29T12:00:00+01:00")
    page.get_by_label("binary").fill("YQ==")
    page.get_by_label("array").fill(f"[1, {MAX_INTEGER}]")
    page.get_by_label("object").fill('{"id": 1, "tags": ["ä", "</script>"]}')
    page.get_by_label("map").fill('{"k": "v"}')
    send(page)
    outcome(page).to_contain_text("answered")
    (row,) = answer(page)  # type: ignore[misc]
    assert row["long"] == int(MAX_INTEGER)
    assert row["array"] == [1, int(MAX_INTEGER)]
    assert row["datetime"] == "2024-02-29T11:00:00"
    assert row["object"] == {"id": 1, "tags": ["ä", "</script>"]}
    page.get_by_label("object").fill('{"id": "one"}')
    send(page)
    expect(page.get_by_label("object")).to_have_accessible_description(re.compile("At id: "))


@pytest.mark.parametrize(("name", "expected"), [(TENSOR, [4.0]), (TUPLE, ["1.0 text"])])
def test_inputs_without_names_can_be_tried(page: Page, name: str, expected: list[object]) -> None:
    """One unnamed value, and several."""
    model(page, name)
    send(page)
    outcome(page).to_contain_text("Version 1 answered")
    assert answer(page) == expected


def test_overload_and_absence_are_told_with_when_to_try_again(page: Page, stage: Stage) -> None:
    """429 and 503 in words, with what Retry-After says."""
    model(page, "delivery_time")
    stage.models.error = Overloaded("Too much.", retry_after_s=1)
    send(page)
    outcome(page).to_have_text("Too many requests are waiting. Try again in 1 second.")
    stage.models.error = ModelUnavailable("Still starting.", retry_after_s=5)
    send(page)
    outcome(page).to_have_text("The model is not available right now. Try again in 5 seconds.")
    expect(page.locator("#answer")).to_contain_text("Still starting.")


def test_a_model_that_is_not_served_says_why_and_has_no_form(page: Page) -> None:
    """The reason is there; there is nothing to fill in."""
    model(page, "invoice_parser")
    expect(page.get_by_text("Nothing answers by default.")).to_be_visible()
    expect(page.get_by_role("button", name="Predict")).to_have_count(0)


def test_a_model_that_is_not_there_is_a_page_too(page: Page) -> None:
    """404, with a way back."""
    response = page.goto("/catalog/no%20such%20model")
    assert response is not None
    assert response.status == 404
    page.get_by_role("link", name="All models").click()
    expect(page.locator(".model").first).to_be_visible()


def test_a_hostile_name_stays_a_name(page: Page) -> None:
    """HTML, quotes and reserved characters in names and descriptions are shown, linked and sent."""
    page.goto("/")
    page.get_by_role("link", name=HOSTILE).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    expect(page.locator(".lede")).to_have_text("</p><script>window.harmed=1</script>")
    send(page)
    outcome(page).to_contain_text("Version 1 answered")
    assert page.evaluate("window.harmed") is None
    assert page.locator("main img, main script").count() == 0


def test_the_snippets_are_what_the_form_would_send(page: Page, stage: Stage) -> None:
    """The Python program is valid, has the version, and asks for the same."""
    model(page, "delivery_time")
    page.get_by_label("zone").fill('O\'Hare "T2"')
    page.get_by_label("Version", exact=True).select_option("1")
    command = page.locator("#curl").inner_text()
    assert f"curl '{stage.url}/models/delivery_time/predict'" in command
    assert "-H 'X-Model-Version: 1'" in command
    assert "O'\\''Hare" in command
    page.get_by_role("tab", name="Python").click()
    program = page.locator("#python").inner_text()
    compile(program, "snippet", "exec")
    assert '"express": False' in program
    assert '"X-Model-Version": "1"' in program


# --- keys ---------------------------------------------------------------------------------------


def _access(**options: frozenset[str]) -> Access:
    import hashlib

    digest = hashlib.sha256(b"mmx_good").hexdigest()
    return Access(keys=FixedKeys(parse_keys(f"k sha256:{digest} predict:d*")), **options)


def test_with_keys_on_the_page_asks_for_one_and_keeps_it_in_the_tab(browser: Browser) -> None:
    """Nothing is shown without it; a wrong one is told; it is in sessionStorage alone."""
    with staged(shown(), _access()) as stage:
        for page in _page(browser, stage):
            page.goto("/")
            assert "delivery_time" not in page.content()
            page.get_by_label("Key").fill("wrong")
            page.get_by_role("button", name="Use key").click()
            expect(page.get_by_role("alert")).not_to_be_empty()
            page.get_by_label("Key").fill("mmx_good")
            page.get_by_role("button", name="Use key").click()
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


def test_where_the_documents_are_public_only_a_prediction_asks_for_a_key(browser: Browser) -> None:
    """The catalog is shown; 401 opens the field for the key, and the next try has it."""
    with staged(shown(), _access(public=frozenset({"docs"}))) as stage:
        for page in _page(browser, stage):
            model(page, "delivery_time")
            send(page)
            outcome(page).to_have_text("A key is needed.")
            page.get_by_label("Key").fill("mmx_good")
            page.get_by_role("button", name="Use key").click()
            send(page)
            outcome(page).to_contain_text("Version 2 answered")


# --- everybody ----------------------------------------------------------------------------------


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Browser, stage: Stage, scheme: str) -> None:
    """The list, an answer, a refusal and differences keep WCAG 2.2 AA, as far as axe-core can tell."""
    stage.models.error = None
    context = browser.new_context(
        base_url=stage.url, viewport=DESKTOP, color_scheme=scheme, reduced_motion="reduce"
    )  # type: ignore[arg-type]
    page = context.new_page()
    page.goto("/")
    _require_accessible(page)
    model(page, "question_answerer")
    send(page)
    outcome(page).to_contain_text("answered")
    _require_accessible(page)
    model(page, HELD)
    page.get_by_label("age").fill("x")
    send(page)
    outcome(page).to_contain_text("fit")
    page.get_by_text("2 differences").click()
    _require_accessible(page)
    context.close()


def _require_accessible(page: Page) -> None:
    page.evaluate(AXE)
    options = {"runOnly": {"type": "tag", "values": RULES}}
    found = page.evaluate("options => axe.run(document, options)", options)
    told = [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]]
    assert told == []
    assert len(found["passes"]) > 20  # it has looked


def test_the_theme_follows_the_system_or_the_button(browser: Browser, stage: Stage) -> None:
    """Dark where the system is; what was chosen is kept."""
    context = browser.new_context(base_url=stage.url, color_scheme="dark")
    page = context.new_page()
    background = "getComputedStyle(document.body).backgroundColor"
    page.goto("/")
    dark = page.evaluate(background)
    page.get_by_role("button", name="Theme: system").click()
    light = page.evaluate(background)
    assert [_is_dark(dark), _is_dark(light)] == [True, False]
    page.reload()
    expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
    assert page.evaluate(background) == light
    context.close()


def _is_dark(colour: str) -> bool:
    return sum(map(int, re.findall(r"\d+", colour)[:3])) < 384


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_is_wider_than_the_screen(page: Page, viewport: dict[str, int]) -> None:
    """No page scrolls sideways, with an answer, differences and a long name in it."""
    page.set_viewport_size(viewport)  # type: ignore[arg-type]
    page.goto("/")
    assert _overflow(page) <= 0
    for name in (HELD, HOSTILE, TYPES, "question_answerer"):
        model(page, name)
        send(page)
        outcome(page).not_to_have_text("Nothing asked yet.")
        assert _overflow(page) <= 0, name


def _overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def test_the_figures_of_each_model_are_read_from_the_counters(page: Page) -> None:
    """Rate and quantiles of what came between two looks; a dash where there are no counters."""
    looks = iter([0, 100, 100, 100])

    def metrics(count: int) -> str:
        labels = 'model="delivery_time",version="2"'
        buckets = [("0.01", count * 0.5), ("0.1", count), ("+Inf", count)]
        return "\n".join(
            [f'modelmux_requests_total{{{labels},status="200"}} {count}']
            + [
                f'modelmux_request_duration_seconds_bucket{{{labels},le="{le}"}} {n}'
                for le, n in buckets
            ]
        )

    page.route("**/metrics", lambda route: route.fulfill(body=metrics(next(looks))))
    page.goto("/")
    row = page.locator(".model", has_text="delivery_time")
    expect(row.locator('[data-number="rate"]')).to_have_text(re.compile(r"[0-9]+/s"))
    expect(row.locator('[data-number="median"]')).to_have_text("10 ms")
    expect(page.locator(".model", has_text=HELD).locator('[data-number="rate"]')).to_have_text("–")


def test_a_version_that_breaks_is_marked_in_the_list_of_versions(browser: Browser) -> None:
    """Beside each version it says whether it keeps the contract, and what doesn't."""
    from tests.catalogs import catalog

    now = catalog(served(*(version(n) for n in range(1, 31)), version(31, BREAKING), default=2))
    with staged(now) as stage:
        for page in _page(browser, stage):
            model(page, "m")
            expect(page.locator(".version-row")).to_have_count(21)  # the newest 20, and the default
            expect(page.locator("#version-31")).to_contain_text("Breaks the contract")
            expect(page.locator("#version-2")).to_contain_text("Default")
            page.get_by_role("link", name="Show all 31 versions").click()
            expect(page.locator(".version-row")).to_have_count(31)
