"""From a reading of the registry and the last catalog to the next catalog. Pure.

A model that can't be understood is listed with its reason; it never keeps another one out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gateway.catalog import Catalog, ModelVersion, ServedModel, is_version_number
from registry_sync.canary import choose_canary, parse_canary
from registry_sync.capture_warnings import capture_warnings
from registry_sync.default_version import DefaultPolicy, LoadFacts, is_in_stage
from registry_sync.pins import Pin, pin_of, pinned_number
from registry_sync.records import RegisteredModel, RegistryReading
from registry_sync.shadow_tag import with_shadow
from registry_sync.tags import is_served, kept_warm, parse_options

_PRODUCTION = "Production"
_NOTHING_LOADED = LoadFacts()


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogPlan:
    """The next catalog, and the versions that would be defaults or canaries in it if they were
    prepared."""

    catalog: Catalog
    waiting: tuple[tuple[ServedModel, ModelVersion], ...] = ()


def build_catalog(
    reading: RegistryReading,
    previous: Catalog | None,
    *,
    policy: DefaultPolicy,
    facts: LoadFacts = _NOTHING_LOADED,
    captures: bool = False,
    pins: bool = False,
) -> CatalogPlan:
    """The next catalog; its generation is one more where anything differs from `previous`.

    Models that didn't change are the very objects of `previous`. `captures` tells whether there is
    a place for what is captured, `pins` whether defaults are pinned in the registry.
    """
    before = {} if previous is None else previous.models
    generation = 0 if previous is None else previous.generation
    decided = [
        _decided(record, before.get(record.name), policy, facts, generation + 1, captures, pins)
        for record in reading
        if is_served(record.tags)
    ]
    waiting = tuple((model, version) for model, versions in decided for version in versions)
    catalog = Catalog(
        generation=generation,
        models={model.name: model for model, _ in decided},
        compatibility=policy.compatibility,
    )
    if previous is not None and catalog == previous:
        return CatalogPlan(catalog=previous, waiting=waiting)
    newer = catalog.model_copy(update={"generation": generation + 1})
    return CatalogPlan(catalog=newer, waiting=waiting)


def _decided(
    record: RegisteredModel,
    before: ServedModel | None,
    policy: DefaultPolicy,
    facts: LoadFacts,
    generation: int,
    captures: bool,
    pins: bool,
) -> tuple[ServedModel, list[ModelVersion]]:
    """The model as it is served from now on, and its versions that wait for being prepared;
    `generation` is that of the catalog where anything changes."""
    options, warnings = parse_options(record.tags)
    rule, canary_warnings = parse_canary(record.tags)
    if policy.warm == "champions" and policy.champion(record.versions, record.aliases) is not None:
        options = kept_warm(options, record.tags)
    pin = pin_of(record) if pins else None
    previous = None if before is None or _is_another(record, before) else before
    pinned = None
    if previous is None and pin is not None:
        previous = pin.as_previous(record)
    elif previous is not None and pin is not None and _is_of_another_gateway(pin, previous):
        pinned = pin.default
    choice = policy.choose(
        record.versions, record.aliases, previous=previous, facts=facts, pinned=pinned
    )
    model = ServedModel(
        name=record.name,
        description=record.description,
        aliases=dict(record.aliases),
        versions=record.versions,
        options=options,
        warnings=(
            *warnings,
            *canary_warnings,
            *_alias_warnings(record.aliases),
            *_stage_warnings(record, policy, choice.number),
            *capture_warnings(options, record.versions, captures=captures),
            *(
                f"Version {each.number}: {said}"
                for each in record.versions
                for said in each.warnings
            ),
        ),
        default_version=choice.number,
        contract=choice.contract,
        earlier_contracts=choice.earlier_contracts,
        default_cause=choice.cause,
        former_defaults=choice.former,
        passed_over=choice.passed_over,
        pinned_version=_settled(record, pin, previous, choice.number),
        held=choice.held,
        problem=choice.problem,
        created_at_ms=record.created_at_ms,
    )
    model = with_shadow(model, compatibility=policy.compatibility, captures=captures)
    waiting = [] if choice.waiting is None else [choice.waiting]
    if rule is not None:
        beside = choose_canary(
            model,
            rule,
            previous,
            facts=facts,
            compatibility=policy.compatibility,
            generation=generation,
        )
        model = model.model_copy(update={"canary": beside.canary})
        waiting += [] if beside.waiting is None else [beside.waiting]
    return before if before is not None and before == model else model, waiting


def _is_of_another_gateway(pin: Pin, previous: ServedModel) -> bool:
    """Whether the pinned default is neither ours nor the one that ours came after."""
    return pin.number not in (previous.default_version, previous.pinned_version)


def _settled(
    record: RegisteredModel, pin: Pin | None, previous: ServedModel | None, default: int | None
) -> int | None:
    """See `ServedModel.pinned_version`: as long as the pinned default is to be followed, and can't
    be yet, it is the one before."""
    if pin is None:
        return None
    version = next((v for v in record.versions if v.number == pin.number), None)
    if version is None or previous is None or pin.number in (default, previous.pinned_version):
        return pin.number
    was_followed = pin.number == previous.default_version and version.is_servable
    return pin.number if was_followed else previous.pinned_version


def to_be_pinned(record: RegisteredModel, model: ServedModel) -> bool:
    """Whether a model's default is to be pinned: what is pinned is another one, and it is not one
    that is to be followed."""
    pinned = pinned_number(record.tags)
    return model.default_version not in (None, pinned) and pinned == model.pinned_version


def _is_another(record: RegisteredModel, before: ServedModel) -> bool:
    """Whether the name was deleted and registered anew: nothing was promised of that model."""
    known = record.created_at_ms and before.created_at_ms
    return bool(known) and record.created_at_ms != before.created_at_ms


def _alias_warnings(aliases: Iterable[str]) -> Iterator[str]:
    for alias in sorted(aliases):
        if is_version_number(alias):
            yield f"Alias {alias} can't be asked for: it reads as the number of a version."


def _stage_warnings(
    record: RegisteredModel, policy: DefaultPolicy, default: int | None
) -> Iterator[str]:
    """Where a team lives by stages, which count for nothing unless they are told to."""
    if policy.champion_stage is not None or policy.champion_alias in record.aliases:
        return
    live = [v.number for v in record.versions if is_in_stage(v, _PRODUCTION)]
    if live and max(live) != default:
        yield (
            f"Version {max(live)} is in the stage Production, and stages don't choose the default. "
            f"Set the alias {policy.champion_alias} on the version that is to answer, or "
            "MODELMUX_CHAMPION_STAGE=Production for all models."
        )
