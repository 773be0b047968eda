"""A call and its outcome in the plain form in which they cross to a replica and back, and what
outcomes mean (see `VersionHost.predict`). Must not import ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployments.model_replica.call import ModelCall
from gateway.catalog import ModelVersion
from gateway.contract import Frame
from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    InvalidModelOutput,
    ModelFailed,
    ModelUnavailable,
)
from gateway.ports import CallResult

_STARTING_RETRY_AFTER_S = 2.0

Outcome = tuple[str, Any]
"""A kind and its value, as they cross the handle."""


def plain_call(
    version: ModelVersion,
    frame: Frame,
    params: Mapping[str, Any],
    *,
    give_up_at: float,
    patience_s: float,
    traceparent: str | None = None,
) -> ModelCall:
    """A call of one version as its process gets it; see `ModelCall` for the times."""
    return ModelCall(
        number=version.number,
        fingerprint=version.fingerprint,
        frame=(frame.layout, frame.names, frame.columns),
        params=dict(params),
        give_up_at=give_up_at,
        patience_s=patience_s,
        traceparent=traceparent,
    )


def call_result(outcome: Outcome) -> CallResult:
    """The result of a call that went well; raises the error that any other outcome means."""
    kind, value = outcome
    if kind != "ok":
        raise _error(kind, value)
    output, timings_ms = value
    return CallResult(output=output, timings_ms=timings_ms)


def still_starting() -> ModelUnavailable:
    """The version will be there, but not within this request's deadline."""
    return ModelUnavailable("The model is still starting.", retry_after_s=_STARTING_RETRY_AFTER_S)


def _error(kind: str, value: Any) -> GatewayError:
    if kind == "load_failed":
        return ModelUnavailable(
            "This version can't be loaded; the gateway's log has the reason.",
            retry_after_s=value,
            load_failed=True,
        )
    if kind == "suspended":
        return ModelUnavailable(
            "This version's calls ended or held up its processes: it isn't tried for a while. The "
            "gateway's log has more.",
            retry_after_s=value,
        )
    if kind == "loading":
        return still_starting()
    if kind == "late":
        return DeadlineExceeded("The model was busy with others until the deadline.")
    if kind == "unsupported_output":
        return InvalidModelOutput("The model answered something that has no JSON form.")
    return ModelFailed("The model's own code failed on this request; its log has the reason.")
