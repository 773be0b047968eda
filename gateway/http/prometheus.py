"""`GET /metrics`: the numbers of all processes in the formats that Prometheus reads.

One answer covers the whole gateway, whichever ingress replica gives it (docs/decisions/0024). Must
not import ray or mlflow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.catalog import Catalog
from gateway.http.access_control import METRICS_PATH, require_sight_of_all
from gateway.metrics.collection import Measured, Measurements
from gateway.metrics.counters import UNKNOWN
from gateway.metrics.families import FAMILIES, Bins, Family, Labels, Reading
from gateway.metrics.snapshots import gateway_reading
from gateway.ports import CatalogFeed
from gateway.prediction import PredictionService

_CONTENT: dict[str, Any] = {
    name: {"schema": {"type": "string"}} for name in ("text/plain", "application/openmetrics-text")
}


class _NothingMeasured:
    """Where nobody counts: what the catalog tells is told all the same."""

    async def measured(self) -> Measured:
        return Measured()


def metrics_router(
    service: PredictionService, feed: CatalogFeed, measurements: Measurements | None
) -> APIRouter:
    """The route."""
    router = APIRouter(tags=["operation"])
    source = measurements or _NothingMeasured()

    @router.get(
        METRICS_PATH,
        operation_id="read_metrics",
        summary="Prometheus metrics of the whole gateway",
        response_class=Response,
        responses={200: {"content": _CONTENT}},
        dependencies=[Depends(require_sight_of_all)],
    )
    async def metrics(request: Request) -> Response:
        measured = await source.measured()
        told = gateway_reading(service, feed, measured)
        encode, content_type = _encoder(request.headers.get("accept", ""))
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Exposition(measured.replicas, told, feed.catalog))
        # Thousands of series are milliseconds of work: beside the requests, not in their way.
        content = await asyncio.to_thread(encode, registry)
        return Response(content, media_type=content_type)

    return router


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """The format that the caller takes, and its media type; the plain one where that is no word of
    this language: the library compares a version that isn't a number with numbers."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        return choose_encoder("")


class Exposition(Collector):
    """Readings as families of metrics: `replicas` by the replicas' ids, `told` once for all. Of
    models and versions only those that the catalog has."""

    def __init__(
        self, replicas: Mapping[str, Reading], told: Reading, catalog: Catalog | None
    ) -> None:
        self._replicas = replicas
        self._told = told
        self._models = {} if catalog is None else catalog.models
        self._known = {UNKNOWN: frozenset({UNKNOWN})}

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        for family in FAMILIES:
            metric, add = _metric(family)
            for labels, value in self._samples(family):
                add(labels, value)
            if metric.samples:
                yield metric

    def _samples(self, family: Family) -> Iterator[tuple[Labels, Any]]:
        if not family.by_replica:
            for labels, value in self._told.get(family.name, ()):
                if self._is_known(family, labels):
                    yield labels, value
            return
        for replica, reading in self._replicas.items():
            for labels, value in reading.get(family.name, ()):
                if self._is_known(family, labels):
                    yield (replica, *labels), value

    def _is_known(self, family: Family, labels: Labels) -> bool:
        if family.labels[:1] != ("model",):
            return True
        versions = self._versions(labels[0])
        return versions is not None and (
            family.labels[1:2] != ("version",) or labels[1] in versions
        )

    def _versions(self, name: str) -> frozenset[str] | None:
        """The values that a version's label may have beside this model's; None where it is gone."""
        model = self._models.get(name)
        if name not in self._known and model is not None:
            numbers = (str(version.number) for version in model.versions)
            self._known[name] = frozenset({UNKNOWN, *numbers})
        return self._known.get(name)


def _metric(family: Family) -> tuple[Metric, Any]:
    """The library's object for a family, and how a sample is added to it."""
    names = list(family.exposed_labels)
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.help, labels=names)
        ends = [*map(floatToGoString, family.bounds), "+Inf"]

        def add(labels: Labels, bins: Bins) -> None:
            counts, total = bins
            histogram.add_metric(
                list(labels), list(zip(ends, accumulate(counts), strict=True)), sum_value=total
            )

        return histogram, add
    if family.kind == "counter":
        counter = CounterMetricFamily(family.name, family.help, labels=names)
        return counter, counter.add_metric
    gauge = GaugeMetricFamily(family.name, family.help, labels=names)
    return gauge, gauge.add_metric
