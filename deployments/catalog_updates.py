"""Catalog updates on the wire: packed by the sync service, put together by an ingress replica.

A reader that follows gets the models that changed; one that is new, or that knows the catalog of
an earlier sync service, gets all of them. Each model is a JSON text of its own, so that reading
many can be interrupted: the event loop of an ingress replica has requests to answer. Plain values
only, because the two ends may be of different releases during an upgrade. Must not import ray.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, NotRequired, TypedDict

from gateway.catalog import Catalog, Compatibility, EnvironmentStatus, Moment, ServedModel

Position = tuple[str, int]
"""Which catalog a reader has: the life of the sync service that sent it, and its generation."""

NOWHERE: Position = ("", -1)
"""The position of a reader that has no catalog."""

# How many models are read before others on the event loop have their turn: about 1 ms.
_SLICE = 10
_ON_DISK_ONLY = {"contract", "earlier_contracts"}


class CatalogUpdate(TypedDict):
    """What makes a reader's catalog the one at `position`.

    `models` are the texts of those that came or changed. Where `is_whole` they are all there is;
    else the reader's others stay, but for those that are `removed`.
    """

    position: Position
    is_whole: bool
    compatibility: Compatibility
    models: list[bytes]
    removed: list[str]


class RegistryNews(TypedDict):
    """An update (None where the reader has it all), how the registry and the snapshot are (see
    `gateway.ports.RegistryStatus`), and what is the case with models (see `Moment`): of the
    environments only what a reader that knows another `environments_stamp` lacks."""

    update: CatalogUpdate | None
    silent_for_s: float | None
    problem: str | None
    snapshot_problem: str | None
    warnings: NotRequired[dict[str, list[str]]]
    not_started: NotRequired[dict[str, str]]
    load_problems: NotRequired[dict[str, dict[int, str]]]
    environments_stamp: NotRequired[str]
    environments: NotRequired[dict[str, dict[int, dict[str, Any]]]]


def moment_of(news: RegistryNews, *, before: Moment) -> Moment:
    """What is the case with models, as it was before in what isn't told; a sync service of an
    earlier release doesn't tell all of it."""
    told = news.get("environments")
    environments = before.environments if told is None else _environments(told)
    return Moment(
        warnings=news.get("warnings", {}),
        not_started=news.get("not_started", {}),
        load_problems=news.get("load_problems", {}),
        environments=environments,
    )


def _environments(
    told: Mapping[str, Mapping[int, dict[str, Any]]],
) -> dict[str, dict[int, EnvironmentStatus]]:
    return {
        name: {number: EnvironmentStatus.model_validate(one) for number, one in each.items()}
        for name, each in told.items()
    }


def packed(catalog: Catalog, names: Collection[str] | None, *, position: Position) -> CatalogUpdate:
    """The update to `catalog` for a reader who lacks the models of these names, or all (None)."""
    wanted = catalog.models if names is None else catalog.models.keys() & set(names)
    return CatalogUpdate(
        position=position,
        is_whole=names is None,
        compatibility=catalog.compatibility,
        models=[_text_of(catalog.models[name]) for name in sorted(wanted)],
        removed=[] if names is None else sorted(set(names) - catalog.models.keys()),
    )


def _text_of(model: ServedModel) -> bytes:
    """Without what only decides on defaults: contracts of ten versions are a lot of text."""
    return model.model_dump_json(exclude={"former_defaults": {"__all__": _ON_DISK_ONLY}}).encode()


async def unpacked(update: CatalogUpdate, known: Catalog | None) -> Catalog:
    """The catalog after an update to `known`; what didn't change are the very objects of `known`.

    Raises ValidationError where a model is of a release that this one can't read.
    """
    before = {} if known is None else known.models
    models = {} if update["is_whole"] else dict(before)
    for number, text in enumerate(update["models"]):
        if number % _SLICE == 0:
            await asyncio.sleep(0)
        model = ServedModel.model_validate_json(text)
        old = before.get(model.name)
        models[model.name] = old if old is not None and old == model else model
    for name in update["removed"]:
        models.pop(name, None)
    return Catalog.model_construct(
        generation=update["position"][1], models=models, compatibility=update["compatibility"]
    )
