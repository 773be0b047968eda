"""What has to be noted in the history of models, from one catalog to the next. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

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
