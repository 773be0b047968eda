"""The tag `modelmux.shadow`: which version it names, and why none is asked."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.catalog import ModelVersion, ServedModel, Shadow
from registry_sync.catalog_builder import build_catalog
from registry_sync.default_version import DefaultPolicy
from tests.support.catalogs import BREAKING, PLAIN, record, version

TAG, TOLERANCE = "modelmux.shadow", "modelmux.shadow_tolerance"


def built(
    *versions: ModelVersion,
    tags: dict[str, str],
    aliases: dict[str, int] | None = None,
    captures: bool = False,
) -> ServedModel:
    known = {"champion": 1, "challenger": 2} if aliases is None else aliases
    reading = (record(*versions, aliases=known, tags=tags),)
    plan = build_catalog(reading, None, policy=DefaultPolicy(), captures=captures)
    return plan.catalog.models["m"]


TWO = (version(1), version(2))


@pytest.mark.parametrize(
    ("said", "shadow"),
    [
        ("challenger", Shadow(number=2)),
        ("challenger:10", Shadow(number=2, percent=10.0)),
        (" challenger : 2.5 ", Shadow(number=2, percent=2.5)),
        ("2", Shadow(number=2)),
        ("latest:50", Shadow(number=2, percent=50.0)),
        ("challenger:force", Shadow(number=2, forced=True)),
        ("challenger:10:FORCE", Shadow(number=2, percent=10.0, forced=True)),
    ],
)
def test_a_tag_names_a_version_and_a_share(said: str, shadow: Shadow) -> None:
    """By alias, number or `latest`; all requests where no percentage is said."""
    model = built(*TWO, tags={TAG: said})
    assert model.shadow == shadow
    assert model.warnings == ()
    assert model.notable >= {2}


@pytest.mark.parametrize(
    ("said", "versions", "word"),
    [
        ("nobody", TWO, "no such version"),
        ("7", TWO, "no such version"),
        ("", TWO, "names no alias"),
        ("challenger:lots", TWO, "no number"),
        ("challenger:101", TWO, "no number"),
        ("challenger", (version(1), version(2, BREAKING)), "breaks the contract"),
        ("challenger", (version(1), version(2, problem="It is broken.")), "can't be served"),
        ("challenger", (version(1), version(2, task="agent/v1/responses")), "effects elsewhere"),
        ("challenger", (version(1, task="agent/v1/responses"), version(2)), "effects elsewhere"),
    ],
)
def test_what_cant_be_followed_is_a_warning(
    said: str, versions: tuple[ModelVersion, ...], word: str
) -> None:
    """Nothing is asked then, and `/models` says why."""
    model = built(*versions, tags={TAG: said})
    assert model.shadow is None
    (warning,) = model.warnings
    assert warning.startswith("Tag modelmux.shadow is not followed: ")
    assert word in warning
    assert model.shadow_problem == warning


def test_an_agent_is_asked_twice_where_the_tag_forces_it() -> None:
    """Whoever says so knows that it has no effects."""
    agents = (version(1, task="agent/v1/responses"), version(2, task="agent/v1/responses"))
    assert built(*agents, tags={TAG: "challenger:force"}).shadow == Shadow(number=2, forced=True)


@pytest.mark.parametrize(("said", "word"), [("champion", "is the default"), ("2:0", "0")])
def test_a_shadow_that_has_nothing_to_do_is_no_fault(said: str, word: str) -> None:
    """One that was promoted, and one of no percent, is said without a warning."""
    model = built(*TWO, tags={TAG: said})
    assert model.shadow is None
    assert model.warnings == ()
    assert word in str(model.shadow_problem)


def test_promoting_the_shadow_ends_the_work_of_the_tag() -> None:
    """The alias that is moved to it is all that it takes; moving it back begins again."""
    policy = DefaultPolicy()
    tags = {TAG: "challenger"}
    before = (record(*TWO, aliases={"champion": 1, "challenger": 2}, tags=tags),)
    first = build_catalog(before, None, policy=policy).catalog
    after = (record(*TWO, aliases={"champion": 2, "challenger": 2}, tags=tags),)
    second = build_catalog(after, first, policy=policy).catalog
    assert first.models["m"].shadow == Shadow(number=2)
    assert second.models["m"].default_version == 2
    assert second.models["m"].shadow is None
    assert second.models["m"].warnings == ()
    third = build_catalog(before, second, policy=policy).catalog
    assert third.models["m"].shadow == Shadow(number=2)


@pytest.mark.parametrize(
    ("said", "tolerance", "warned"), [("0.01", 0.01, False), ("0", 0.0, False), ("2", None, True)]
)
def test_the_tolerance_is_a_share(said: str, tolerance: float | None, warned: bool) -> None:
    """From 0 to 1; another value is a warning, and the usual one counts."""
    model = built(*TWO, tags={TAG: "challenger", TOLERANCE: said})
    assert model.shadow is not None
    assert model.shadow.tolerance == tolerance
    assert bool(model.warnings) is warned


@pytest.mark.parametrize(
    ("tags", "keeps", "left_out"),
    [
        ({}, False, ()),
        ({"modelmux.capture": "10"}, True, ()),
        ({"modelmux.capture": "10%", "modelmux.capture_drop": "a, b"}, True, ("a", "b")),
        ({"modelmux.capture": "0"}, False, ()),
        ({"modelmux.capture": "some"}, False, ()),
    ],
)
def test_inputs_are_kept_where_requests_are(
    tags: dict[str, str], keeps: bool, left_out: tuple[str, ...]
) -> None:
    """By the tags of capturing, which also say which columns never are."""
    shadow = built(*TWO, tags={TAG: "challenger", **tags}, captures=True).shadow
    assert shadow is not None
    assert (shadow.keeps_inputs, shadow.left_out) == (keeps, left_out)


def test_no_inputs_are_kept_where_no_requests_are() -> None:
    """A gateway without a place for captured requests keeps none beside a shadow's answers."""
    shadow = built(*TWO, tags={TAG: "challenger", "modelmux.capture": "10"}).shadow
    assert shadow is not None
    assert not shadow.keeps_inputs


def test_a_default_that_is_held_leaves_the_shadow_beside_the_old_one() -> None:
    """What is compared is what answers."""
    versions = (version(1), version(2, BREAKING), version(3))
    policy = DefaultPolicy()
    first = build_catalog((record(versions[0], aliases={"champion": 1}),), None, policy=policy)
    tags: dict[str, Any] = {TAG: "3"}
    held = (record(*versions, aliases={"champion": 2}, tags=tags),)
    model = build_catalog(held, first.catalog, policy=policy).catalog.models["m"]
    assert (model.default_version, model.contract) == (1, PLAIN)
    assert model.shadow == Shadow(number=3)
