"""How a version has been answering, of what all ingress replicas have counted: for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

from gateway.metrics.collection import Measured
from gateway.metrics.families import REQUEST_DURATION, REQUESTS, Bins, Labels

_OK, _SERVERS_FAULT = 200, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFigures:
    """Requests that were answered or failed, how many failed, and within how many seconds half and
    95 of a hundred were answered; None where none was."""

    requests: int
    errors: int
    median_s: float | None
    slow_s: float | None


def figures_of(measured: Measured, model: str, version: int) -> VersionFigures:
    """The figures of a version, since the replicas began to count."""
    labels = (model, str(version))
    answered = failed = 0
    for (*_, status, _protocol), count in _samples(measured, REQUESTS.name, labels):
        answered += int(cast("float", count)) * (int(status) == _OK)
        failed += int(cast("float", count)) * (int(status) >= _SERVERS_FAULT)
    bins = [0] * (len(REQUEST_DURATION.bounds) + 1)
    for _, told in _samples(measured, REQUEST_DURATION.name, labels):
        counts, _sum = cast("Bins", told)
        bins = [before + more for before, more in zip(bins, counts, strict=True)]
    return VersionFigures(
        requests=answered + failed,
        errors=failed,
        median_s=_quantile(bins, 0.5),
        slow_s=_quantile(bins, 0.95),
    )


def _samples(
    measured: Measured, family: str, labels: Labels
) -> Iterator[tuple[Labels, float | Bins]]:
    for reading in measured.replicas.values():
        for found, value in reading.get(family, ()):
            if found[: len(labels)] == labels:
                yield found, value


def _quantile(bins: list[int], share: float) -> float | None:
    """By linear interpolation in the bin, as Prometheus' histogram_quantile does."""
    wanted, seen = share * sum(bins), 0
    if not wanted:
        return None
    bounds = (0.0, *REQUEST_DURATION.bounds)
    for (below, bound), count in zip(pairwise(bounds), bins, strict=False):
        if seen + count >= wanted:
            return below + (bound - below) * (wanted - seen) / count
        seen += count
    return bounds[-1]
