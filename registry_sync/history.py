"""What has to be noted in the history of models, from one catalog to the next. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from gateway.canary import Canary
from gateway.catalog import (
    Catalog,
    DefaultCause,
    ServedModel,
    UntypableSignature,
    compare_signatures,
)
from gateway.history import Event, HistoryEntry
from registry_sync.catalog_changes import CatalogChanges


def history_of(
    changes: CatalogChanges, before: Catalog | None, after: Catalog, *, at: float
) -> list[HistoryEntry]:
    """The entries of a generation, `at` that Unix time."""
    old = {} if before is None else before.models
    note = partial(HistoryEntry, at=at, generation=after.generation)
    entries: list[HistoryEntry] = []
    for name in (*changes.added, *changes.changed):
        entries += _of_model(old.get(name), after.models[name], note)
    entries += [
        note(model=name, event="removed", before=old[name].default_version)
        for name in changes.removed
    ]
    return entries


def _of_model(
    before: ServedModel | None, after: ServedModel, note: partial[HistoryEntry]
) -> Iterator[HistoryEntry]:
    note = partial(note, model=after.name)
    if before is None:
        reason = after.default_reason or after.problem
        yield note(event="added", after=after.default_version, why=reason)
        return
    if 0 < before.created_at_ms != after.created_at_ms > 0:
        yield note(
            event="registered_anew",
            before=before.default_version,
            after=after.default_version,
            why=after.default_reason,
        )
        return
    yield from _of_aliases(before, after, note)
    if before.default_version != after.default_version:
        yield note(
            event=_kind(before, after),
            before=before.default_version,
            after=after.default_version,
            why=after.default_reason or after.problem,
        )
    yield from _of_held(before, after, note)
    yield from _of_canary(before, after, note)
    yield from _of_shadow(before, after, note)


def _of_aliases(
    before: ServedModel, after: ServedModel, note: partial[HistoryEntry]
) -> Iterator[HistoryEntry]:
    for alias in sorted(before.aliases.keys() | after.aliases.keys()):
        was, is_now = before.aliases.get(alias), after.aliases.get(alias)
        if was != is_now:
            yield note(event="alias", alias=alias, before=was, after=is_now)


def _of_held(
    before: ServedModel, after: ServedModel, note: partial[HistoryEntry]
) -> Iterator[HistoryEntry]:
    was = None if before.held is None else (before.held.number, before.held.reason)
    held = after.held
    if held is not None and was != (held.number, held.reason):
        yield note(event="held", before=after.default_version, after=held.number, why=held.reason)
    elif held is None and before.held is not None and after.default_version != before.held.number:
        yield note(event="released", before=before.held.number, after=after.default_version)


def _of_canary(
    before: ServedModel, after: ServedModel, note: partial[HistoryEntry]
) -> Iterator[HistoryEntry]:
    """What whoever goes to a canary would notice."""
    was, now = _running(before.canary), _running(after.canary)
    is_same = was is not None and now is not None and was.version == now.version
    note = partial(note, before=after.default_version)
    if was is not None and not is_same:
        event, why = _end_of(after.canary, was)
        yield note(event=event, before=before.default_version, after=was.version, why=why)
    if now is not None and not is_same:
        yield note(event="canary_began", after=now.version, why=_shared(now))
    elif was is not None and now is not None and _shared(was) != _shared(now):
        yield note(event="canary_changed", after=now.version, why=_shared(now))


def _running(canary: Canary | None) -> Canary | None:
    return canary if canary is not None and canary.state == "running" else None


def _shared(canary: Canary) -> str:
    rule = canary.rule
    return f"{rule.percent:g}% of the requests that name no version, as {rule.selector}."


def _end_of(now: Canary | None, was: Canary) -> tuple[Event, str]:
    """How a canary that ran came to its end, and why."""
    if now is None:
        return "canary_ended", "The model has no canary any more."
    if now.version is not None and now.version != was.version:
        return "canary_ended", f"{was.rule.selector} is another version by now."
    return ("canary_stopped" if now.state == "stopped" else "canary_ended"), now.why or ""


def _of_shadow(
    before: ServedModel, after: ServedModel, note: partial[HistoryEntry]
) -> Iterator[HistoryEntry]:
    was = None if before.shadow is None else before.shadow.number
    is_now = None if after.shadow is None else after.shadow.number
    if was != is_now:
        shadow = after.shadow
        share = (
            None if shadow is None else f"It is asked {shadow.percent:g}% of what names no version."
        )
        why = share or after.shadow_problem or "The model has no shadow any more."
        yield note(event="shadow", before=was, after=is_now, why=why)


_EVENTS: Mapping[DefaultCause, Event] = {
    "named": "promoted",
    "newest": "default",
    "rolled_back": "rolled_back",
    "fell_back": "fell_back",
    "stands_in": "fell_back",
    "pinned": "default",
}


def _kind(before: ServedModel, after: ServedModel) -> Event:
    cause = after.default_cause
    if after.default_version is None or cause is None:
        return "default"
    by_choice = cause in ("named", "newest")
    return "accepted" if by_choice and _breaks(before, after) else _EVENTS[cause]


def _breaks(before: ServedModel, after: ServedModel) -> bool:
    version = after.default
    if version is None or before.contract is None:
        return False
    try:
        return bool(
            compare_signatures(before.contract, version.signature or "", before.earlier_contracts)
        )
    except UntypableSignature:
        return False
