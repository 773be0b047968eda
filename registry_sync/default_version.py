"""Which version is a model's default, and the gate that holds one that would break the contract.

Pure. The rules are the product's promise (docs, "Versions and the gate"):

* The alias `champion` names the default; without it, the newest READY version is it, or, where the
  setting says so, nothing becomes the default by itself. Where a stage counts as well, the newest
  version in that stage comes before the newest.
* A default that moves must keep the contract, or carry the tag `modelmux.accept_breaking=true`;
  otherwise it is held and the old version goes on answering.
* A model seen for the first time has no callers: its default then makes its contract.
* A version whose environment isn't there takes over when it is.
* A version that was never loaded does not replace one that was: it is prepared first. So is every
  default that moves while its model runs.
* Going back is one act: a version that was the default before takes over with the contract that it
  had then when the alias is moved to it, whatever was let in between.
* Where the default version itself is gone, the default before it takes over, and what was there
  meanwhile isn't the default for being the newest; without one the newest version that keeps the
  contract stands in.
* Where defaults are pinned in the registry, what another gateway has pinned is followed, by the
  contract that was pinned with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Literal

from gateway.catalog import (
    UNTYPED_SIGNATURE,
    Compatibility,
    DefaultCause,
    FormerDefault,
    HeldVersion,
    ModelVersion,
    ServedModel,
    compare_signatures,
    contract_of,
)
from gateway.contract import Difference

BEING_LOADED = "It is being loaded before it takes over."

_NO_READY_VERSION = "It has no version that is READY."
_FORMER_DEFAULTS = 10

Warmth = Literal["tagged", "champions"]
"""Which models have a replica always: those whose tags say so, or those with a champion, too."""

DefaultRule = Literal["champion_or_newest", "champion"]
"""What makes a version the default where the alias is on none: being the newest, or nothing."""

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
    that it has to be prepared. `cause`, `former` and `passed_over` are `default_cause`,
    `former_defaults` and `passed_over` of `ServedModel`.
    """

    number: int | None = None
    contract: str | None = None
    earlier_contracts: tuple[str, ...] = ()
    cause: DefaultCause | None = None
    former: tuple[FormerDefault, ...] = ()
    passed_over: int = 0
    held: HeldVersion | None = None
    problem: str | None = None
    waiting: ModelVersion | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultPolicy:
    """How defaults are chosen: the alias that names them, the stage that does so where there is no
    such alias (None: none), what holds without either, which models are kept warm, and how strict
    the gate is."""

    champion_alias: str = "champion"
    champion_stage: str | None = None
    rule: DefaultRule = "champion_or_newest"
    warm: Warmth = "tagged"
    compatibility: Compatibility = "compatible"

    def choose(
        self,
        versions: Sequence[ModelVersion],
        aliases: Mapping[str, int],
        *,
        previous: ServedModel | None,
        facts: LoadFacts,
        pinned: FormerDefault | None = None,
    ) -> DefaultChoice:
        """The default among `versions` (ascending), given what was promised until now; `pinned` is
        what the registry has as default by another gateway's word."""
        champion = self.champion(versions, aliases)
        if previous is None or previous.contract is None:
            return self._first_choice(versions, champion)
        followed = self._followed(versions, pinned, previous, facts)
        if followed is not None:
            return followed
        if champion is not None:
            chosen = self._next_choice(versions, champion, previous, facts, champion=champion)
            return replace(chosen, passed_over=0)
        current = _unchanged(versions, previous)
        if current is None and _is_gone(versions, previous):
            former = _former(versions, previous)
            if former is not None:
                return _back_to(former, versions, previous)
        candidate = None
        if self.rule == "champion_or_newest":
            ready = [v for v in versions if v.is_ready and v.number > previous.passed_over]
            candidate = _newest(ready)
        return self._next_choice(versions, candidate, previous, facts, champion=None)

    def _followed(
        self,
        versions: Sequence[ModelVersion],
        pinned: FormerDefault | None,
        previous: ServedModel,
        facts: LoadFacts,
    ) -> DefaultChoice | None:
        """The pinned default once it can be had; None where that is no servable version."""
        if pinned is None:
            return None
        found = (v for v in versions if v.fingerprint == pinned.fingerprint and v.is_servable)
        candidate = next(found, None)
        if candidate is None:
            return None
        current = _unchanged(versions, previous)
        problem = facts.environment_problem(previous, candidate)
        if current is not None and problem is not None:
            held = HeldVersion(number=candidate.number, reason=problem)
            return self._keep(versions, current, previous, facts, held=held)
        if self._must_wait(candidate, versions, current, previous, facts):
            return self._waits(candidate, versions, current, previous, facts)
        taken = _back_to(pinned, versions, previous, "pinned")
        return replace(taken, passed_over=previous.passed_over)

    def _waits(
        self,
        candidate: ModelVersion,
        versions: Sequence[ModelVersion],
        current: ModelVersion | None,
        previous: ServedModel,
        facts: LoadFacts,
    ) -> DefaultChoice:
        """The candidate takes over when it is prepared."""
        reason = facts.failed.get(candidate.fingerprint, BEING_LOADED)
        held = HeldVersion(number=candidate.number, reason=reason)
        kept = self._keep(versions, current, previous, facts, held=held)
        return replace(kept, waiting=candidate)

    def _first_choice(
        self, versions: Sequence[ModelVersion], champion: ModelVersion | None
    ) -> DefaultChoice:
        if champion is not None and not champion.is_servable:
            return DefaultChoice(problem=_why_unservable(champion))
        if champion is None and self.rule == "champion":
            return DefaultChoice(
                problem=f"No version has the alias {self.champion_alias}; the setting "
                "default_version=champion lets nothing else make one the default."
            )
        chosen = champion or _newest([v for v in versions if v.is_servable])
        if chosen is not None:
            cause: DefaultCause = "newest" if champion is None else "named"
            return DefaultChoice(number=chosen.number, contract=chosen.signature, cause=cause)
        newest = _newest([v for v in versions if v.is_ready])
        return DefaultChoice(
            problem=_NO_READY_VERSION if newest is None else _why_unservable(newest)
        )

    def champion(
        self, versions: Sequence[ModelVersion], aliases: Mapping[str, int]
    ) -> ModelVersion | None:
        """The version that the registry names as default, by alias or by stage; None where it
        names none."""
        named = aliases.get(self.champion_alias)
        found = next((v for v in versions if v.number == named), None)
        if found is not None or self.champion_stage is None:
            return found
        return _newest([v for v in versions if is_in_stage(v, self.champion_stage)])

    def _next_choice(
        self,
        versions: Sequence[ModelVersion],
        candidate: ModelVersion | None,
        previous: ServedModel,
        facts: LoadFacts,
        *,
        champion: ModelVersion | None,
    ) -> DefaultChoice:
        current = _unchanged(versions, previous)
        if candidate is None or (current is not None and candidate.number == current.number):
            return self._keep(versions, current, previous, facts, held=None)
        # Somebody moved the alias back: to what answered before, and by the contract it had then.
        former = _was_default(candidate, previous) if champion is not None else None
        held = self._reason_to_hold(candidate, previous, former)
        if held is not None:
            return self._keep(versions, current, previous, facts, held=held)
        problem = facts.environment_problem(previous, candidate)
        if current is not None and problem is not None:
            held = HeldVersion(number=candidate.number, reason=problem)
            return self._keep(versions, current, previous, facts, held=held)
        if not self._must_wait(candidate, versions, current, previous, facts):
            if former is not None:
                return self._went_back(former, candidate, versions, previous)
            cause: DefaultCause = "newest" if champion is None else "named"
            return self._taken_over(candidate, versions, previous, cause)
        return self._waits(candidate, versions, current, previous, facts)

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

    def _taken_over(
        self,
        candidate: ModelVersion,
        versions: Sequence[ModelVersion],
        previous: ServedModel,
        cause: DefaultCause | None,
    ) -> DefaultChoice:
        """The candidate's own contract, which goes on taking what it took before, unless it broke
        with that on purpose."""
        breaks = bool(self._differences(candidate, previous))
        return DefaultChoice(
            number=candidate.number,
            contract=candidate.signature,
            earlier_contracts=() if breaks else _still_needed(candidate, previous),
            cause=cause,
            former=_formers(versions, previous, candidate.fingerprint),
            passed_over=previous.passed_over,
        )

    def _went_back(
        self,
        former: FormerDefault,
        candidate: ModelVersion,
        versions: Sequence[ModelVersion],
        previous: ServedModel,
    ) -> DefaultChoice:
        """The contract that was in force then, where today's can't be kept."""
        # What callers were sent back from is forward again: nobody is sent back from what is left.
        cause: DefaultCause = "named" if former.rolled_back else "rolled_back"
        if not self._differences(candidate, previous):
            taken = self._taken_over(candidate, versions, previous, cause)
        else:
            taken = _back_to(former, versions, previous, cause)
        if former.rolled_back:
            return taken
        back = [f.fingerprint for f in _later(former, previous)]
        if previous.default is not None:
            back.append(previous.default.fingerprint)
        return replace(
            taken,
            former=tuple(
                f.model_copy(update={"rolled_back": True}) if f.fingerprint in back else f
                for f in taken.former
            ),
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

    def _reason_to_hold(
        self, candidate: ModelVersion, previous: ServedModel, former: FormerDefault | None
    ) -> HeldVersion | None:
        if candidate.unservable_reason is not None:
            return HeldVersion(number=candidate.number, reason=candidate.unservable_reason)
        found = self._differences(candidate, previous)
        if not found or candidate.accept_breaking or former is not None:
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
        """The current default where it is still there; where it is gone the one before it; else the
        newest that keeps its contract, of those that were loaded once if there are any."""
        same = DefaultChoice(
            contract=previous.contract,
            earlier_contracts=previous.earlier_contracts,
            held=held,
            former=_formers(versions, previous, None),
            passed_over=previous.passed_over,
        )
        if current is not None and current.signature != previous.contract:
            # It was given a signature where it is, or is served without one from now on.
            taken = self._taken_over(current, versions, previous, previous.default_cause)
            return replace(taken, held=held)
        if current is not None:
            return replace(same, number=current.number, cause=previous.default_cause)
        former = _former(versions, previous) if _is_gone(versions, previous) else None
        if former is not None:
            return replace(_back_to(former, versions, previous), held=held)
        stand_in = self._stand_in(_loaded(versions, facts), previous)
        stand_in = stand_in or self._stand_in(versions, previous)
        if stand_in is not None:
            taken = self._taken_over(stand_in, versions, previous, "stands_in")
            return replace(taken, held=held)
        return replace(same, problem=_gone(versions, previous))

    def _stand_in(
        self, versions: Sequence[ModelVersion], previous: ServedModel
    ) -> ModelVersion | None:
        """Nobody chose it, so a tag that accepts breaking counts for nothing here."""
        return _newest(
            [v for v in versions if v.is_servable and not self._differences(v, previous)]
        )


def is_in_stage(version: ModelVersion, stage: str) -> bool:
    """Whether somebody put the version into that stage; case doesn't matter, as for MLflow."""
    return version.stage is not None and version.stage.lower() == stage.lower()


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


def _is_gone(versions: Sequence[ModelVersion], previous: ServedModel) -> bool:
    """Whether the previous default isn't registered any more; one that is but can't be served may
    come back."""
    before = previous.default
    return before is None or not any(_is_same(v, before) for v in versions)


def _was_default(version: ModelVersion, previous: ServedModel) -> FormerDefault | None:
    return next((f for f in previous.former_defaults if f.fingerprint == version.fingerprint), None)


def _former(versions: Sequence[ModelVersion], previous: ServedModel) -> FormerDefault | None:
    """The last default before, of those that can be served; one that callers were sent back from
    is none."""
    servable = {version.fingerprint for version in versions if version.is_servable}
    return next(
        (
            former
            for former in reversed(previous.former_defaults)
            if former.fingerprint in servable and not former.rolled_back
        ),
        None,
    )


def _later(former: FormerDefault, previous: ServedModel) -> tuple[FormerDefault, ...]:
    """What was the default after that one, before the present one."""
    return previous.former_defaults[previous.former_defaults.index(former) + 1 :]


def _back_to(
    former: FormerDefault,
    versions: Sequence[ModelVersion],
    previous: ServedModel,
    cause: DefaultCause = "fell_back",
) -> DefaultChoice:
    """What was the default before, with what was promised then."""
    return DefaultChoice(
        number=former.number,
        contract=former.contract,
        earlier_contracts=former.earlier_contracts,
        cause=cause,
        former=_formers(versions, previous, former.fingerprint),
        passed_over=max((version.number for version in versions), default=0),
    )


def _formers(
    versions: Sequence[ModelVersion], previous: ServedModel, present: str | None
) -> tuple[FormerDefault, ...]:
    """The defaults before `present` (a fingerprint; None where the default stays), the one that it
    takes over from at the end, as far as they are registered still."""
    known = {version.fingerprint for version in versions}
    former = [f for f in previous.former_defaults if f.fingerprint != present]
    before = previous.default
    is_same = before is not None and present in (before.fingerprint, before.registered_as)
    if present is not None and before is not None and not is_same:
        former = [f for f in former if f.fingerprint != before.fingerprint]
        former.append(
            FormerDefault(
                number=before.number,
                fingerprint=before.fingerprint,
                contract=previous.contract or "",
                earlier_contracts=previous.earlier_contracts,
            )
        )
    return tuple(f for f in former if f.fingerprint in known)[-_FORMER_DEFAULTS:]


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
