"""From a reading to the next catalog."""

from __future__ import annotations

from dataclasses import replace

from gateway.catalog import Catalog
from registry_sync.catalog_builder import build_catalog
from registry_sync.default_version import DefaultPolicy, LoadFacts
from registry_sync.records import RegistryReading
from registry_sync.tags import version_warnings
from tests.support.catalogs import BREAKING, LOOSER, record, version

POLICY = DefaultPolicy()


def next_catalog(reading: RegistryReading, previous: Catalog | None) -> Catalog:
    return build_catalog(reading, previous, policy=POLICY).catalog


def test_a_quiet_registry_keeps_the_catalog_itself() -> None:
    """Nothing changed means the same object, so that no reader has anything to do."""
    first = next_catalog((record(version(1)),), None)
    assert next_catalog((record(version(1)),), first) is first


def test_every_change_makes_the_generation_grow() -> None:
    """A version, an alias or a model more or less is a new generation."""
    first = next_catalog((record(version(1)),), None)
    second = next_catalog((record(version(1), aliases={"a": 1}),), first)
    third = next_catalog((), second)
    assert [c.generation for c in (first, second, third)] == [1, 2, 3]


def test_a_model_that_did_not_change_is_the_same_object() -> None:
    """One model's change leaves the others alone, so that nobody compares them again."""
    records = (record(version(1)), record(version(1), name="n"))
    first = next_catalog(records, None)
    second = next_catalog((records[0], record(version(1), version(2), name="n")), first)
    assert second.models["m"] is first.models["m"]
    assert second.models["n"] is not first.models["n"]


def test_the_serve_tag_takes_a_model_out() -> None:
    """`modelmux.serve=false` is as if the model weren't there."""
    reading = (record(version(1), tags={"modelmux.serve": "false"}), record(version(1), name="n"))
    assert list(next_catalog(reading, None).models) == ["n"]


def test_a_bad_tag_is_a_warning() -> None:
    """A tag that can't be used keeps its default and is told in the catalog."""
    tags = {"modelmux.max_replicas": "many", "modelmux.timeout_s": "5", "modelmux.typo": "1"}
    model = next_catalog((record(version(1), tags=tags),), None).models["m"]
    assert (model.options.max_replicas, model.options.timeout_s) == (1, 5.0)
    assert len(model.warnings) == 2


def test_an_alias_that_reads_as_a_number_is_a_warning() -> None:
    """It is listed and can't be asked for; other aliases are no news."""
    aliases = {"7": 1, "champion": 1, "v7": 1, "07": 1, "größe": 1}
    model = next_catalog((record(version(1), aliases=aliases),), None).models["m"]
    (warning,) = model.warnings
    assert warning.startswith("Alias 7 can't be asked for")


def test_what_is_held_lasts_from_catalog_to_catalog() -> None:
    """The contract of the first catalog goes on holding what breaks it."""
    catalog = next_catalog((record(version(1)),), None)
    reading = (record(version(1), version(2, BREAKING)),)
    for _ in range(3):
        catalog = next_catalog(reading, catalog)
        assert catalog.models["m"].default_version == 1
        assert catalog.models["m"].held is not None


def test_a_plan_tells_what_waits() -> None:
    """A version that must be prepared comes with its model, also where the catalog is as before."""
    first = next_catalog((record(version(1)), record(version(1), name="n")), None)
    reading = (record(version(1), version(2)), record(version(1), name="n"))
    facts = LoadFacts(loaded={"f1"})
    plan = build_catalog(reading, first, policy=POLICY, facts=facts)
    again = build_catalog(reading, plan.catalog, policy=POLICY, facts=facts)
    assert again.catalog is plan.catalog
    assert plan.waiting == again.waiting == ((plan.catalog.models["m"], version(2)),)


def test_a_model_registered_anew_begins_a_new_contract() -> None:
    """Deleted and registered again between two looks: nothing of what was promised before holds,
    be it the contract or what an earlier one took."""
    old = replace(record(version(1)), created_at_ms=1_000)
    moved = replace(record(version(1), version(2, LOOSER)), created_at_ms=1_000)
    before = next_catalog((moved,), next_catalog((old,), None))
    assert before.models["m"].earlier_contracts == ()
    new = replace(record(version(1, BREAKING, fingerprint="new")), created_at_ms=2_000)
    model = next_catalog((new,), before).models["m"]
    assert (model.default_version, model.contract, model.earlier_contracts) == (1, BREAKING, ())
    assert (model.held, model.problem) == (None, None)


def test_a_creation_time_that_is_not_known_tells_nothing() -> None:
    """What an earlier release kept has none: the same model goes on with its contract."""
    before = next_catalog((record(version(1)),), None)
    now = replace(record(version(1), version(2, BREAKING)), created_at_ms=2_000)
    model = next_catalog((now,), before).models["m"]
    assert (model.default_version, model.created_at_ms) == (1, 2_000)
    assert (
        next_catalog((record(version(2, BREAKING)),), Catalog(generation=1, models={"m": model}))
        .models["m"]
        .default_version
        is None
    )


def test_a_version_s_tag_that_cannot_be_used_is_a_warning_of_its_model() -> None:
    """It says which version that is."""
    said = version_warnings({"modelmux.environment": "mine"})
    assert said == ("Tag modelmux.environment is ignored: it is none of auto, shared, own.",)
    assert version_warnings({"modelmux.environment": " Own "}) == ()
    model = build_catalog(
        (record(version(1), version(2, warnings=said)),), None, policy=DefaultPolicy()
    ).catalog.models["m"]
    assert model.warnings == (f"Version 2: {said[0]}",)


def test_a_production_stage_that_counts_for_nothing_is_a_warning() -> None:
    """Who lives by stages is told that another version answers, and what would change it; nobody
    is told where the stage's version answers, or a stage or an alias was chosen."""
    live = (version(1, stage="Production"), version(2, stage="Staging"))
    (warning,) = next_catalog((record(*live),), None).models["m"].warnings
    assert warning.startswith("Version 1 is in the stage Production")
    assert "MODELMUX_CHAMPION_STAGE" in warning
    alias = record(*live, aliases={"champion": 2})
    assert next_catalog((alias,), None).models["m"].warnings == ()
    by_stage = DefaultPolicy(champion_stage="Production")
    plan = build_catalog((record(*live),), None, policy=by_stage)
    assert plan.catalog.models["m"].warnings == ()
    assert plan.catalog.models["m"].default_version == 1
    assert next_catalog((record(live[0]),), None).models["m"].warnings == ()


def test_models_with_a_champion_can_be_kept_warm() -> None:
    """By a setting, unless a tag says how many replicas there are, or that it shares them."""
    warm = DefaultPolicy(warm="champions")
    champion = {"champion": 1}
    for record_, least in (
        (record(version(1), aliases=champion), 1),
        (record(version(1)), 0),
        (record(version(1), aliases=champion, tags={"modelmux.min_replicas": "0"}), 0),
        (record(version(1), aliases=champion, tags={"modelmux.min_replicas": "2"}), 2),
        (record(version(1), aliases=champion, tags={"modelmux.deployment": "shared"}), 0),
    ):
        model = build_catalog((record_,), None, policy=warm).catalog.models["m"]
        assert model.options.min_replicas == least
    cold = build_catalog((record(version(1), aliases=champion),), None, policy=DefaultPolicy())
    assert cold.catalog.models["m"].options.min_replicas == 0
