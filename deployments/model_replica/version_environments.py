"""Where the processes of versions run: with the gateway's packages, or in environments of their
own, which are built where they aren't there.

Asyncio only; must not import ray.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deployments.environments.builder import BuildFailed
from deployments.environments.choice import NoEnvironment
from deployments.environments.model_needs import Needs
from deployments.environments.planner import EnvironmentSettings, Planner, files_below
from deployments.environments.store import Hold, Store
from deployments.model_replica.processes import Processes
from deployments.model_replica.version_process import LoadFailed, VersionId

# A version whose process was killed comes back in a moment, and finds its template still there.
LINGER_S = 20.0
_END_S = 15.0
# What couldn't be done, and what that came of.
_FIRST_LINES, _LAST_LINES = 2, 2
_SOON_S = 0.5


class EnvironmentBuilding(Exception):
    """A version's environment isn't there yet: it is being built since `since`, in Unix time, or
    waits for that (`is_begun`). `failed` is why it couldn't be the last time, where there was one;
    it may be shown."""

    def __init__(self, since: float, *, is_begun: bool = True, failed: str | None = None) -> None:
        super().__init__()
        self.since, self.is_begun, self.failed = since, is_begun, failed


@dataclass(slots=True, eq=False)
class _Own:
    """An environment in use: the processes in it, and how many versions have it."""

    hold: Hold
    processes: Processes
    users: int = 0


class Home:
    """Where one version's process runs, until it is left. `move` remembers a module that it lacked
    there, so that the next home is another; it says whether that is so."""

    def __init__(
        self,
        processes: Processes,
        leave: Callable[[], None] | None = None,
        *,
        move: Callable[[str], bool] | None = None,
    ) -> None:
        self.processes = processes
        self._leave = leave
        self._move = move

    @property
    def may_be_another(self) -> bool:
        """Whether there is an environment that has what may be lacking here."""
        return self._move is not None

    async def is_another_next(self, lacks: str | None) -> bool:
        """Whether the version is to be loaded elsewhere, for a module that was lacking here."""
        if lacks is None or self._move is None:
            return False
        return await asyncio.to_thread(self._move, lacks)

    def leave(self) -> None:
        """The version's process is no more."""
        if self._leave is not None:
            self._leave()
            self._leave = None


class VersionEnvironments:
    """The environments that one supervisor's versions run in; `gateway` are the processes with the
    gateway's packages. One that nobody uses keeps its templates for `linger_s` seconds. To be
    closed on its event loop."""

    def __init__(
        self, settings: EnvironmentSettings, gateway: Processes, *, linger_s: float = LINGER_S
    ) -> None:
        self._gateway = gateway
        self._linger_s = linger_s
        self._planner = Planner(settings)
        self._own: dict[str, _Own] = {}
        self._asked_at: dict[str, float] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def home(self, version: VersionId, folder: Path) -> Home:
        """Where a version is to be loaded whose files are in `folder`.

        Raises EnvironmentBuilding where that isn't there yet, which it will be without anybody's
        doing, and LoadFailed where it can't be.
        """
        if self._planner.builds_nothing(version.environment):
            return Home(self._gateway)
        try:
            choice = await self._planner.plan(
                files_below(folder), fingerprint=version.fingerprint, tag=version.environment
            )
        except NoEnvironment as problem:
            raise LoadFailed(_clause(problem.reason)) from None
        if choice.otherwise is not None:
            key = self._planner.key_of_lacking(version.fingerprint, choice.otherwise)
            move = partial(self._planner.builder.store.lacking.add, key)
            return Home(self._gateway, move=move)
        if choice.needs is None:
            return Home(self._gateway)
        return self._moved_in(await self._built(choice.needs, folder))

    def template_pids(self) -> list[int]:
        """The templates of environments of their own: each has its packages for itself."""
        return [pid for each in self._all() for pid in each.processes.template_pids()]

    def close_unused(self) -> None:
        """Keep no template of an environment that nobody uses: its memory is wanted."""
        for digest, own in list(self._own.items()):
            self._close_unless_used(digest, own)

    async def close(self) -> None:
        """End all builds, and all processes in environments of their own."""
        await self._planner.builder.close()
        await asyncio.gather(*(each.processes.close(timeout_s=_END_S) for each in self._all()))

    def abandon(self) -> None:
        """End all of these processes at once."""
        for each in self._all():
            each.processes.abandon()

    def _all(self) -> list[_Own]:
        return list(self._own.values())

    async def _built(self, needs: Needs, folder: Path) -> Hold:
        """The environment, held; raises EnvironmentBuilding and LoadFailed."""
        builder = self._planner.builder
        digest = builder.digest(needs)
        if digest in self._own:
            return self._own[digest].hold
        hold = await asyncio.to_thread(builder.store.hold, digest)
        if hold is not None:
            self._asked_at.pop(digest, None)
            return hold
        asked_at = self._asked_at.setdefault(digest, time.time())
        try:
            # The build goes on without us; one that has failed lately fails in a moment.
            async with asyncio.timeout(_SOON_S):
                await builder.build(needs, artifacts=folder)
        except TimeoutError:
            raise await asyncio.to_thread(_building, builder.store, digest, asked_at) from None
        except BuildFailed as failed:
            del self._asked_at[digest]
            raise LoadFailed(_said(failed)) from None
        del self._asked_at[digest]
        hold = await asyncio.to_thread(builder.store.hold, digest)
        if hold is None:  # pruned in this moment
            raise EnvironmentBuilding(time.time())
        return hold

    def _moved_in(self, hold: Hold) -> Home:
        digest = hold.environment.digest
        own = self._own.get(digest)
        if own is None:
            processes = Processes(hold.environment.interpreter)
            own = self._own[digest] = _Own(hold, processes)
        elif own.hold is not hold:
            hold.close()
        own.users += 1
        return Home(own.processes, partial(self._left, digest, own))

    def _left(self, digest: str, own: _Own) -> None:
        own.users -= 1
        if not own.users:
            loop = asyncio.get_running_loop()
            loop.call_later(self._linger_s, self._close_unless_used, digest, own)

    def _close_unless_used(self, digest: str, own: _Own) -> None:
        if own.users or self._own.get(digest) is not own:
            return
        del self._own[digest]
        task = asyncio.get_running_loop().create_task(_close(own))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _close(own: _Own) -> None:
    try:
        await own.processes.close(timeout_s=_END_S)
    finally:
        own.hold.close()


def _building(store: Store, digest: str, asked_at: float) -> EnvironmentBuilding:
    """How far it is. Whoever builds it may have begun before it was asked for."""
    begun_at = store.building().get(digest)
    failure = store.failure(digest)
    failed = None if failure is None else _why(failure.reason, failure.lines)
    if begun_at is None:
        return EnvironmentBuilding(asked_at, is_begun=False, failed=failed)
    return EnvironmentBuilding(begun_at, failed=failed)


def _said(failed: BuildFailed) -> str:
    return f"its environment can't be built: {_why(failed.reason, failed.lines)}"


def _why(reason: str, lines: Sequence[str]) -> str:
    if len(lines) > _FIRST_LINES + _LAST_LINES:
        lines = [*lines[:_FIRST_LINES], *lines[-_LAST_LINES:]]
    said = " / ".join(line.rstrip(".") for line in lines)
    return ": ".join(filter(None, [_clause(reason), said]))


def _clause(sentence: str) -> str:
    """As part of another sentence; its names stay as they are."""
    bare = sentence.rstrip(".")
    return f"{bare[:1].lower()}{bare[1:]}"
