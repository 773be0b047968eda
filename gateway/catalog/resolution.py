"""The catalog: a frozen picture of all that is served, and how a name and a selector resolve in it.

Owns the rules of `resolve`. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import BaseModel

from gateway.canary import Draw
from gateway.catalog.contracts import compare_signatures, contract_of, serving_contract
from gateway.catalog.served_models import (
    LATEST,
    EnvironmentStatus,
    ModelVersion,
    ServedModel,
    Shadow,
)
from gateway.contract import Contract, Difference
from gateway.errors import (
    ModelNotFound,
    ModelUnavailable,
    ModelUnservable,
    SignatureMismatch,
    VersionNotFound,
)

Compatibility = Literal["compatible", "exact"]

_REGISTRATION_RETRY_AFTER_S = 5.0
_NAMED_AT_MOST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What answers a request, and the contract by which it is read and answered.

    `canary` has some of the requests that name no version, where there is one that runs; `trial`
    is that of a canary's own. `shadow` is asked what the default answers of them.
    """

    model: ServedModel
    version: ModelVersion
    contract: Contract
    canary: CanaryRoute | None = None
    trial: str | None = None
    shadow: ShadowTarget | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryRoute:
    """Who goes to a model's canary, and what answers there."""

    draw: Draw
    resolution: Resolution


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowTarget:
    """A version that is to be asked the same, beside, and the contract by which it is."""

    version: ModelVersion
    contract: Contract
    terms: Shadow


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is the case with models now and no part of what is registered, by their names.

    `not_started` is why nothing of a model can be started, `load_problems` why the last load of a
    version (by its number) failed, empty where that isn't known, `environments` which packages
    versions run with.
    """

    warnings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    not_started: Mapping[str, str] = field(default_factory=dict)
    load_problems: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    environments: Mapping[str, Mapping[int, EnvironmentStatus]] = field(default_factory=dict)


class Catalog(BaseModel, frozen=True, extra="forbid"):
    """All served models at one moment. `generation` grows with every change, never shrinks."""

    generation: int
    models: dict[str, ServedModel] = {}
    compatibility: Compatibility = "compatible"

    def model(self, name: str) -> ServedModel:
        """The model of that name; raises ModelNotFound."""
        found = self.models.get(name)
        if found is None:
            raise ModelNotFound("The registry has no such model, or it is not served.")
        return found

    def only(self, wanted: Callable[[str], bool]) -> Catalog:
        """The same catalog without the models whose names aren't wanted."""
        models = {name: model for name, model in self.models.items() if wanted(name)}
        return self.model_copy(update={"models": models})

    def at(self, moment: Moment, *, earlier: Catalog | None = None) -> Catalog:
        """The same catalog with what is the case at a moment, of the models that it has. What is as
        it was in `earlier`, made like this, are the very objects of that."""
        told = moment.warnings.keys() | moment.not_started.keys() | moment.load_problems.keys()
        told |= moment.environments.keys()
        before = {} if earlier is None else earlier.models
        changed: dict[str, ServedModel] = {}
        for name in told & self.models.keys():
            now, known = _at(self.models[name], moment), before.get(name)
            changed[name] = known if known is not None and known == now else now
        return self.model_copy(update={"models": {**self.models, **changed}}) if changed else self

    def resolve(self, name: str, selector: str | None) -> Resolution:
        """Find what answers for `name` where the caller asked for `selector`: where for none, the
        default version, and beside it the canary that has some of these requests.

        `selector` is a version number, an alias, `latest`, or None for the default version.
        Raises ModelNotFound, VersionNotFound, ModelUnservable, ModelUnavailable (the registry is
        still taking the version in) and SignatureMismatch, the last before anything is loaded.
        """
        found = self._resolved(name, selector)
        return found if selector is not None else self._with_canary(found)

    def _with_canary(self, found: Resolution) -> Resolution:
        canary = found.model.canary
        if canary is None or canary.state != "running" or canary.version is None:
            return found
        name = found.model.name
        draw = Draw(
            model=name,
            header=canary.rule.header.lower().encode(),
            share=canary.rule.percent / 100.0,
        )
        other = replace(self._resolved(name, str(canary.version)), trial=canary.trial)
        return replace(found, canary=CanaryRoute(draw=draw, resolution=other))

    def _resolved(self, name: str, selector: str | None) -> Resolution:
        model = self.model(name)
        version = _select(model, selector)
        _require_servable(model, version)
        if model.contract is None and selector is not None:
            # Nothing was ever promised that it could break: it answers for its own.
            contract = contract_of(version.signature or "")
            return Resolution(model=model, version=version, contract=contract)
        if model.contract is None or model.default_version is None:
            raise _without_default(model)
        if version.number != model.default_version:
            self._require_compatible(model, version)
        return Resolution(
            model=model,
            version=version,
            contract=serving_contract(
                model.contract, model.earlier_contracts, version.signature or ""
            ),
            shadow=_shadow_of(model) if selector is None else None,
        )

    def differences(self, model: ServedModel, version: ModelVersion) -> tuple[Difference, ...]:
        """What keeps `version` from answering for the model's contract; empty where nothing does.

        Raises UntypableSignature where either side can't be typed.
        """
        exact = self.compatibility == "exact"
        return compare_signatures(
            model.contract or "", version.signature or "", model.earlier_contracts, exact=exact
        )

    def _require_compatible(self, model: ServedModel, version: ModelVersion) -> None:
        found = self.differences(model, version)
        if not found:
            return
        assert model.default_version is not None
        points = "one point that breaks" if len(found) == 1 else f"{len(found)} points that break"
        raise SignatureMismatch(
            f"Version {version.number} differs from the contract of default version "
            f"{model.default_version} in {points} it.",
            model=model.name,
            requested_version=version.number,
            default_version=model.default_version,
            differences=tuple(d.as_dict() for d in found),
        )


def _shadow_of(model: ServedModel) -> ShadowTarget | None:
    shadow = model.shadow
    version = None if shadow is None else model.version(shadow.number)
    if shadow is None or version is None or model.contract is None:
        return None
    contract = serving_contract(model.contract, model.earlier_contracts, version.signature or "")
    return ShadowTarget(version=version, contract=contract, terms=shadow)


def _at(model: ServedModel, moment: Moment) -> ServedModel:
    environments = dict(moment.environments.get(model.name, {}))
    further = [*moment.warnings.get(model.name, ())]
    default = environments.get(model.default_version or 0)
    if default is not None and default.warning is not None:
        further.append(f"Version {model.default_version}: {default.warning}")
    return model.model_copy(
        update={
            "warnings": (*model.warnings, *further),
            "not_started": moment.not_started.get(model.name),
            "load_problems": dict(moment.load_problems.get(model.name, {})),
            "environments": environments,
        }
    )


def _select(model: ServedModel, selector: str | None) -> ModelVersion:
    found = model.default if selector is None else model.named(selector)
    if found is not None:
        return found
    if selector is None:
        raise _without_default(model)
    raise VersionNotFound(
        f"The model has no such version or alias. {_what_there_is(model)}", model=model.name
    )


def _what_there_is(model: ServedModel) -> str:
    """The newest versions and the aliases, for who asked for another one."""
    numbers = [str(v.number) for v in reversed(model.versions)]
    names = [*sorted(model.aliases)[:_NAMED_AT_MOST], LATEST]
    more = " and older ones" if len(numbers) > _NAMED_AT_MOST else ""
    told = _several("name", names)
    if numbers:
        told = f"{_several('version', numbers[:_NAMED_AT_MOST])}{more}, and {told}"
    return f"It has {told}."


def _several(what: str, found: Sequence[str]) -> str:
    return f"the {what}{'s' if len(found) > 1 else ''} {', '.join(found)}"


def _require_servable(model: ServedModel, version: ModelVersion) -> None:
    if version.registry_status == "PENDING_REGISTRATION":
        raise ModelUnavailable(
            "The registry is still taking this version in.",
            model=model.name,
            version=version.number,
            retry_after_s=_REGISTRATION_RETRY_AFTER_S,
        )
    reason = version.unservable_reason
    if reason is not None:
        raise ModelUnservable(reason, model=model.name, version=version.number)


def _without_default(model: ServedModel) -> ModelUnservable:
    return ModelUnservable(model.unservable_reason or "It has no contract.", model=model.name)
