"""The compatibility check of a CI job before an alias moves: would a version keep the contract?

Asks the registry only; needs neither Ray nor a running gateway. Which contract is in force only a
gateway knows (`deployments.cli.contract_in_force`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.catalog import LATEST, ModelVersion, compare_signatures
from registry_sync.default_version import DefaultPolicy
from registry_sync.records import RegisteredModel
from registry_sync.source import MlflowRegistry

_POLICY = DefaultPolicy()


class CannotTell(Exception):
    """The question has no answer; the sentence says why."""


class NothingPromised(CannotTell):
    """Nothing was promised yet that the version `candidate` could break."""

    def __init__(self, sentence: str, candidate: int) -> None:
        super().__init__(sentence)
        self.candidate = candidate


class NamedAlready(CannotTell):
    """The registry names the version `candidate` as default already."""

    def __init__(self, sentence: str, candidate: int) -> None:
        super().__init__(sentence)
        self.candidate = candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """Whether `candidate` may answer for the contract of version `against`; with `in_force_at`, for
    the one that the gateway at that URL has in force, whose default is `against` (None: it is
    gone)."""

    model: str
    candidate: int
    against: int | None
    differences: tuple[dict[str, Any], ...]
    in_force_at: str | None = None

    @property
    def is_compatible(self) -> bool:
        """No difference that breaks."""
        return not self.differences


def check_contract(
    registry: MlflowRegistry,
    name: str,
    candidate: str,
    *,
    against: str | None = None,
    policy: DefaultPolicy = _POLICY,
) -> CheckResult:
    """Compare two versions of a model, each given as a number, an alias or `latest`.

    Without `against` it is what a gateway that has just been started would have as default: what
    the registry names as such, else the newest servable version before the candidate. Raises
    CannotTell (NamedAlready where the candidate is what the registry names, NothingPromised where
    there is no other version, or none is the default for being the newest), and
    RegistryUnreachable.
    """
    model = _model(registry, name)
    new = _servable(registry, name, _number(registry, model, candidate))
    old_number = (
        _default_before(registry, model, new, policy)
        if against is None
        else _number(registry, model, against)
    )
    old = _servable(registry, name, old_number)
    found = compare_signatures(
        old.signature or "", new.signature or "", exact=policy.compatibility == "exact"
    )
    return CheckResult(
        model=name,
        candidate=new.number,
        against=old.number,
        differences=tuple(difference.as_dict() for difference in found),
    )


def _model(registry: MlflowRegistry, name: str) -> RegisteredModel:
    try:
        return registry.read_model(name)
    except LookupError as error:
        raise CannotTell(str(error)) from error


def _number(registry: MlflowRegistry, model: RegisteredModel, selector: str) -> int:
    if selector.isdecimal():
        return int(selector)
    if selector == LATEST:
        return _newest(registry, model.name)
    if selector not in model.aliases:
        raise CannotTell(f"{model.name} has no alias {selector}.")
    return model.aliases[selector]


def _default_before(
    registry: MlflowRegistry, model: RegisteredModel, candidate: ModelVersion, policy: DefaultPolicy
) -> int:
    champion = _champion(registry, model, policy)
    if champion == candidate.number:
        raise NamedAlready(
            f"{model.name} version {champion} is the one that the registry names as default "
            "already, and which contract is in force only the gateway knows: ask it by --url or "
            "MODELMUX_URL, or name a version by --against.",
            candidate.number,
        )
    if champion is not None:
        return champion
    if policy.rule == "champion":
        raise NothingPromised(
            f"No version of {model.name} has the alias {policy.champion_alias}, and with "
            "default_version=champion nothing else is a default: which contract is in force only "
            "the gateway knows. Ask it by --url or MODELMUX_URL, or name a version by --against.",
            candidate.number,
        )
    numbers = sorted(registry.ready_versions(model.name), reverse=True)
    servable = (n for n in numbers if registry.read_version(model.name, n).is_servable)
    newer = []
    for number in servable:
        if number < candidate.number:
            return number
        newer.append(number)
    sentence = f"{model.name} has no earlier version that can be served."
    # Where being the newest makes a default, a newer one may have promised something.
    if newer == [candidate.number]:
        raise NothingPromised(sentence, candidate.number)
    raise CannotTell(sentence)


def _champion(
    registry: MlflowRegistry, model: RegisteredModel, policy: DefaultPolicy
) -> int | None:
    """The version that the registry names as default, by alias or by stage."""
    if policy.champion_alias in model.aliases or policy.champion_stage is None:
        return model.aliases.get(policy.champion_alias)
    numbers = registry.ready_versions(model.name)
    found = policy.champion([registry.read_version(model.name, n) for n in numbers], {})
    return None if found is None else found.number


def _newest(registry: MlflowRegistry, name: str) -> int:
    numbers = registry.ready_versions(name)
    if not numbers:
        raise CannotTell(f"{name} has no READY version.")
    return max(numbers)


def _servable(registry: MlflowRegistry, name: str, number: int) -> ModelVersion:
    try:
        version = registry.read_version(name, number)
    except LookupError as error:
        raise CannotTell(str(error)) from error
    if version.unservable_reason is not None:
        raise CannotTell(f"{name} version {number}: {version.unservable_reason}")
    return version
