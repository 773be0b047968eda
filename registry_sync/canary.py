"""Whether a model has a canary, and whether anybody may go there. Pure.

The rules are the product's promise (docs, "Versions and the gate"):

* The tag `modelmux.canary` names the version and its share; a bad tag of a canary is a warning, and
  nobody goes anywhere.
* It must keep the contract and speak as the default does. It must have been loaded, and where its
  model runs it is loaded before anybody goes there.
* A version that was stopped stays so, whatever the default is by then, until a tag of the canary's
  is changed: its bound is an absolute one.
* Where it is the default the tag has nothing to do any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from pydantic import ValidationError

from gateway.canary import Canary, CanaryRule, CanaryState, CanaryStop
from gateway.catalog import (
    Catalog,
    Compatibility,
    ModelVersion,
    ServedModel,
    compare_signatures,
)
from registry_sync.default_version import LoadFacts
from registry_sync.tags import CANARY, PREFIX
from registry_sync.traffic_tags import InvalidShare, parse_share

BEING_LOADED = "It is being loaded before anybody goes there."

_OPTIONS = ("canary_header", "canary_max_error_ratio", "canary_min_requests")


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryChoice:
    """A model's canary, and the version that waits for nothing but being prepared for it."""

    canary: Canary | None = None
    waiting: ModelVersion | None = None


@dataclass(frozen=True, slots=True)
class _Finding:
    """How it is with a canary, and why; `must_load` says that it only has to be loaded."""

    state: CanaryState
    why: str | None = None
    must_load: bool = False


def parse_canary(tags: Mapping[str, str]) -> tuple[CanaryRule | None, tuple[str, ...]]:
    """What a registered model's tags say of a canary, and a warning for each that can't be used;
    one that guards a canary and can't be used leaves none."""
    if CANARY not in tags:
        return None, ()
    said: dict[str, Any] = {}
    warnings = []
    try:
        share = parse_share(tags[CANARY])
        said = {"selector": share.selector, "percent": share.percent}
    except InvalidShare as invalid:
        warnings.append(f"Tag {CANARY} is ignored: {invalid}.")
    for option in _OPTIONS:
        tag = PREFIX + option
        if tag not in tags:
            continue
        name, value = option.removeprefix("canary_"), tags[tag].strip()
        problem = _problem_of(name, value)
        if problem is None:
            said[name] = value
        else:
            warnings.append(f"Tag {tag} can't be used, and nobody goes to the canary: {problem}.")
    return (None if warnings else CanaryRule.model_validate(said)), tuple(warnings)


def _problem_of(name: str, value: str) -> str | None:
    try:
        CanaryRule.model_validate({"selector": "any", "percent": 0, name: value})
    except ValidationError as error:
        message = str(error.errors(include_input=False)[0]["msg"])
        return message[:1].lower() + message[1:]
    return None


def choose_canary(
    model: ServedModel,
    rule: CanaryRule,
    before: ServedModel | None,
    *,
    facts: LoadFacts,
    compatibility: Compatibility,
    generation: int,
) -> CanaryChoice:
    """The canary of a model whose default is chosen, given the one `before`; `generation` is that
    of the catalog in which it would be so first."""
    known = None if before is None else before.canary
    version = model.named(rule.selector)
    is_same_rule = known is not None and known.rule == rule
    stops = known.stops if known is not None and is_same_rule else ()
    canary = Canary(
        rule=rule,
        version=None if version is None else version.number,
        state="waiting",
        stops=_registered(stops, model),
    )
    pair = _pair(model, version)
    is_same_pair = before is not None and pair == _pair_of(before)
    if known is not None and is_same_rule and is_same_pair:
        canary = canary.model_copy(update={"trial": known.trial})
    elif pair is not None:
        canary = canary.model_copy(update={"trial": _trial(pair, generation)})
    # Under another rule, too: who is in doesn't go out while its share grows.
    has_run = is_same_pair and known is not None and known.state == "running"
    found = _finding(model, version, canary, facts, compatibility, has_run=has_run)
    return CanaryChoice(
        canary=canary.model_copy(update={"state": found.state, "why": found.why}),
        waiting=version if found.must_load else None,
    )


def _finding(
    model: ServedModel,
    version: ModelVersion | None,
    canary: Canary,
    facts: LoadFacts,
    compatibility: Compatibility,
    *,
    has_run: bool,
) -> _Finding:
    default = model.default
    if version is None:
        return _Finding("waiting", "The model has no such version or alias.")
    if default is None or model.contract is None:
        return _Finding("waiting", "The model has no default version.")
    if version.number == default.number:
        return _Finding("ended", f"Version {version.number} is the default.")
    problem = _why_unfit(model, version, default, compatibility)
    problem = problem or facts.environment_problem(model, version)
    if problem is not None:
        return _Finding("waiting", problem)
    stop = _stop(canary, version)
    if stop is not None:
        return _Finding("stopped", stop.why)
    if _must_load(model, version, facts, has_run=has_run):
        reason = facts.failed.get(version.fingerprint, BEING_LOADED)
        return _Finding("waiting", reason, must_load=True)
    return _Finding("running")


def _why_unfit(
    model: ServedModel, version: ModelVersion, default: ModelVersion, compatibility: Compatibility
) -> str | None:
    """Why the version may not answer in the default's place, whatever is known of loading it."""
    if not version.is_servable:
        return f"Version {version.number}: {version.unservable_reason}"
    found = compare_signatures(
        model.contract or "",
        version.signature or "",
        model.earlier_contracts,
        exact=compatibility == "exact",
    )
    if found:
        return f"Version {version.number} would break the contract of the default version."
    if version.task != default.task:
        return f"Version {version.number} doesn't speak as the default version does."
    return None


def _must_load(
    model: ServedModel, version: ModelVersion, facts: LoadFacts, *, has_run: bool
) -> bool:
    """Whether it has to be loaded before anybody goes there: one that never was, and where its
    model runs one that begins, so that the first who go there don't wait for it."""
    if version.fingerprint in facts.prepared:
        return False
    is_new = version.fingerprint not in facts.loaded
    return is_new or (not has_run and facts.is_running(model))


def with_canary_stopped(catalog: Catalog, name: str, trial: str, why: str) -> Catalog | None:
    """The catalog after the one in which that trial of a model's canary ran; None where it doesn't
    run any more."""
    model = catalog.models.get(name)
    canary = None if model is None else model.canary
    if model is None or canary is None or canary.state != "running" or canary.trial != trial:
        return None
    default, version = model.default, model.version(canary.version or 0)
    if default is None or version is None:
        return None
    stop = CanaryStop(default=default.fingerprint, canary=version.fingerprint, why=why)
    stopped = canary.model_copy(
        update={"state": "stopped", "why": why, "stops": (*canary.stops, stop)}
    )
    changed = model.model_copy(update={"canary": stopped})
    return catalog.model_copy(
        update={
            "generation": catalog.generation + 1,
            "models": {**catalog.models, name: changed},
        }
    )


def _stop(canary: Canary, version: ModelVersion) -> CanaryStop | None:
    return next((each for each in canary.stops if each.canary == version.fingerprint), None)


def _registered(stops: tuple[CanaryStop, ...], model: ServedModel) -> tuple[CanaryStop, ...]:
    """Those of versions that are there still."""
    known = {version.fingerprint for version in model.versions}
    return tuple(each for each in stops if each.canary in known)


def _pair(model: ServedModel, version: ModelVersion | None) -> tuple[str, str] | None:
    default = model.default
    if default is None or version is None:
        return None
    return default.fingerprint, version.fingerprint


def _pair_of(model: ServedModel) -> tuple[str, str] | None:
    canary = model.canary
    if canary is None or canary.version is None:
        return None
    return _pair(model, model.version(canary.version))


def _trial(pair: tuple[str, str], generation: int) -> str:
    text = "\n".join((*pair, str(generation)))
    return blake2b(text.encode(), digest_size=8).hexdigest()
