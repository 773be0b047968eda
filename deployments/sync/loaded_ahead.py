"""Models that always have a replica have their default version in it before anybody asks.

A version that takes over is prepared (`deployments.sync.version_preparer`); this is for what was
the default already when its replica came: at a start, and where a replica was lost. Must not import
ray.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random

from deployments.backoff import Backoff
from deployments.placement import Placement
from gateway.attempt import Attempt
from gateway.catalog import Catalog, ModelVersion, ServedModel
from gateway.single_flight import SingleFlight
from registry_sync.default_version import EnvironmentProblem
from registry_sync.synchronizer import PreparationFailed

_logger = logging.getLogger(__name__)

# Until a replica has told what it has.
_TOLD_S = 35.0

_PAUSES = Backoff(least_s=10.0, most_s=240.0)

Load = Callable[[ServedModel, ModelVersion], Awaitable[None]]
"""Loads a version in each replica of its model; raises PreparationFailed."""


class LoadedAhead:
    """Has default versions loaded where a replica is kept and has none of its model's versions;
    which one is in memory later is up to those who ask. What fails is tried again after pauses.

    `is_running` tells whether the application of a model is there, `has_loaded` whether any version
    of a model of that name is in memory, `environment_problem` why a version can't be loaded yet.
    """

    def __init__(
        self,
        load: Load,
        has_loaded: Callable[[str], bool],
        *,
        is_running: Callable[[ServedModel], bool],
        placement: Placement,
        environment_problem: EnvironmentProblem,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._has_loaded = has_loaded
        self._is_running = is_running
        self._placement = placement
        self._environment_problem = environment_problem
        self._clock = clock
        self._random = Random()  # noqa: S311 - no secret
        self._loads: SingleFlight[str, None] = SingleFlight()
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}

    def look(self, catalog: Catalog) -> None:
        """Begin to load what isn't there; waits for nothing."""
        known = {each.fingerprint for model in catalog.models.values() for each in model.versions}
        self._failures = {key: n for key, n in self._failures.items() if key in known}
        self._not_before = {key: at for key, at in self._not_before.items() if key in known}
        for model in catalog.models.values():
            default = model.default
            if default is not None and self._is_due(model, default):
                self._loads.start(model.name, partial(self._try, model, default))

    def _is_due(self, model: ServedModel, default: ModelVersion) -> bool:
        return (
            model.options.min_replicas > 0
            and not self._placement.is_shared(model)
            and self._clock() >= self._not_before.get(default.fingerprint, 0.0)
            and self._is_running(model)
            and not self._has_loaded(model.name)
            and self._environment_problem(model, default) is None
        )

    async def _try(self, model: ServedModel, default: ModelVersion) -> None:
        key, what = default.fingerprint, f"{model.name} version {default.number}"
        has_failed = False
        with Attempt(_logger, "%s can't be loaded ahead", what) as attempt:
            try:
                await self._load(model, default)
            except PreparationFailed as failed:
                _logger.info("%s isn't loaded ahead: %s", what, failed)
                has_failed = True
        if not (has_failed or attempt.has_failed):
            self._failures.pop(key, None)
            self._not_before[key] = self._clock() + _TOLD_S
            return
        self._failures[key] = self._failures.get(key, 0) + 1
        pause_s = _PAUSES.pause_s(self._failures[key], self._random)
        self._not_before[key] = self._clock() + pause_s
