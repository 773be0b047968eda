"""Collecting metrics from all processes of the gateway: the port for it.

A Protocol that `deployments` fulfils, and the small value that crosses it. Must not import ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gateway.metrics.families import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the processes of the gateway told when they were asked.

    `replicas` are the ingress replicas' readings by their ids; `sync` is the sync service's, which
    counts for the models' processes, None where it didn't answer.
    """

    replicas: Mapping[str, Reading] = field(default_factory=dict)
    sync: Reading | None = None


class Measurements(Protocol):
    """Where the numbers of all processes of the gateway come from."""

    async def measured(self) -> Measured:
        """Ask all of them; who doesn't answer soon is left out."""
