"""What changed between catalogs, and since when."""

from __future__ import annotations

import logging

from gateway.catalog import HeldVersion
from registry_sync.catalog_changes import (
    CatalogChanges,
    ChangeLog,
    changes_between,
    describe_change,
    level_of_change,
)
from tests.support.catalogs import catalog, served, version


def test_models_that_came_changed_and_went_are_told_apart() -> None:
    """Each of the three is listed by name."""
    before = catalog(*(served(version(1), name=name) for name in "abc"))
    after = catalog(*(served(version(n), name=name) for name, n in (("b", 1), ("c", 2), ("d", 1))))
    assert changes_between(before, after) == CatalogChanges(
        added=("d",), changed=("c",), removed=("a",)
    )


def test_a_log_knows_what_changed_since() -> None:
    """All names of the generations after the reader's own, and none for who is up to date."""
    log = ChangeLog(10)
    log.add(11, CatalogChanges(added=("a",), removed=("b",)))
    log.add(12, CatalogChanges(changed=("c",)))
    assert log.since(10) == {"a", "b", "c"}
    assert log.since(11) == {"c"}
    assert log.since(12) == frozenset()


def test_a_log_admits_what_it_cannot_know() -> None:
    """Nothing is said to readers of generations before its first, or that it never saw."""
    log = ChangeLog(10)
    assert log.since(9) is None
    assert log.since(11) is None
    assert log.since(-1) is None


def test_a_log_forgets_the_oldest() -> None:
    """A reader that is further behind than the log is long can't be told."""
    log = ChangeLog(0, length=2)
    for generation in (1, 2, 3):
        log.add(generation, CatalogChanges(changed=(str(generation),)))
    assert log.since(0) is None
    assert log.since(1) == {"2", "3"}


def test_the_log_tells_a_model_that_was_registered_anew() -> None:
    """By its creation time, where both are known."""
    old, new = (served(version(1), created_at_ms=at) for at in (1_000, 2_000))
    unknown = served(version(1))
    assert describe_change(old, new) == "registered anew"
    assert describe_change(unknown, new) == describe_change(old, unknown) == "details"


def test_what_somebody_has_to_do_something_about_is_a_warning() -> None:
    """A model that nothing answers for any more and a default that breaks are warnings, once; one
    that is only being loaded, and all else, is not."""
    before = served(version(1), version(2), default=1)
    loading = before.model_copy(
        update={"held": HeldVersion(number=2, reason="It is being loaded.")}
    )
    breaks = HeldVersion(number=2, reason="It breaks.", differences=({"pointer": "/x"},))
    held = before.model_copy(update={"held": breaks})
    gone = before.model_copy(update={"default_version": None, "problem": "Gone."})
    assert level_of_change(before, loading) == logging.INFO
    assert level_of_change(loading, held) == logging.WARNING
    assert level_of_change(held, held) == logging.INFO
    assert level_of_change(before, gone) == logging.WARNING
    assert level_of_change(gone, gone) == logging.INFO
    assert level_of_change(None, gone) == logging.WARNING
    assert level_of_change(None, before) == logging.INFO
