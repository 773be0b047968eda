"""Snapshots of metrics: what a process tells about itself and the catalog when it is scraped.

Nothing here is on the path of a request. Must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from math import inf
from pathlib import Path
from platform import python_version
from resource import getpagesize

from gateway.admission import Admission
from gateway.availability import why_model_is_silent
from gateway.batching.batcher import MicroBatcher
from gateway.capture.journal import CaptureJournal
from gateway.catalog import Catalog, ServedModel
from gateway.metrics.collection import Measured
from gateway.metrics.counters import Traffic
from gateway.metrics.families import (
    ACCESS_LINES_LOST,
    BUILD_INFO,
    CANARY_SHARE,
    CANARY_STOPPED,
    CAPTURED_REQUESTS,
    CATALOG_GENERATION,
    DEFAULT_HELD,
    ENVIRONMENT_NOT_READY,
    ENVIRONMENTS,
    INGRESS_MEMORY,
    INGRESS_REPLICAS,
    KEY_REQUESTS,
    KEY_REQUESTS_REFUSED,
    MODEL_UNSERVABLE,
    MODELS,
    QUEUED_REQUESTS,
    REGISTRY_SILENT,
    REQUESTS_IN_FLIGHT,
    ROWS_IN_FLIGHT,
    SYNC_SERVICE_UP,
    Reading,
)
from gateway.ports import CatalogFeed
from gateway.prediction import PredictionService
from gateway.security.key_usage import KeyUsage


class ReplicaNumbers:
    """The numbers of one ingress process: what it counted, and what is inside at this moment.

    `lost_lines` tells how many lines of the access log are lost, `usage` what was asked with keys,
    `captured` what was kept.
    """

    def __init__(
        self,
        *,
        feed: CatalogFeed,
        service: PredictionService,
        traffic: Traffic,
        admission: Admission,
        batcher: MicroBatcher,
        lost_lines: Callable[[], int] = lambda: 0,
        usage: KeyUsage | None = None,
        captured: CaptureJournal | None = None,
    ) -> None:
        self._feed = feed
        self._service = service
        self._traffic = traffic
        self._admission = admission
        self._batcher = batcher
        self._lost_lines = lost_lines
        self._usage = KeyUsage() if usage is None else usage
        self._captured = captured

    def reading(self) -> Reading:
        """All of them, of what the catalog has."""
        catalog = self._feed.catalog
        if catalog is not None:
            self._traffic.forget_all_but(catalog)
        loads = self._admission.loads
        # Who was here is told as zero: a series that ends looks the same as one that isn't read.
        models = self._traffic.models | loads.keys()
        queued: Counter[tuple[str, int]] = Counter()
        for which, waiting in self._batcher.queues():
            queued[which] += waiting  # one number may have had other artifacts before
        return self._traffic.reading() | {
            REQUESTS_IN_FLIGHT.name: [
                ((name,), loads[name].requests if name in loads else 0) for name in models
            ],
            ROWS_IN_FLIGHT.name: [
                ((name,), loads[name].rows if name in loads else 0) for name in models
            ],
            QUEUED_REQUESTS.name: [
                ((name, str(number)), waiting) for (name, number), waiting in queued.items()
            ],
            ACCESS_LINES_LOST.name: [((), self._lost_lines())],
            KEY_REQUESTS.name: [((key,), n) for key, n in self._usage.requests.items()],
            KEY_REQUESTS_REFUSED.name: [((key,), n) for key, n in self._usage.refused.items()],
            INGRESS_MEMORY.name: [((), size) for size in _resident_bytes()],
            CAPTURED_REQUESTS.name: []
            if self._captured is None
            else [*self._captured.outcomes(catalog).items()],
            MODEL_UNSERVABLE.name: [
                ((model.name,), 1)
                for model in _models(catalog)
                if not _answers(self._service, model)
            ],
        }


def gateway_reading(service: PredictionService, feed: CatalogFeed, measured: Measured) -> Reading:
    """What is told once for the whole gateway: the catalog and the registry as this process knows
    them, what the sync service counts, and who has answered."""
    catalog, silent_for_s = feed.catalog, feed.registry.silent_for_s
    told: Reading = {
        REGISTRY_SILENT.name: [((), inf if silent_for_s is None else silent_for_s)],
        INGRESS_REPLICAS.name: [((), len(measured.replicas))],
        BUILD_INFO.name: [(_build(), 1)],
        SYNC_SERVICE_UP.name: [((), int(measured.sync is not None))],
        DEFAULT_HELD.name: [
            ((model.name, str(model.held.number)), 1)
            for model in _models(catalog)
            if model.held is not None
        ],
        CANARY_SHARE.name: [
            ((model.name, str(model.canary.version)), model.canary.rule.percent / 100.0)
            for model in _models(catalog)
            if model.canary is not None and model.canary.state == "running"
        ],
        CANARY_STOPPED.name: [
            ((model.name, str(model.canary.version)), 1)
            for model in _models(catalog)
            if model.canary is not None and model.canary.state == "stopped"
        ],
    }
    if catalog is not None:
        ready = sum(_answers(service, model) for model in catalog.models.values())
        told[CATALOG_GENERATION.name] = [((), catalog.generation)]
        told[MODELS.name] = [
            (("ready",), ready),
            (("unservable",), len(catalog.models) - ready),
        ]
    return (measured.sync or {}) | _environments(catalog) | told


@cache
def _build() -> tuple[str, ...]:
    """The values of BUILD_INFO's labels."""
    client = _release("mlflow-skinny") or _release("mlflow")
    return (_release("modelmux"), python_version(), _release("ray"), client)


def _release(distribution: str) -> str:
    """Which one is installed; nothing where none is."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _resident_bytes() -> list[int]:
    """Of this process (proc_pid_statm(5)); none where the system doesn't tell."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return []
    return [int(statm.read_text().split()[1]) * getpagesize()]


def _environments(catalog: Catalog | None) -> Reading:
    states: Counter[tuple[str, str]] = Counter()
    not_ready: list[tuple[tuple[str, ...], float]] = []
    for model in _models(catalog):
        states.update((each.kind, each.state) for each in model.environments.values())
        default = model.environments.get(model.default_version or 0)
        if default is not None and default.state != "ready":
            not_ready.append(((model.name, str(model.default_version), default.state), 1))
    return {
        ENVIRONMENTS.name: [(labels, count) for labels, count in sorted(states.items())],
        ENVIRONMENT_NOT_READY.name: [*not_ready],
    }


def _models(catalog: Catalog | None) -> list[ServedModel]:
    return [] if catalog is None else list(catalog.models.values())


def _answers(service: PredictionService, model: ServedModel) -> bool:
    """Whether the model answers where no version is named, as far as is known here."""
    return why_model_is_silent(model, service.unloadable) is None
