"""Which version is a model's default, and the gate that holds one that would break the contract.

Pure. The rules are the product's promise (docs, "Versions and the gate"):

* The alias `champion` names the default; without it, the newest READY version is it.
* A default that moves must keep the contract, or carry the tag `modelmux.accept_breaking=true`;
  otherwise it is held and the old version goes on answering.
* A model seen for the first time has no callers: its default then makes its contract.
* A version whose environment isn't there takes over when it is.
* A version that was never loaded does not replace one that was: it is prepared first. So is every
  default that moves while its model runs.
* Where the default version itself is gone, the newest version that keeps the contract stands in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from gateway.catalog import (
    UNTYPED_SIGNATURE,
    Compatibility,
    HeldVersion,
    ModelVersion,
    ServedModel,
    compare_signatures,
    contract_of,
)
from gateway.contract import Difference

BEING_LOADED = "It is being loaded before it takes over."

_NO_READY_VERSION = "It has no version that is READY."


EnvironmentProblem = Callable[[ServedModel, ModelVersion], str | None]
"""Why a version of a model can't be loaded for want of its environment; None where it can."""


def no_environment_problem(_model: ServedModel, _version: ModelVersion) -> str | None:
    """Nothing is known against any version's environment."""
    return None


def _never(_model: ServedModel) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFacts:
    """What is known of loading versions at the time of a choice, by their fingerprints.

    `loaded` were loaded successfully at some time. `prepared` are loaded now wherever their model
    runs, and have answered; `failed` is why others could not be prepared. `is_running` tells
    whether anything of a model runs, so that callers would notice a cold start.
    `environment_problem` is why a version can't be loaded for want of its environment.
    """

    loaded: AbstractSet[str] = frozenset()
    prepared: AbstractSet[str] = frozenset()
    failed: Mapping[str, str] = field(default_factory=dict)
    is_running: Callable[[ServedModel], bool] = _never
    environment_problem: EnvironmentProblem = no_environment_problem


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultChoice:
    """The default version and its contract, what is held, and why there is no default.

    `earlier_contracts` as in `ServedModel`. `waiting` is the version that is held for nothing but
    that it has to be prepared.
    """

    number: int | None = None
    contract: str | None = None
    earlier_contracts: tuple[str, ...] = ()
    held: HeldVersion | None = None
    problem: str | None = None
    waiting: ModelVersion | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultPolicy:
    """How defaults are chosen: the alias that names them, and how strict the gate is."""

    champion_alias: str = "champion"
    compatibility: Compatibility = "compatible"

    def choose(
        self,
        versions: Sequence[ModelVersion],
        aliases: Mapping[str, int],
        *,
        previous: ServedModel | None,
        facts: LoadFacts,
    ) -> DefaultChoice:
        """The default among `versions` (ascending), given what was promised until now."""
        by_number = {version.number: version for version in versions}
        champion = by_number.get(aliases.get(self.champion_alias, -1))
        if previous is None or previous.contract is None:
            return _first_choice(versions, champion)
        newest = _newest([v for v in versions if v.is_ready])
        return self._next_choice(versions, champion or newest, previous, facts)

    def _next_choice(
        self,
        versions: Sequence[ModelVersion],
        candidate: ModelVersion | None,
        previous: ServedModel,
        facts: LoadFacts,
    ) -> DefaultChoice:
        current = _unchanged(versions, previous)
        if candidate is None or (current is not None and candidate.number == current.number):
            return self._keep(versions, current, previous, facts, held=None)
        held = self._reason_to_hold(candidate, previous)
        if held is not None:
            return self._keep(versions, current, previous, facts, held=held)
        problem = facts.environment_problem(previous, candidate)
        if current is not None and problem is not None:
            held = HeldVersion(number=candidate.number, reason=problem)
            return self._keep(versions, current, previous, facts, held=held)
        if not self._must_wait(candidate, versions, current, previous, facts):
            return self._taken_over(candidate, previous)
        reason = facts.failed.get(candidate.fingerprint, BEING_LOADED)
        held = HeldVersion(number=candidate.number, reason=reason)
        kept = self._keep(versions, current, previous, facts, held=held)
        return replace(kept, waiting=candidate)

    def _must_wait(
        self,
        candidate: ModelVersion,
        versions: Sequence[ModelVersion],
        current: ModelVersion | None,
        previous: ServedModel,
        facts: LoadFacts,
    ) -> bool:
        """Whether the candidate has to be prepared before it takes over from the current default,
        or, where that is gone, from one that was loaded and can stand in."""
        if candidate.fingerprint in facts.prepared:
            return False
        is_new = candidate.fingerprint not in facts.loaded
        if current is None:
            return is_new and self._stand_in(_loaded(versions, facts), previous) is not None
        return facts.is_running(previous) or (is_new and current.fingerprint in facts.loaded)

    def _taken_over(self, candidate: ModelVersion, previous: ServedModel) -> DefaultChoice:
        """The candidate's own contract, which goes on taking what it took before, unless it broke
        with that on purpose."""
        breaks = bool(self._differences(candidate, previous))
        return DefaultChoice(
            number=candidate.number,
            contract=candidate.signature,
            earlier_contracts=() if breaks else _still_needed(candidate, previous),
        )

    def _differences(
        self, candidate: ModelVersion, previous: ServedModel
    ) -> tuple[Difference, ...]:
        return compare_signatures(
            previous.contract or "",
            candidate.signature or "",
            previous.earlier_contracts,
            exact=self.compatibility == "exact",
        )

    def _reason_to_hold(self, candidate: ModelVersion, previous: ServedModel) -> HeldVersion | None:
        if candidate.unservable_reason is not None:
            return HeldVersion(number=candidate.number, reason=candidate.unservable_reason)
        found = self._differences(candidate, previous)
        if not found or candidate.accept_breaking:
            return None
        return HeldVersion(
            number=candidate.number,
            reason=(
                "It would break the contract of the default version. Set the tag "
                "modelmux.accept_breaking=true on this version to let it through."
            ),
            differences=tuple(difference.as_dict() for difference in found),
        )

    def _keep(
        self,
        versions: Sequence[ModelVersion],
        current: ModelVersion | None,
        previous: ServedModel,
        facts: LoadFacts,
        *,
        held: HeldVersion | None,
    ) -> DefaultChoice:
        """The current default where it is still there, else the newest that keeps its contract,
        of those that were loaded once if there are any."""
        if current is not None and current.signature != previous.contract:
            # It was given a signature where it is, or is served without one from now on.
            return replace(self._taken_over(current, previous), held=held)
        if current is not None:
            return DefaultChoice(
                number=current.number,
                contract=previous.contract,
                earlier_contracts=previous.earlier_contracts,
                held=held,
            )
        stand_in = self._stand_in(_loaded(versions, facts), previous)
        stand_in = stand_in or self._stand_in(versions, previous)
        if stand_in is not None:
            return replace(self._taken_over(stand_in, previous), held=held)
        return DefaultChoice(
            contract=previous.contract,
            earlier_contracts=previous.earlier_contracts,
            held=held,
            problem=_gone(versions, previous),
        )

    def _stand_in(
        self, versions: Sequence[ModelVersion], previous: ServedModel
    ) -> ModelVersion | None:
        """Nobody chose it, so a tag that accepts breaking counts for nothing here."""
        return _newest(
            [v for v in versions if v.is_servable and not self._differences(v, previous)]
        )


def _first_choice(versions: Sequence[ModelVersion], champion: ModelVersion | None) -> DefaultChoice:
    if champion is not None and not champion.is_servable:
        return DefaultChoice(problem=_why_unservable(champion))
    chosen = champion or _newest([v for v in versions if v.is_servable])
    if chosen is not None:
        return DefaultChoice(number=chosen.number, contract=chosen.signature)
    newest = _newest([v for v in versions if v.is_ready])
    return DefaultChoice(problem=_NO_READY_VERSION if newest is None else _why_unservable(newest))


def _still_needed(candidate: ModelVersion, previous: ServedModel) -> tuple[str, ...]:
    """The contracts until now that took something which the candidate's own does not."""
    own = contract_of(candidate.signature or "")
    before = (previous.contract or "", *previous.earlier_contracts)
    return tuple(c for c in before if own.still_taking(contract_of(c)) != own)


def _unchanged(versions: Sequence[ModelVersion], previous: ServedModel) -> ModelVersion | None:
    """The previous default, if it is still registered, servable and the same artifacts."""
    before = previous.default
    if before is None:
        return None
    return next((v for v in versions if _is_same(v, before) and v.is_servable), None)


def _is_same(version: ModelVersion, before: ModelVersion) -> bool:
    """Whether they are the same artifacts, into which a signature may have been written since."""
    return version.fingerprint in (before.fingerprint, before.registered_as)


def _gone(versions: Sequence[ModelVersion], previous: ServedModel) -> str:
    newest = _newest([v for v in versions if v.is_ready])
    if newest is None:
        return _NO_READY_VERSION
    if previous.contract == UNTYPED_SIGNATURE:  # which any that can be served would keep
        return _why_unservable(newest)
    return (
        "Its default version is gone and no other keeps its contract; register one that does, or "
        "set modelmux.accept_breaking=true on the one to serve."
    )


def _why_unservable(version: ModelVersion) -> str:
    return f"Version {version.number}: {version.unservable_reason}"


def _loaded(versions: Sequence[ModelVersion], facts: LoadFacts) -> list[ModelVersion]:
    return [version for version in versions if version.fingerprint in facts.loaded]


def _newest(versions: Sequence[ModelVersion]) -> ModelVersion | None:
    return max(versions, key=lambda version: version.number, default=None)
