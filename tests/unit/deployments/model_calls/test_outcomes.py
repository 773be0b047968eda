"""What a replica's outcomes mean to callers."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.model_calls.outcomes import call_result
from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    InvalidModelOutput,
    ModelFailed,
    ModelUnavailable,
)


@pytest.mark.parametrize(
    ("kind", "value", "error", "load_failed"),
    [
        ("load_failed", 7.0, ModelUnavailable, True),
        ("suspended", 7.0, ModelUnavailable, False),
        ("loading", None, ModelUnavailable, False),
        ("late", None, DeadlineExceeded, None),
        ("model_failed", None, ModelFailed, None),
        ("unsupported_output", None, InvalidModelOutput, None),
    ],
)
def test_each_outcome_has_its_error(
    kind: str, value: Any, error: type[GatewayError], load_failed: bool | None
) -> None:
    """Only a load that failed is said to be one; a version that isn't tried says for how long."""
    with pytest.raises(error) as raised:
        call_result((kind, value))
    assert getattr(raised.value, "load_failed", None) is load_failed
    if value is not None:
        assert raised.value.retry_after_s == value


def test_what_went_well_is_the_result() -> None:
    """The output as it came, with the times that the replica measured."""
    result = call_result(("ok", (("values", [1]), {"model": 2.0})))
    assert (result.output, result.timings_ms) == (("values", [1]), {"model": 2.0})
