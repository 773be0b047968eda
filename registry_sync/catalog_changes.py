"""What changed between two catalogs: for the log, the answer of `/registry/sync` and the
applications that have to go; and which models changed since a reader last heard. Pure."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

from gateway.catalog import Catalog, ServedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogChanges:
    """Names of the models that came, changed and went, sorted."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return self.added + self.changed + self.removed


def changes_between(before: Catalog | None, after: Catalog) -> CatalogChanges:
    """What a reader of `before` has to know to be at `after`."""
    old = {} if before is None else before.models
    new = after.models
    return CatalogChanges(
        added=tuple(sorted(new.keys() - old.keys())),
        changed=tuple(sorted(n for n in new.keys() & old.keys() if new[n] != old[n])),
        removed=tuple(sorted(old.keys() - new.keys())),
    )


class ChangeLog:
    """Which models came, changed or went with each generation after `generation`.

    Keeps the last `length` generations, for readers that follow closely.
    """

    def __init__(self, generation: int, *, length: int = 256) -> None:
        self._oldest = self._newest = generation
        self._entries: deque[tuple[int, tuple[str, ...]]] = deque()
        self._length = length

    def add(self, generation: int, changes: CatalogChanges) -> None:
        """What is different in `generation`, which is newer than all before."""
        self._entries.append((generation, changes.names))
        self._newest = generation
        if len(self._entries) > self._length:
            self._oldest, _ = self._entries.popleft()

    def since(self, generation: int) -> frozenset[str] | None:
        """What a reader of `generation` doesn't know yet; None where that can't be told."""
        if not self._oldest <= generation <= self._newest:
            return None
        return frozenset(name for at, names in self._entries if at > generation for name in names)


def describe_change(before: ServedModel | None, after: ServedModel) -> str:
    """One line for the log: what is different about a model now."""
    if before is None:
        return _described_new(after)
    parts = ["registered anew"] if 0 < before.created_at_ms != after.created_at_ms > 0 else []
    if before.default_version != after.default_version:
        parts.append(f"default {before.default_version} -> {after.default_version}")
    if before.held != after.held:
        parts.append(_described_held(after))
    added = {v.number for v in after.versions} - {v.number for v in before.versions}
    removed = {v.number for v in before.versions} - {v.number for v in after.versions}
    parts += [f"+version {n}" for n in sorted(added)] + [f"-version {n}" for n in sorted(removed)]
    if before.aliases != after.aliases:
        parts.append("aliases")
    if before.options != after.options:
        parts.append("options")
    if before.canary != after.canary:
        parts.append(_described_canary(after))
    return ", ".join(parts) or "details"


def level_of_change(before: ServedModel | None, after: ServedModel) -> int:
    """How loud that line is: a model that nothing answers for any more, a canary that was stopped,
    or a default that is newly held for good, is a warning."""
    was_unservable = before is not None and before.default_version is None
    if after.default_version is None and not was_unservable:
        return logging.WARNING
    if _has_stopped(before, after):
        return logging.WARNING
    held_before = None if before is None else before.held
    if after.held is None or after.held == held_before:
        return logging.INFO
    version = after.version(after.held.number)
    for_good = bool(after.held.differences) or version is None or not version.is_servable
    return logging.WARNING if for_good else logging.INFO


def _described_new(model: ServedModel) -> str:
    if model.default_version is None:
        return f"unservable: {model.problem}"
    count = len(model.versions)
    return f"default {model.default_version} of {count} version{'' if count == 1 else 's'}"


def _described_held(model: ServedModel) -> str:
    if model.held is None:
        return "nothing held any more"
    return f"version {model.held.number} held: {model.held.reason}"


def _described_canary(model: ServedModel) -> str:
    canary = model.canary
    if canary is None:
        return "no canary any more"
    named = f"canary {canary.rule.selector}:{canary.rule.percent:g}"
    version = "" if canary.version is None else f" (version {canary.version})"
    return f"{named}{version} {canary.state}{'' if canary.why is None else ': ' + canary.why}"


def _has_stopped(before: ServedModel | None, after: ServedModel) -> bool:
    if before is None or after.canary is None or after.canary.state != "stopped":
        return False
    return before.canary is None or before.canary.state != "stopped"
