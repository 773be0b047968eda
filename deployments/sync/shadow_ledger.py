"""Shadows' figures, added up over all ingress replicas and kept over restarts.

A model has the figures of one pair of versions: the one that its entry in the catalog names, or
named last. Another pair begins anew, and what comes late of the one before is dropped. Must not
import ray.
"""

from __future__ import annotations

import asyncio
import logging

from pydantic import ValidationError

from deployments.shadow_report import ShadowReport
from gateway.catalog import Catalog, ServedModel
from gateway.metrics.families import SHADOW_DURATION, SHADOW_REQUESTS, Labels, Reading
from gateway.shadow.pairs import pair_of
from gateway.shadow_figures import OUTCOMES, ShadowFigures, ShadowPair
from registry_sync.shadow_file import ShadowFile

_logger = logging.getLogger(__name__)

_SAVE_EVERY_S = 5.0
# Of replicas that are gone the numbers are of no use; who comes back has another name.
_HOSTS_KEPT = 256


class ShadowLedger:
    """The figures by model, starting from what `file` has."""

    def __init__(self, file: ShadowFile) -> None:
        self._file = file
        self._kept = file.load()
        self._is_saved = True

    def take(self, report: ShadowReport, catalog: Catalog | None) -> bool:
        """Count what a replica tells, once, of the pairs that the catalog names. Where there is no
        catalog that can't be told: then it isn't taken."""
        if catalog is None:
            return False
        host, number = report["host"], report["number"]
        if number <= self._kept.reports.get(host, 0):
            return True
        # The one that was heard of last at the end.
        self._kept.reports.pop(host, None)
        self._kept.reports[host] = number
        while len(self._kept.reports) > _HOSTS_KEPT:
            del self._kept.reports[next(iter(self._kept.reports))]
        for name, told in report["figures"].items():
            model = catalog.models.get(name)
            if model is not None:
                self._add(model, told)
        self._is_saved = False
        return True

    def figures(self, name: str) -> ShadowFigures | None:
        """The figures of a model; None where there are none."""
        return self._kept.figures.get(name)

    def forget_all_but(self, catalog: Catalog) -> None:
        """Drop those of models that are gone, and of versions that are."""
        for name, figures in list(self._kept.figures.items()):
            model = catalog.models.get(name)
            if model is None or not _has(model, figures.pair):
                del self._kept.figures[name]
                self._is_saved = False

    def reading(self) -> Reading:
        """All counts, to be told."""
        requests: list[tuple[Labels, float]] = []
        durations = []
        for name, figures in self._kept.figures.items():
            labels = (name, str(figures.pair.default), str(figures.pair.shadow))
            requests += [
                ((*labels, outcome), figures.outcomes.get(outcome, 0)) for outcome in OUTCOMES
            ]
            for side, spent in (("default", figures.default_s), ("shadow", figures.shadow_s)):
                bins = (spent.counts_up_to(SHADOW_DURATION.bounds), spent.total)
                durations.append(((*labels, side), bins))
        return {SHADOW_REQUESTS.name: [*requests], SHADOW_DURATION.name: [*durations]}

    async def save(self) -> None:
        """Have what was counted on disk."""
        if not self._is_saved:
            self._is_saved = True
            await asyncio.to_thread(self._file.save, self._kept.model_dump_json().encode())

    async def keep_saved(self) -> None:
        """Save what is new, for ever."""
        while True:
            await asyncio.sleep(_SAVE_EVERY_S)
            await self.save()

    def _add(self, model: ServedModel, told: dict[str, object]) -> None:
        try:
            more = ShadowFigures.model_validate(told)
        except ValidationError:
            _logger.warning("%s: figures of another release", model.name)
            return
        known = self._kept.figures.get(model.name)
        if known is not None and known.pair == more.pair:
            known.add(more)
        elif more.pair == pair_of(model):
            self._kept.figures[model.name] = more


def _has(model: ServedModel, pair: ShadowPair) -> bool:
    """Whether both versions are registered still, and are the same artifacts."""
    default, shadow = model.version(pair.default), model.version(pair.shadow)
    return (
        default is not None
        and shadow is not None
        and default.fingerprint == pair.default_fingerprint
        and shadow.fingerprint == pair.shadow_fingerprint
    )
