"""From a reading to the next catalog."""

from __future__ import annotations

from registry_sync.catalog_builder import build_catalog
from registry_sync.default_version import DefaultPolicy
from tests.support.catalogs import BREAKING, record, version

POLICY = DefaultPolicy()


def test_a_quiet_registry_keeps_the_catalog_itself() -> None:
    """Nothing changed means the same object, so that no reader has anything to do."""
    first = build_catalog((record(version(1)),), None, policy=POLICY)
    assert build_catalog((record(version(1)),), first, policy=POLICY) is first


def test_every_change_makes_the_generation_grow() -> None:
    """A version, an alias or a model more or less is a new generation."""
    first = build_catalog((record(version(1)),), None, policy=POLICY)
    second = build_catalog((record(version(1), aliases={"a": 1}),), first, policy=POLICY)
    third = build_catalog((), second, policy=POLICY)
    assert [c.generation for c in (first, second, third)] == [1, 2, 3]


def test_a_model_that_did_not_change_is_the_same_object() -> None:
    """One model's change leaves the others alone, so that nobody compares them again."""
    records = (record(version(1)), record(version(1), name="n"))
    first = build_catalog(records, None, policy=POLICY)
    second = build_catalog(
        (records[0], record(version(1), version(2), name="n")), first, policy=POLICY
    )
    assert second.models["m"] is first.models["m"]
    assert second.models["n"] is not first.models["n"]


def test_the_serve_tag_takes_a_model_out() -> None:
    """`modelmux.serve=false` is as if the model weren't there."""
    reading = (record(version(1), tags={"modelmux.serve": "false"}), record(version(1), name="n"))
    assert list(build_catalog(reading, None, policy=POLICY).models) == ["n"]


def test_a_bad_tag_is_a_warning() -> None:
    """A tag that can't be used keeps its default and is told in the catalog."""
    tags = {"modelmux.max_replicas": "many", "modelmux.timeout_s": "5", "modelmux.typo": "1"}
    model = build_catalog((record(version(1), tags=tags),), None, policy=POLICY).models["m"]
    assert (model.options.max_replicas, model.options.timeout_s) == (1, 5.0)
    assert len(model.warnings) == 2


def test_an_alias_that_reads_as_a_number_is_a_warning() -> None:
    """It is listed and can't be asked for; other aliases are no news."""
    aliases = {"7": 1, "champion": 1, "v7": 1, "07": 1, "größe": 1}
    model = build_catalog((record(version(1), aliases=aliases),), None, policy=POLICY).models["m"]
    (warning,) = model.warnings
    assert warning.startswith("Alias 7 can't be asked for")


def test_what_is_held_lasts_from_catalog_to_catalog() -> None:
    """The contract of the first catalog goes on holding what breaks it."""
    catalog = build_catalog((record(version(1)),), None, policy=POLICY)
    reading = (record(version(1), version(2, BREAKING)),)
    for _ in range(3):
        catalog = build_catalog(reading, catalog, policy=POLICY)
        assert catalog.models["m"].default_version == 1
        assert catalog.models["m"].held is not None
