"""Predictions tried on the page of a model, in a real browser."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from gateway.errors import ModelUnavailable, Overloaded
from tests.e2e.catalog_page.driving import answer, model, outcome, send
from tests.support.page_catalog import (
    HELD,
    HOSTILE,
    PHOTO,
    TENSOR,
    TUPLE,
    TYPES,
    Stage,
)

MAX_INTEGER = "9223372036854775807"


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
    expect(page.locator(".timings")).to_contain_text(re.compile(r"model\s*2\.31 ms"))
    expect(page.locator(".timings")).to_contain_text(re.compile(r"request\s*[0-9a-f]{32}"))
    assert answer(page) == [{"minutes": 59.4, "late_risk": 0.495}]


def test_nothing_can_be_sent_before_the_scripts_are_there(page: Page) -> None:
    """On a slow line the button waits: a browser would reload the page and lose what is in it."""
    held: list[Route] = []
    page.route("**/try.js", lambda route: held.append(route))
    with page.expect_request("**/try.js"):
        page.goto("/catalog/delivery_time", wait_until="commit")
    button = page.get_by_role("button", name="Predict")
    expect(button).to_be_disabled()
    page.get_by_label("distance_km").fill("10")
    while held:
        held.pop().continue_()
        page.wait_for_timeout(0)  # what was asked for meanwhile is held, too
    expect(button).to_be_enabled()
    send(page)
    outcome(page).to_contain_text("Version 2 answered")
    expect(page.get_by_label("The answer as a table")).to_contain_text("59")


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
    expect(field).to_have_accessible_description(re.compile("Expected a whole number"))
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
    assert page.evaluate("getSelection().toString()") == '"red"'
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
    for selector, number in (("german", 1), ("champion", 2), ("日本", 1), ("1", 1), ("", 2)):
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
    expect(field).to_have_accessible_description(re.compile("Expected a whole number"))


def test_every_type_has_a_field_and_no_number_is_rounded(page: Page) -> None:
    """Numbers travel as they are written, both ways; lists and objects are JSON."""
    model(page, TYPES)

    def field(name: str) -> Locator:
        box = page.locator(f'.field[data-name="{name}"]')
        return box.locator("input, select, textarea")

    field("boolean").select_option("false")
    field("long").fill(MAX_INTEGER)
    field("datetime").fill("2024-02-29T12:00:00+01:00")
    field("binary").fill("YQ==")
    field("array").fill(f"[1, {MAX_INTEGER}]")
    field("object").fill('{"id": 1, "tags": ["ä", "</script>"]}')
    field("map").fill('{"k": "v"}')
    send(page)
    outcome(page).to_contain_text("answered")
    (row,) = answer(page)  # type: ignore[misc]
    assert row["long"] == int(MAX_INTEGER)
    assert row["array"] == [1, int(MAX_INTEGER)]
    assert row["datetime"] == "2024-02-29T11:00:00"
    assert row["object"] == {"id": 1, "tags": ["ä", "</script>"]}
    field("object").fill('{"id": "one"}')
    send(page)
    expect(field("object")).to_have_accessible_description(re.compile("At id: "))


@pytest.mark.parametrize(("name", "expected"), [(TENSOR, [4.0]), (TUPLE, ["1.0 text"])])
def test_inputs_without_names_can_be_tried(page: Page, name: str, expected: list[object]) -> None:
    """One unnamed value, and several."""
    model(page, name)
    send(page)
    outcome(page).to_contain_text("Version 1 answered")
    assert answer(page) == expected


def test_an_image_is_asked_for_by_its_shape(page: Page) -> None:
    """Its field is empty, with a hint; an empty one is explained there."""
    model(page, PHOTO)
    field = page.get_by_label("Input", exact=False).first
    expect(field).to_have_value("")
    expect(field).to_have_accessible_description(re.compile("nested lists, 224 × 224 × 3"))
    page.get_by_role("tab", name="Python").click()
    compile(page.locator("#python").inner_text(), "snippet", "exec")
    send(page)
    outcome(page).to_contain_text("does not fit the model's signature")
    expect(field).to_be_focused()
    field.fill(json.dumps([[[0.5] * 3] * 224] * 224))
    send(page)
    outcome(page).to_contain_text("Version 1 answered")
    assert answer(page) == [0.5 * 3 * 224 * 224]


@pytest.mark.parametrize("body", ["[" * 9_000 + "]" * 9_000, "<p>Welcome</p>", '{"no": "list"}'])
def test_an_answer_that_cannot_be_shown_is_told(page: Page, body: str) -> None:
    """Nested deeper than a browser follows, or not what a model answers."""
    model(page, "delivery_time")
    page.route("**/predict", lambda route: route.fulfill(body=body))
    send(page)
    outcome(page).to_have_text("The answer (200) can’t be shown here.")
    page.unroute("**/predict")
    send(page)
    outcome(page).to_contain_text("Version 2 answered")


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


def test_a_stream_is_shown_as_it_comes(page: Page, stage: Stage) -> None:
    """Its first event is there while the model works on the next one."""
    stage.models.may_go_on.clear()
    model(page, "question_answerer")
    page.get_by_label("Show the answer as it comes").check()
    send(page)
    events = page.get_by_label("The events of the stream").locator("li")
    expect(events).to_have_count(1)
    expect(events).to_contain_text("on a laptop")
    stage.models.may_go_on.set()
    expect(events).to_have_count(2)
    outcome(page).to_have_text(re.compile(r"Version 1 answered with 2 events in [0-9]+ ms\."))
