"""Defaults as the registry has them pinned: two gateways agree, and a fresh one goes on."""

from __future__ import annotations

from gateway.catalog import Catalog, ServedModel
from registry_sync.catalog_builder import build_catalog, to_be_pinned
from registry_sync.default_version import DefaultPolicy, LoadFacts
from registry_sync.pins import pin_tags
from registry_sync.records import RegisteredModel
from tests.support.catalogs import BREAKING, record, version

POLICY = DefaultPolicy()
BOTH = (version(1), version(2, BREAKING))


class Gateway:
    """A gateway that looks at the registry, and pins there what is to be."""

    def __init__(self) -> None:
        self.catalog: Catalog | None = None

    def look(
        self, model: RegisteredModel, facts: LoadFacts | None = None
    ) -> tuple[ServedModel, dict[str, str]]:
        """The model as it is served now, and the tags that it has afterwards."""
        self.catalog = build_catalog(
            (model,), self.catalog, policy=POLICY, facts=facts or LoadFacts(), pins=True
        ).catalog
        served = self.catalog.models["m"]
        tags = pin_tags(served) if to_be_pinned(model, served) else {}
        return served, {**model.tags, **tags}


def test_a_fresh_gateway_goes_on_from_what_is_pinned() -> None:
    """The gate holds for it what it holds for the one that pinned."""
    _, tags = Gateway().look(record(version(1)))
    assert tags["modelmux.default_version"] == tags["modelmux.contract_version"] == "1"
    fresh, again = Gateway().look(record(*BOTH, tags=tags))
    assert (fresh.default_version, fresh.held and fresh.held.number) == (1, 2)
    assert fresh.warnings == ()
    assert again == tags


def test_what_another_gateway_let_in_is_followed() -> None:
    """Also past the gate: the registry's answer decides, by the contract that was pinned."""
    first, second = Gateway(), Gateway()
    _, tags = first.look(record(version(1)))
    second.look(record(version(1), tags=tags))
    accepted = (version(1), version(2, BREAKING, accept_breaking=True))
    moved, tags = first.look(record(*accepted, tags=tags))
    assert moved.default_version == 2
    followed, again = second.look(record(*BOTH, tags=tags))
    assert (followed.default_version, followed.contract) == (2, BREAKING)
    assert followed.default_cause == "pinned"
    assert again == tags


def test_a_pin_that_cannot_be_written_changes_nothing_here() -> None:
    """A gateway doesn't go back to what it has gone on from, and tries to pin again."""
    gateway = Gateway()
    _, tags = gateway.look(record(version(1)))
    gateway.look(record(version(1), tags=tags))
    newer = record(version(1), version(2), tags=tags)
    for _ in range(3):
        served, wanted = gateway.look(newer)
        assert served.default_version == 2
        assert wanted["modelmux.default_version"] == "2"


def test_two_moves_between_two_looks_are_two_moves() -> None:
    """What a gateway pinned itself is nobody else's word, however late it reads it."""
    gateway = Gateway()
    _, first = gateway.look(record(version(1)))
    served, tags = gateway.look(record(version(1), version(2), tags=first))
    assert served.default_version == 2
    served, tags = gateway.look(record(version(1), version(2), version(3), tags=tags))
    assert (served.default_version, tags["modelmux.default_version"]) == (3, "3")
    served, again = gateway.look(record(version(1), version(2), version(3), tags=tags))
    assert (served.default_version, again) == (3, tags)


def test_a_fresh_gateway_rolls_back_as_the_old_one_would() -> None:
    """What was the default before is pinned with it: moving the alias back takes over at once."""
    gateway = Gateway()
    _, tags = gateway.look(record(version(1)))
    accepted = (version(1), version(2, BREAKING, accept_breaking=True))
    _, tags = gateway.look(record(*accepted, tags=tags))
    back, _ = Gateway().look(record(*BOTH, aliases={"champion": 1}, tags=tags))
    assert (back.default_version, back.default_cause, back.held) == (1, "rolled_back", None)


def test_a_fresh_gateway_falls_back_where_the_pinned_version_is_gone() -> None:
    """A deleted default leaves the one before it, also where nothing is on the disk."""
    gateway = Gateway()
    _, tags = gateway.look(record(version(1)))
    accepted = (version(1), version(2, BREAKING, accept_breaking=True))
    _, tags = gateway.look(record(*accepted, tags=tags))
    fallen, tags = Gateway().look(record(version(1), tags=tags))
    assert (fallen.default_version, fallen.default_cause) == (1, "fell_back")
    assert tags["modelmux.default_version"] == "1"


def test_a_pinned_version_is_loaded_before_it_is_followed() -> None:
    """Callers of a model that runs notice no cold start, and nothing is pinned meanwhile."""
    gateway = Gateway()
    running = LoadFacts(loaded=frozenset({"f1"}), is_running=lambda _: True)
    _, tags = gateway.look(record(version(1)))
    gateway.look(record(version(1), tags=tags), running)
    tags |= {"modelmux.default_version": "2", "modelmux.contract_version": "2"}
    waiting, same = gateway.look(record(*BOTH, tags=tags), running)
    assert (waiting.default_version, waiting.held and waiting.held.number) == (1, 2)
    assert same == tags
    ready = LoadFacts(loaded=running.loaded, prepared=frozenset({"f2"}), is_running=lambda _: True)
    followed, same = gateway.look(record(*BOTH, tags=tags), ready)
    assert (followed.default_version, followed.contract) == (2, BREAKING)
    assert same == tags


def test_a_pinned_version_that_cannot_be_read_now_is_not_written_over() -> None:
    """A store that is away while a fresh gateway starts makes it forget no default."""
    _, tags = Gateway().look(record(version(1), version(2)))
    unreadable = version(2, None, problem="Its MLmodel file can't be read.")
    fresh = Gateway()
    served, same = fresh.look(record(version(1), unreadable, tags=tags))
    assert served.default_version == 1
    assert same == tags
    served, same = fresh.look(record(version(1), version(2), tags=tags))
    assert (served.default_version, same) == (2, tags)


def test_nothing_is_read_where_nothing_is_pinned() -> None:
    """Off by default: tags of another gateway count for nothing."""
    tags = {"modelmux.default_version": "1", "modelmux.contract_version": "1"}
    plan = build_catalog((record(version(1), version(2), tags=tags),), None, policy=POLICY)
    model = plan.catalog.models["m"]
    assert (model.default_version, model.pinned_version, model.warnings) == (2, None, ())
