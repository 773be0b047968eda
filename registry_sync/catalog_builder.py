"""From a reading of the registry and the last catalog to the next catalog. Pure.

A model that can't be understood is listed with its reason; it never keeps another one out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from gateway.catalog import Catalog, ModelVersion, ServedModel, is_version_number
from registry_sync.default_version import DefaultPolicy
from registry_sync.records import RegisteredModel, RegistryReading
from registry_sync.tags import is_served, parse_options

HoldBackModel = Callable[[ServedModel, ModelVersion], str | None]
"""Why a version of that model (as it would look) can't become its default yet; None if it can."""


def never_hold_back(_model: ServedModel, _version: ModelVersion) -> None:
    """For where nothing is running yet: every version may take over at once."""


def build_catalog(
    reading: RegistryReading,
    previous: Catalog | None,
    *,
    policy: DefaultPolicy,
    hold_back: HoldBackModel = never_hold_back,
) -> Catalog:
    """The next catalog; its generation is one more where anything differs from `previous`.

    Models that didn't change are the very objects of `previous`.
    """
    before = {} if previous is None else previous.models
    models = {
        record.name: _next_model(record, before.get(record.name), policy, hold_back)
        for record in reading
        if is_served(record.tags)
    }
    generation = 0 if previous is None else previous.generation
    next_catalog = Catalog(generation=generation, models=models, compatibility=policy.compatibility)
    if next_catalog == previous:
        return previous
    return next_catalog.model_copy(update={"generation": generation + 1})


def _next_model(
    record: RegisteredModel,
    previous: ServedModel | None,
    policy: DefaultPolicy,
    hold_back: HoldBackModel,
) -> ServedModel:
    model = _served_model(record, previous, policy, hold_back)
    return previous if previous is not None and previous == model else model


def _served_model(
    record: RegisteredModel,
    previous: ServedModel | None,
    policy: DefaultPolicy,
    hold_back: HoldBackModel,
) -> ServedModel:
    options, warnings = parse_options(record.tags)
    model = ServedModel(
        name=record.name,
        description=record.description,
        aliases=dict(record.aliases),
        versions=record.versions,
        options=options,
        warnings=(*warnings, *_alias_warnings(record.aliases)),
    )
    choice = policy.choose(
        record.versions,
        record.aliases,
        previous=previous,
        hold_back=lambda version: hold_back(model, version),
    )
    return model.model_copy(
        update={
            "default_version": choice.number,
            "contract": choice.contract,
            "earlier_contracts": choice.earlier_contracts,
            "held": choice.held,
            "problem": choice.problem,
        }
    )


def _alias_warnings(aliases: Iterable[str]) -> Iterator[str]:
    for alias in sorted(aliases):
        if is_version_number(alias):
            yield f"Alias {alias} can't be asked for: it reads as the number of a version."
