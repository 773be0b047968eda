"""Builds, lists and prunes the environments of a registry's versions: `modelmux environments`.

Says on standard output how each build went.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

from deployments.cli.environment_plans import (
    Plan,
    chosen,
    plans_of,
    read_registry,
    versions_of,
)
from deployments.cli.terminal import StatusLine, megabytes, out
from deployments.environments.builder import BuildFailed
from deployments.environments.known_files import KnownFiles
from deployments.environments.planner import Planner, environment_settings
from deployments.environments.store import Environment
from deployments.settings import Settings
from registry_sync.contract_check import CannotTell
from registry_sync.records import RegistryUnreachable
from registry_sync.source import MlflowRegistry
from registry_sync.version_files import FilesUnreadable

_TELL_S = 1.0


async def listed(settings: Settings, status: StatusLine) -> list[dict[str, Any]]:
    """What is told of each version; raises RegistryUnreachable."""
    async with _planner(settings) as planner:
        status.show("Reading the registry …")
        registry, models = await asyncio.to_thread(read_registry, settings, None)
        versions = [each for model in models for each in versions_of(model)]
        plans = await plans_of(planner, registry, versions, KnownFiles(settings.needs_dir))
        building = planner.builder.store.building()
        return [_row(planner, plan, building) for plan in plans]


async def built(
    settings: Settings, status: StatusLine, name: str | None, selector: str | None, every: bool
) -> bool:
    """Whether there is what was asked for: of one model or of all, a version, or every one, or
    those that are asked for first. Raises RegistryUnreachable, CannotTell."""
    async with _planner(settings) as planner:
        status.show("Reading the registry …")
        registry, models = await asyncio.to_thread(read_registry, settings, name)
        if name is not None and not models:
            raise CannotTell(f"the registry has no model that is called {name}")
        versions = [
            each
            for model in models
            for each in chosen(model, selector, every, settings.champion_alias)
        ]
        if not versions:
            out.print("Nothing to build: no version is asked for.")
        plans = await plans_of(planner, registry, versions, KnownFiles(settings.needs_dir))
        build = _Build(
            planner,
            registry,
            status,
            at_once=settings.environment_builds_at_once,
            ahead=selector is None,
        )
        is_good = await build.all(plans)
        total = await asyncio.to_thread(planner.builder.store.total_bytes)
    if total > settings.max_environments_bytes:
        out.print(
            f"All take {megabytes(total)}, more than max_environments_bytes: a gateway "
            "removes those that weren't used for the longest time."
        )
    return is_good


async def pruned(settings: Settings, max_bytes: int) -> tuple[list[Environment], int]:
    """What was removed, and the bytes that are left."""
    async with _planner(settings) as planner:
        removed = await planner.builder.prune(max_bytes, ())
        return removed, await asyncio.to_thread(planner.builder.store.total_bytes)


@contextlib.asynccontextmanager
async def _planner(settings: Settings) -> AsyncIterator[Planner]:
    planner = Planner(environment_settings(settings))
    try:
        yield planner
    finally:
        await planner.builder.close()


def _row(planner: Planner, plan: Plan, building: Mapping[str, float]) -> dict[str, Any]:
    """What is told of a version."""
    row: dict[str, Any] = {
        "model": plan.version.model,
        "version": plan.version.record.number,
        "environment": None if plan.choice is None else plan.choice.kind,
        "key": plan.digest,
        "size_bytes": None,
        "state": "ready",
        "why": None if plan.choice is None else plan.choice.why,
        "warning": None if plan.choice is None else plan.choice.warning,
        "reason": plan.problem,
        "lines": [],
    }
    if plan.choice is None:
        return {**row, "state": "failed"}
    if plan.digest is None:
        return row
    store = planner.builder.store
    found = store.find(plan.digest)
    if found is not None:
        return {**row, "size_bytes": found.size_bytes}
    if plan.digest in building:
        return {**row, "state": "building"}
    failure = store.failure(plan.digest)
    if failure is None:
        return {**row, "state": "missing"}
    return {**row, "state": "failed", "reason": failure.reason, "lines": list(failure.lines)}


class _Build:
    """Builds what versions need and says of each how that went."""

    def __init__(
        self,
        planner: Planner,
        registry: MlflowRegistry,
        status: StatusLine,
        *,
        at_once: int,
        ahead: bool,
    ) -> None:
        self._planner = planner
        self._registry = registry
        self._status = status
        self._at_once = asyncio.Semaphore(at_once)
        self._ahead = ahead
        self._begun: dict[str, float] = {}
        self._left = 0

    async def all(self, plans: Sequence[Plan]) -> bool:
        """Whether all went well; what several versions have in common is built once."""
        alike: dict[str, list[Plan]] = {}
        for plan in plans:
            if plan.digest is not None:
                alike.setdefault(plan.digest, []).append(plan)
            else:
                _say(plan, f"failed: {plan.problem}" if plan.problem else "the gateway's packages")
        self._left = len(alike)
        telling = asyncio.create_task(self._tell())
        try:
            went = await asyncio.gather(*map(self._one, alike.values()))
        finally:
            telling.cancel()
        return all(went) and not any(plan.problem for plan in plans)

    async def _one(self, plans: Sequence[Plan]) -> bool:
        first, *others = plans
        what = str(first.version)
        async with self._at_once:
            self._begun[what] = time.monotonic()
            self._show()
            is_good, told = await self._outcome(first)
            del self._begun[what]
        self._left -= 1
        _say(first, told)
        for other in others:
            _say(other, f"{'ready' if is_good else 'failed'}, as {what}")
        return is_good

    async def _outcome(self, plan: Plan) -> tuple[bool, str]:
        """Whether there is an environment now, and what is to be said of it."""
        assert plan.digest is not None
        if self._planner.builder.store.find(plan.digest) is not None:
            return True, "ready, it was there"
        begun_at = time.monotonic()
        try:
            environment = await self._environment(plan)
        except BuildFailed as error:
            took = time.monotonic() - begun_at
            said = [f"failed after {took:.1f} s: {error.reason}", *error.lines]
            return False, "\n  ".join(said)
        except (LookupError, RegistryUnreachable, FilesUnreadable, OSError) as error:
            return False, f"failed: its files can't be fetched: {error}"
        took = time.monotonic() - begun_at
        return True, f"built in {took:.1f} s, {megabytes(environment.size_bytes)}"

    async def _environment(self, plan: Plan) -> Environment:
        assert plan.choice is not None
        assert plan.choice.needs is not None
        model, number = plan.version.model, plan.version.record.number
        files = partial(self._registry.files_of, model, number)
        return await self._planner.build(plan.choice.needs, files, again=True, ahead=self._ahead)

    async def _tell(self) -> None:
        while True:
            self._show()
            await asyncio.sleep(_TELL_S)

    def _show(self) -> None:
        """What is being built now, for how long, on a terminal."""
        now = time.monotonic()
        going_on = [f"{what}, {now - at:.0f} s" for what, at in self._begun.items()]
        if going_on:
            self._status.show(f"Building {'; '.join(going_on)} … {self._left} to go")


def _say(plan: Plan, told: str) -> None:
    warning = None if plan.choice is None else plan.choice.warning
    out.print("\n  ".join([f"{plan.version}: {told}", *([warning] if warning else [])]))
