"""One call of a version, as a replica gets it.

Travels to the replica by value with `deployments.model_replica.versions`, and like it imports
nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class ModelCall(NamedTuple):
    """A frame `(layout, names, columns)` for the version `number`, and the inference params.

    What crosses to another process is its plain tuple: a class of ours would have to be imported
    there. `give_up_at` is when a call that has not begun is given up, of the monotonic clock, which
    all processes of a machine share; a model that takes longer than `patience_s` seconds has hung.
    `traceparent` is the span that the call comes from, where it is traced (W3C Trace Context).
    """

    number: int
    fingerprint: str
    frame: tuple[str, tuple[Any, ...], tuple[Any, ...]]
    params: Mapping[str, Any]
    give_up_at: float
    patience_s: float
    traceparent: str | None = None
