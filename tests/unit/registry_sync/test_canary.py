"""Whether a model has a canary and who may go there, from catalog to catalog."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.canary import Canary, CanaryRule
from gateway.catalog import Catalog, ServedModel
from registry_sync.canary import parse_canary, with_canary_stopped
from registry_sync.catalog_builder import build_catalog
from registry_sync.catalog_changes import changes_between
from registry_sync.default_version import DefaultPolicy, LoadFacts
from registry_sync.history import history_of
from registry_sync.records import RegisteredModel
from tests.support.catalogs import BREAKING, LOOSER, record, version

LOADED = LoadFacts(loaded={"f1", "f2", "f3", "f4"})
ALIASES = {"champion": 1, "challenger": 2}
TAG = "modelmux.canary"


class Registry:
    """A model that is looked at again and again."""

    def __init__(self) -> None:
        self.catalog: Catalog | None = None
        self.told: list[tuple[Any, ...]] = []

    def look(self, looked: RegisteredModel, facts: LoadFacts = LOADED) -> ServedModel:
        """The model after a look; what is noted of it goes to `told`."""
        plan = build_catalog((looked,), self.catalog, policy=DefaultPolicy(), facts=facts)
        self.waiting = [version.number for _, version in plan.waiting]
        return self._take(plan.catalog)

    def stop(self, why: str = "It fails.") -> ServedModel:
        """The model after its canary was stopped."""
        assert self.catalog is not None
        canary = self.catalog.models["m"].canary
        assert canary is not None
        stopped = with_canary_stopped(self.catalog, "m", canary.trial, why)
        assert stopped is not None
        return self._take(stopped)

    def _take(self, after: Catalog) -> ServedModel:
        changes = changes_between(self.catalog, after)
        noted = history_of(changes, self.catalog, after, at=1.0)
        self.told += [
            (e.event, e.before, e.after) for e in noted if e.event not in ("added", "alias")
        ]
        self.catalog = after
        return after.models["m"]


def _record(
    share: str = "challenger:10", *, aliases: dict[str, int] = ALIASES, **tags: str
) -> RegisteredModel:
    """Three versions that keep the contract, and one that doesn't; tags by their short names."""
    versions = (version(1), version(2, LOOSER), version(3), version(4, BREAKING))
    beside = {f"modelmux.canary_{name}": value for name, value in tags.items()}
    return record(*versions, aliases=aliases, tags={TAG: share, **beside})


def _canary(model: ServedModel) -> Canary:
    assert model.canary is not None
    return model.canary


def test_a_canary_is_what_its_tag_says() -> None:
    """An alias and a percentage, with a header and bounds; it doesn't redeploy anything."""
    model = Registry().look(_record(header="X-User", max_error_ratio="0.05", min_requests="7"))
    assert _canary(model).rule == CanaryRule(
        selector="challenger", percent=10, header="X-User", max_error_ratio=0.05, min_requests=7
    )
    assert (_canary(model).state, _canary(model).version) == ("running", 2)
    assert model.warnings == ()
    assert model.options == Registry().look(record(version(1))).options


@pytest.mark.parametrize(("share", "number"), [("2:5", 2), ("latest:5", 3), ("challenger:5", 2)])
def test_a_canary_is_a_number_an_alias_or_the_newest(share: str, number: int) -> None:
    """As callers name versions."""
    looked = record(version(1), version(2), version(3), aliases=ALIASES, tags={TAG: share})
    assert _canary(Registry().look(looked)).version == number


@pytest.mark.parametrize(
    "tags",
    [
        {TAG: "challenger:ten"},
        {TAG: "challenger"},
        {TAG: "challenger:101"},
        {TAG: "challenger:10", "modelmux.canary_max_error_ratio": "5%"},
        {TAG: "challenger:10", "modelmux.canary_max_error_ratio": "nan"},
        {TAG: "challenger:10", "modelmux.canary_max_error_ratio": "1.5"},
        {TAG: "challenger:10", "modelmux.canary_min_requests": "0"},
        {TAG: "challenger:10", "modelmux.canary_header": "no header"},
        {TAG: "challenger:10", "modelmux.canary_header": "größe"},
    ],
)
def test_a_bad_tag_is_a_warning_and_no_canary(tags: dict[str, str]) -> None:
    """Also where the bound that would stop it can't be read: nobody goes there unguarded."""
    rule, (warning,) = parse_canary(tags)
    assert rule is None
    assert warning.startswith("Tag modelmux.canary")
    looked = record(version(1), version(2), aliases=ALIASES, tags=tags)
    model = Registry().look(looked)
    assert (model.canary, model.warnings) == (None, (warning,))


@pytest.mark.parametrize(
    ("share", "why"),
    [
        ("nobody:10", "no such version or alias"),
        ("9:10", "no such version or alias"),
        ("4:10", "would break the contract"),
        ("5:10", "has no signature"),
        ("6:10", "PENDING"),
        ("7:10", "doesn't speak as"),
    ],
)
def test_nobody_goes_to_what_may_not_answer(share: str, why: str) -> None:
    """The gate holds for a canary, too: it waits, with a warning that says why."""
    looked = record(
        version(1),
        version(4, BREAKING, accept_breaking=True),
        version(5, None, problem="It has no signature."),
        version(6, registry_status="PENDING_REGISTRATION"),
        version(7, task="llm/v1/chat"),
        aliases={"champion": 1},
        tags={TAG: share},
    )
    canary = _canary(Registry().look(looked))
    assert canary.state == "waiting"
    assert why in (canary.warning or "")


def test_a_canary_is_loaded_before_anybody_goes_there() -> None:
    """One that never was; where that fails it waits with the reason."""
    registry = Registry()
    only_one = LoadFacts(loaded={"f1"})
    model = registry.look(_record(), only_one)
    assert (_canary(model).state, registry.waiting) == ("waiting", [2])
    failed = LoadFacts(loaded={"f1"}, failed={"f2": "It can't be loaded."})
    model = registry.look(_record(), failed)
    assert (_canary(model).why, registry.waiting) == ("It can't be loaded.", [2])
    model = registry.look(_record(), LoadFacts(loaded={"f1", "f2"}, prepared={"f2"}))
    assert (_canary(model).state, registry.waiting) == ("running", [])


def test_a_canary_of_a_model_that_runs_is_loaded_where_it_begins() -> None:
    """Once: the first who go there don't wait, and one that runs is never taken back for it."""
    registry = Registry()
    runs = LoadFacts(loaded={"f1", "f2"}, is_running=lambda model: True)
    assert _canary(registry.look(_record(), runs)).state == "waiting"
    prepared = LoadFacts(loaded={"f1", "f2"}, prepared={"f2"}, is_running=lambda model: True)
    assert _canary(registry.look(_record(), prepared)).state == "running"
    assert _canary(registry.look(_record(), runs)).state == "running"
    assert _canary(registry.look(_record("challenger:20"), runs)).state == "running"


def test_a_canary_whose_packages_are_not_there_waits() -> None:
    """With the reason, as a default would."""
    facts = LoadFacts(
        loaded={"f1", "f2"}, environment_problem=lambda model, version: "It is being built."
    )
    assert _canary(Registry().look(_record(), facts)).why == "It is being built."


def test_a_quiet_registry_leaves_a_canary_alone() -> None:
    """The catalog is the same object, so that nobody has anything to do."""
    registry = Registry()
    registry.look(_record())
    before = registry.catalog
    registry.look(_record())
    assert registry.catalog is before
    registry.stop()
    stopped = registry.catalog
    registry.look(_record())
    assert registry.catalog is stopped


def test_moving_the_champion_there_ends_a_canary() -> None:
    """It is the default then, the tag has nothing to do, and the history says both; another
    challenger is another canary."""
    registry = Registry()
    registry.look(_record())
    registry.look(_record(), LOADED)
    both = {"champion": 2, "challenger": 2}
    prepared = LoadFacts(loaded=LOADED.loaded, prepared={"f2"})
    ended = registry.look(_record(aliases=both), prepared)
    assert (ended.default_version, _canary(ended).state) == (2, "ended")
    assert _canary(ended).warning is None
    assert registry.told == [("promoted", 1, 2), ("canary_ended", 1, 2)]


def test_the_life_of_a_canary_is_told() -> None:
    """Begun, grown, stopped, begun anew by another version, and over with its tag."""
    registry = Registry()
    registry.look(record(version(1), version(2, LOOSER), version(3), aliases=ALIASES))
    registry.look(_record())
    registry.look(_record("challenger:50"))
    registry.stop()
    registry.look(_record("challenger:50", aliases={**ALIASES, "challenger": 3}))
    registry.look(_record("9:50"))
    assert registry.told == [
        ("canary_began", 1, 2),
        ("canary_changed", 1, 2),
        ("canary_stopped", 1, 2),
        ("canary_began", 1, 3),
        ("canary_ended", 1, 3),
    ]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (_record(aliases={"champion": 1}), "The model has no such version or alias."),
        (_record(aliases={"champion": 1, "challenger": 3}), "challenger is another version by now"),
        (_record(aliases={"champion": 2, "challenger": 2}), "Version 2 is the default."),
        (_record(aliases={"champion": 1, "challenger": 4}), "challenger is another version by now"),
        (record(version(1), version(2), aliases=ALIASES), "The model has no canary any more."),
    ],
)
def test_the_end_of_a_canary_is_told_with_why(changed: RegisteredModel, why: str) -> None:
    """Its alias is gone, names another version, or it is the default; or its tag is gone."""
    registry = Registry()
    registry.look(_record())
    before = registry.catalog
    registry.look(changed)
    assert registry.catalog is not None
    noted = history_of(changes_between(before, registry.catalog), before, registry.catalog, at=1.0)
    (ended,) = [each for each in noted if each.event == "canary_ended"]
    assert ended.why is not None
    assert ended.why.startswith(why)


def test_a_version_that_was_stopped_stays_so() -> None:
    """Also where another version was under the alias meanwhile: that one runs."""
    registry = Registry()
    registry.look(_record())
    assert _canary(registry.stop("It fails.")).state == "stopped"
    assert "It fails." in (_canary(registry.look(_record())).warning or "")
    other = registry.look(_record(aliases={**ALIASES, "challenger": 3}))
    assert _canary(other).state == "running"
    again = _canary(registry.look(_record()))
    assert (again.state, again.why) == ("stopped", "It fails.")


@pytest.mark.parametrize(
    "changed", [_record("challenger:20"), _record(max_error_ratio="0.5"), _record(min_requests="9")]
)
def test_a_changed_tag_lets_it_run_again(changed: RegisteredModel) -> None:
    """As a new trial: what was counted before counts for nothing."""
    registry = Registry()
    first = _canary(registry.look(_record()))
    registry.stop()
    again = _canary(registry.look(changed))
    assert again.state == "running"
    assert again.trial != first.trial


def test_a_tag_that_is_taken_away_and_set_again_lets_it_run_again() -> None:
    """The same tag, too: somebody has thought about it."""
    registry = Registry()
    first = _canary(registry.look(_record()))
    registry.stop()
    registry.look(record(version(1), version(2, LOOSER), version(3), aliases=ALIASES))
    again = _canary(registry.look(_record()))
    assert again.state == "running"
    assert again.trial != first.trial


def test_another_default_is_another_trial() -> None:
    """What is counted beside the next default begins at nothing."""
    registry = Registry()
    first = _canary(registry.look(_record()))
    prepared = LoadFacts(loaded=LOADED.loaded, prepared={"f3"})
    moved = registry.look(_record(aliases={**ALIASES, "champion": 3}), prepared)
    assert (moved.default_version, _canary(moved).state) == (3, "running")
    assert _canary(moved).trial != first.trial


def test_what_was_stopped_stays_so_beside_another_default() -> None:
    """Nobody who moves the alias, or back, has asked for a canary that failed to have callers
    again; and the history doesn't tell that it was stopped once more."""
    registry = Registry()
    registry.look(_record())
    stopped = registry.stop("It fails.")
    prepared = LoadFacts(loaded=LOADED.loaded, prepared={"f3"})
    before = registry.catalog
    for champion in (3, 1):
        aliases = {**ALIASES, "champion": champion}
        moved = registry.look(_record(aliases=aliases), prepared)
        assert moved.default_version == champion
        assert (_canary(moved).state, _canary(moved).why) == ("stopped", "It fails.")
        assert registry.catalog is not None
        changes = changes_between(before, registry.catalog)
        noted = history_of(changes, before, registry.catalog, at=1.0)
        assert not [each for each in noted if each.event.startswith("canary")]
        before = registry.catalog
    assert _canary(stopped).why == "It fails."


def test_a_stop_that_comes_too_late_stops_nothing() -> None:
    """The trial that failed is over: another runs by now, or none."""
    registry = Registry()
    old = _canary(registry.look(_record())).trial
    registry.look(_record("challenger:20"))
    assert registry.catalog is not None
    assert with_canary_stopped(registry.catalog, "m", old, "late") is None
    assert with_canary_stopped(registry.catalog, "gone", old, "late") is None
