"""Tags for capture that do nothing are said in the catalog."""

from __future__ import annotations

import pytest

from gateway.catalog import UNTYPED_SIGNATURE
from registry_sync.catalog_builder import build_catalog
from registry_sync.default_version import DefaultPolicy
from tests.support.catalogs import PLAIN, record, version


def warnings_of(tags: dict[str, str], *, captures: bool, text: str = PLAIN) -> tuple[str, ...]:
    tags = {f"modelmux.{name}": value for name, value in tags.items()}
    reading = (record(version(1, text), tags=tags),)
    plan = build_catalog(reading, None, policy=DefaultPolicy(), captures=captures)
    return plan.catalog.models["m"].warnings


def test_a_tag_without_a_place_is_a_warning() -> None:
    """Whoever tagged the model is told that nothing is kept, and why."""
    (said,) = warnings_of({"capture": "10%"}, captures=False)
    assert "capture_url" in said
    assert warnings_of({"capture": "10"}, captures=True) == ()


@pytest.mark.parametrize("value", ["-1", "101", "some", ""])
def test_a_share_is_a_percentage(value: str) -> None:
    """What is none keeps nothing."""
    (said,) = warnings_of({"capture": value}, captures=True)
    assert "modelmux.capture is ignored" in said


def test_a_column_that_there_is_not_is_a_warning() -> None:
    """A typo must not keep what was to be left out without a word."""
    (said,) = warnings_of({"capture_drop": "x, y, input.x, emial"}, captures=True)
    assert "names emial," in said
    assert warnings_of({"capture_drop": "any"}, captures=True, text=UNTYPED_SIGNATURE) == ()
