"""What an outcome says about a version that is to take over."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.sync.load_outcomes import why_not_loaded

NO_SKOPS = "ModuleNotFoundError: No module named 'skops'"


@pytest.mark.parametrize("outcome", [("ok", None), ("model_failed", None), ("late", None)])
def test_a_version_that_was_asked_is_in_memory(outcome: tuple[str, Any]) -> None:
    """Whatever came of the call."""
    assert why_not_loaded(outcome) is None


def test_the_reason_of_a_failed_load_is_told() -> None:
    """Where the process tells it; without one there is the log."""
    told = why_not_loaded(("load_failed", {"retry_after_s": 30.0, "reason": NO_SKOPS}))
    assert told == f"It can't be loaded: {NO_SKOPS}."
    for silent in (30.0, {"retry_after_s": 30.0, "reason": ""}):
        assert "log" in str(why_not_loaded(("load_failed", silent)))
    assert "log" in str(why_not_loaded(("loading", None)))


def test_a_suspended_version_is_no_version_that_cannot_be_loaded() -> None:
    """It is said what its calls did."""
    assert "calls" in str(why_not_loaded(("suspended", 10.0)))
