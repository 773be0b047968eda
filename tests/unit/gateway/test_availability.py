"""Whether models and versions answer, and that everything that shows it says the same."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from gateway.availability import Unloadable
from gateway.catalog import Catalog, Moment, ServedModel
from gateway.errors import GatewayError, ModelUnservable
from gateway.http.pages.listing import Question, listing
from gateway.http.pages.model_view import model_page
from gateway.http.views import describe_model, list_models
from tests.support.catalogs import BREAKING, catalog, served, version

NO_SKOPS = "ModuleNotFoundError: No module named 'skops'"
GOOD, OTHER, UNSIGNED, PENDING = (
    version(1),
    version(2),
    version(3, None, problem="It has no signature."),
    version(4, None, registry_status="PENDING_REGISTRATION"),
)
VERSIONS = (GOOD, OTHER, UNSIGNED, PENDING)


def _without_default(problem: str | None) -> ServedModel:
    return ServedModel(name="m", versions=VERSIONS, problem=problem)


MODELS = {
    "has a default": served(*VERSIONS, default=1),
    "has none": _without_default("Version 3: It has no signature."),
    "has none, nobody knows why": _without_default(None),
    "lost it": ServedModel(
        name="m", versions=(version(2, BREAKING),), contract=GOOD.signature, problem="It is gone."
    ),
}
MOMENTS = {
    "all well": Moment(),
    "warned of": Moment(warnings={"m": ["Its new tags can't be followed."]}),
    "can't be placed": Moment(not_started={"m": "There is no room to start its processes."}),
    "default can't be loaded": Moment(load_problems={"m": {1: NO_SKOPS}}),
    "default can't be loaded, nobody knows why": Moment(load_problems={"m": {1: ""}}),
    "other can't be loaded": Moment(load_problems={"m": {2: NO_SKOPS}}),
}
SEEN: dict[str, Unloadable] = {
    "nothing": {},
    "default": {("m", "f1"): "This version can't be loaded."},
    "other": {("m", "f2"): "This version can't be loaded."},
}


@pytest.mark.parametrize(("model", "moment", "seen"), list(product(MODELS, MOMENTS, SEEN)))
def test_state_reason_and_servable_agree(model: str, moment: str, seen: str) -> None:
    """Ready is what has no reason against it and whose default is servable; a version is servable
    where no reason is told. The list, the document of one model and both pages say the same."""
    now, unloadable = catalog(MODELS[model]).at(MOMENTS[moment]), SEEN[seen]
    told = describe_model(now, "m", unloadable)
    default = next((each for each in told.version_details if each.is_default), None)
    is_ready = told.status == "ready"
    assert is_ready == (told.reason is None)
    assert is_ready == (default is not None and default.servable)
    for each in told.version_details:
        assert each.servable == (each.reason is None)
        promised = MODELS[model].contract is not None
        assert not (each.servable and told.default_version is None and promised)
    (line,) = list_models(now, unloadable).models
    assert line.model_dump() == {
        k: v for k, v in told.model_dump().items() if k in line.model_dump()
    }
    shown = listing(now, unloadable, Question())
    assert (shown.counts["ready"], shown.counts["unservable"]) == (int(is_ready), int(not is_ready))
    page = model_page(now, "m", unloadable)
    assert (page.summary, page.versions) == (line, tuple(told.version_details))
    for choice, each in zip(page.version_choices, told.version_details, strict=True):
        assert ("can't be served" in choice.label) == (not each.servable)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("selector", [None, "1", "2", "3", "4"])
def test_what_is_servable_is_what_may_be_asked_for(model: str, selector: str | None) -> None:
    """A request for what is told as unservable is refused in the same words, and no other one is,
    but for its contract."""
    now = catalog(MODELS[model])
    if selector is not None and MODELS[model].version(int(selector)) is None:
        return
    told: Any = describe_model(now, "m")
    if selector is not None:
        told = next(each for each in told.version_details if each.version == int(selector))
    refused = _refusal(now, selector)
    assert (refused is None) == (told.reason is None)
    if isinstance(refused, ModelUnservable) and now.models["m"].default is not None:
        assert refused.detail == told.reason


def _refusal(now: Catalog, selector: str | None) -> GatewayError | None:
    try:
        now.resolve("m", selector)
    except GatewayError as error:
        return error
    return None


def test_the_reason_of_a_failed_load_is_told() -> None:
    """What the processes told wins over what this process saw; both are gone when it loads."""
    model = MODELS["has a default"]
    told = describe_model(
        catalog(model).at(MOMENTS["default can't be loaded"]), "m", SEEN["default"]
    )
    assert told.reason == f"Version 1: It can't be loaded: {NO_SKOPS}."
    assert told.version_details[-1].reason == f"It can't be loaded: {NO_SKOPS}."
    assert describe_model(catalog(model), "m").reason is None


def test_what_cannot_be_placed_is_not_ready() -> None:
    """With the reason, and no version of it is servable."""
    now = catalog(MODELS["has a default"]).at(MOMENTS["can't be placed"])
    told = describe_model(now, "m")
    assert (told.status, told.reason) == ("unservable", "There is no room to start its processes.")
    assert not any(each.servable for each in told.version_details)
