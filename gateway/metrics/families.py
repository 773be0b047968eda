"""Metric families: names, kinds, labels and help of all metrics, how numbers travel (pure).

The one list that counting, the answer to `/metrics`, its documentation and the dashboards are made
from or checked against. Names follow Prometheus' conventions
(https://prometheus.io/docs/practices/naming/): base units, `_total` for what only grows.

Cardinality is bounded by the registry: a label is never made of what a caller sent. What isn't in
the catalog is counted with an empty label, and what is gone from it is told no more. Must not
import ray, mlflow or fastapi.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal, TypeAlias

PREFIX = "modelmux_"

REPLICA = "replica"
"""The label of what every ingress replica counts by itself: the replica's short id."""

Labels: TypeAlias = tuple[str, ...]
"""The values of a family's labels, in their order; `replica` left out."""

Bins: TypeAlias = tuple[list[int], float]
"""A histogram as it travels: how many fell into each bin (not cumulated; the last one is open), and
the sum of all values."""

Reading: TypeAlias = dict[str, list[tuple[Labels, float | Bins]]]
"""What one process has to tell: the samples of each family by its name. Plain, because the two ends
may be of different releases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric. `bounds` are of a histogram's bins, upper ends included; `by_replica` says that
    each ingress replica has series of its own."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    by_replica: bool = False

    @property
    def exposed_labels(self) -> tuple[str, ...]:
        """All labels, as they are exposed."""
        return (REPLICA, *self.labels) if self.by_replica else self.labels

    @property
    def exposed_name(self) -> str:
        """The name as the family's samples have it: counters end in `_total`."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


_SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
_LOAD_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0, 16384.0)

_VERSION = ("model", "version")

REQUESTS = Family(
    name=f"{PREFIX}requests",
    kind="counter",
    help="Predictions that were answered, by HTTP status; 499: the caller left before.",
    labels=(*_VERSION, "status", "protocol"),
    by_replica=True,
)
REQUEST_DURATION = Family(
    name=f"{PREFIX}request_duration_seconds",
    kind="histogram",
    help="Seconds from a request's arrival to its answer, of predictions answered with 200.",
    labels=(*_VERSION, "protocol"),
    bounds=_SECONDS,
    by_replica=True,
)
STREAM_FIRST_EVENT = Family(
    name=f"{PREFIX}stream_first_event_seconds",
    kind="histogram",
    help="Seconds from a request's arrival to the first event of its stream.",
    labels=_VERSION,
    bounds=_SECONDS,
    by_replica=True,
)
STREAM_EVENTS = Family(
    name=f"{PREFIX}stream_events",
    kind="counter",
    help="Events of streams that have ended, however they did.",
    labels=_VERSION,
    by_replica=True,
)
REQUEST_ROWS = Family(
    name=f"{PREFIX}request_rows",
    kind="counter",
    help="Rows of predictions answered with 200.",
    labels=(*_VERSION, "protocol"),
    by_replica=True,
)
REQUESTS_IN_FLIGHT = Family(
    name=f"{PREFIX}requests_in_flight",
    kind="gauge",
    help="Predictions that are inside: not answered, or with a large answer being read.",
    labels=("model",),
    by_replica=True,
)
ROWS_IN_FLIGHT = Family(
    name=f"{PREFIX}rows_in_flight",
    kind="gauge",
    help="Rows of the predictions that are inside, until their answer is made.",
    labels=("model",),
    by_replica=True,
)
QUEUED_REQUESTS = Family(
    name=f"{PREFIX}queued_requests",
    kind="gauge",
    help="Of the predictions that are inside, those that wait for a call to return.",
    labels=_VERSION,
    by_replica=True,
)
CALL_ROWS = Family(
    name=f"{PREFIX}call_rows",
    kind="histogram",
    help="Rows of each call of a model: the batch size.",
    labels=_VERSION,
    bounds=_ROWS,
    by_replica=True,
)
CALL_DURATION = Family(
    name=f"{PREFIX}call_duration_seconds",
    kind="histogram",
    help="Seconds that a call took in the model's process, its turn and its own code.",
    labels=_VERSION,
    bounds=_SECONDS,
    by_replica=True,
)
LOADS = Family(
    name=f"{PREFIX}loads",
    kind="counter",
    help="Loads of versions, by their outcome: ok or failed.",
    labels=(*_VERSION, "outcome"),
)
LOAD_DURATION = Family(
    name=f"{PREFIX}load_duration_seconds",
    kind="histogram",
    help="Seconds that a load took that went well, fetching its artifacts included.",
    labels=("model",),
    bounds=_LOAD_SECONDS,
)
LOADED_VERSIONS = Family(
    name=f"{PREFIX}loaded_versions",
    kind="gauge",
    help="Versions in memory, summed over the processes of the model.",
    labels=("model",),
)
EVICTIONS = Family(
    name=f"{PREFIX}evictions",
    kind="counter",
    help="Versions that made room in memory for others.",
    labels=("model",),
)
MODEL_PROCESSES = Family(
    name=f"{PREFIX}model_processes",
    kind="gauge",
    help="Replicas of the model that have loaded anything, by the machines that they run on.",
    labels=("model", "machine"),
)
MODEL_DEPLOYMENTS = Family(
    name=f"{PREFIX}model_deployments",
    kind="gauge",
    help="Deployments of one model each, by their state: starting or running. A model that has "
    "none is asleep, or in the shared deployment.",
    labels=("model", "state"),
)
SHADOW_REQUESTS = Family(
    name=f"{PREFIX}shadow_requests",
    kind="counter",
    help="Requests that a shadow was to have beside the default version, by what became of them: "
    "equal, different, failed, late or dropped.",
    labels=(*_VERSION, "shadow", "outcome"),
)
SHADOW_DURATION = Family(
    name=f"{PREFIX}shadow_call_duration_seconds",
    kind="histogram",
    help="Seconds that calls took of which the shadow's answers were compared, by whose: default "
    "or shadow.",
    labels=(*_VERSION, "shadow", "side"),
    bounds=_SECONDS,
)
CATALOG_GENERATION = Family(
    name=f"{PREFIX}catalog_generation",
    kind="gauge",
    help="The catalog's generation: grows whenever something changes.",
)
MODELS = Family(
    name=f"{PREFIX}models",
    kind="gauge",
    help="Models of the catalog by their status: ready or unservable.",
    labels=("status",),
)
MODEL_UNSERVABLE = Family(
    name=f"{PREFIX}model_unservable",
    kind="gauge",
    help="1 for each model of which nothing answers by default.",
    labels=("model",),
    by_replica=True,
)
DEFAULT_HELD = Family(
    name=f"{PREFIX}default_held",
    kind="gauge",
    help="1 for each version that would be its model's default and is held.",
    labels=_VERSION,
)
CANARY_SHARE = Family(
    name=f"{PREFIX}canary_share",
    kind="gauge",
    help="What part of the requests that name no version goes to a canary that runs, 0 to 1.",
    labels=_VERSION,
)
CANARY_STOPPED = Family(
    name=f"{PREFIX}canary_stopped",
    kind="gauge",
    help="1 for each version that was its model's canary and failed too often.",
    labels=_VERSION,
)
ENVIRONMENTS = Family(
    name=f"{PREFIX}version_environments",
    kind="gauge",
    help="Versions by their packages, the gateway's or their own, and by whether these are there.",
    labels=("kind", "state"),
)
ENVIRONMENT_NOT_READY = Family(
    name=f"{PREFIX}default_environment_not_ready",
    kind="gauge",
    help="1 for each default version whose packages aren't there, by how they are.",
    labels=(*_VERSION, "state"),
)
REGISTRY_SILENT = Family(
    name=f"{PREFIX}registry_silent_seconds",
    kind="gauge",
    help="Seconds since the registry's last good answer; +Inf where there was none yet.",
)
INGRESS_REPLICAS = Family(
    name=f"{PREFIX}ingress_replicas",
    kind="gauge",
    help="Ingress replicas whose numbers are in this answer.",
)
SYNC_SERVICE_UP = Family(
    name=f"{PREFIX}sync_service_up",
    kind="gauge",
    help="Whether the sync service answered; what it counts is missing where it did not.",
)
KEY_REQUESTS = Family(
    name=f"{PREFIX}key_requests",
    kind="counter",
    help="Requests that came with a key, by its name, whatever became of them.",
    labels=("key",),
    by_replica=True,
)
KEY_REQUESTS_REFUSED = Family(
    name=f"{PREFIX}key_requests_refused",
    kind="counter",
    help="Of these, those beyond the key's rate.",
    labels=("key",),
    by_replica=True,
)
BUILD_INFO = Family(
    name=f"{PREFIX}build_info",
    kind="gauge",
    help="1, with the versions of modelmux and of what it stands on.",
    labels=("version", "python", "ray", "mlflow"),
)
INGRESS_MEMORY = Family(
    name=f"{PREFIX}ingress_resident_memory_bytes",
    kind="gauge",
    help="Memory of an ingress replica's process.",
    by_replica=True,
)
ACCESS_LINES_LOST = Family(
    name=f"{PREFIX}access_lines_lost",
    kind="counter",
    help="Lines of the access log that could not be written and are lost.",
    by_replica=True,
)
CAPTURED_REQUESTS = Family(
    name=f"{PREFIX}captured_requests",
    kind="counter",
    help="Requests to be captured that were written, dropped for want of room, or lost.",
    labels=("model", "outcome"),
    by_replica=True,
)

FAMILIES: tuple[Family, ...] = (
    REQUESTS,
    REQUEST_DURATION,
    REQUEST_ROWS,
    STREAM_FIRST_EVENT,
    STREAM_EVENTS,
    REQUESTS_IN_FLIGHT,
    ROWS_IN_FLIGHT,
    QUEUED_REQUESTS,
    CALL_ROWS,
    CALL_DURATION,
    LOADS,
    LOAD_DURATION,
    LOADED_VERSIONS,
    EVICTIONS,
    MODEL_PROCESSES,
    MODEL_DEPLOYMENTS,
    SHADOW_REQUESTS,
    SHADOW_DURATION,
    CATALOG_GENERATION,
    MODELS,
    MODEL_UNSERVABLE,
    DEFAULT_HELD,
    CANARY_SHARE,
    CANARY_STOPPED,
    ENVIRONMENTS,
    ENVIRONMENT_NOT_READY,
    REGISTRY_SILENT,
    INGRESS_REPLICAS,
    SYNC_SERVICE_UP,
    KEY_REQUESTS,
    KEY_REQUESTS_REFUSED,
    BUILD_INFO,
    INGRESS_MEMORY,
    ACCESS_LINES_LOST,
    CAPTURED_REQUESTS,
)


class Histogram:
    """Counts values by bins. Not thread-safe: of one event loop."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, family: Family) -> None:
        self._bounds = family.bounds
        self.counts = [0] * (len(family.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def bins(self) -> Bins:
        """A copy that may travel."""
        return list(self.counts), self.sum
