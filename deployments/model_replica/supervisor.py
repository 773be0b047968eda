"""The supervisor of versions' processes: starts, watches, restarts, evicts and ends them.

The replica's part without Ray. It never runs a model's code and imports none of a model's packages.
Loads of different versions run side by side; of one version there is one load however many wait.
Asyncio only; must not import ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from contextvars import Context
from functools import partial
from random import Random
from typing import Any

from deployments.backoff import Backoff
from deployments.logs import fields
from deployments.model_process.messages import given_up_at
from deployments.model_replica.asides import NO_ROOM, Asides
from deployments.model_replica.host_settings import HostSettings
from deployments.model_replica.isolation import Isolation
from deployments.model_replica.load_events import LoadEventLog
from deployments.model_replica.processes import Processes, StartFailed, TemplateEnded
from deployments.model_replica.quarantine import Quarantine
from deployments.model_replica.residents import Keep, Resident
from deployments.model_replica.shared_room import RoomClosed, SharedRoom
from deployments.model_replica.start_methods import StartMethod, start_method, start_methods
from deployments.model_replica.unavailable import CLOSING, VersionUnavailable, building_now
from deployments.model_replica.version_artifacts import VersionArtifacts
from deployments.model_replica.version_environments import (
    LINGER_S,
    EnvironmentBuilding,
    Home,
    VersionEnvironments,
)
from deployments.model_replica.version_process import (
    LoadFailed,
    ProcessEnded,
    State,
    VersionId,
    VersionProcess,
)
from gateway.attempt import Attempt
from gateway.single_flight import SingleFlight

_logger = logging.getLogger("modelmux.supervisor")

GRACE_S = 5.0
"""How long after the last deadline that a call can have it counts as hung."""

_LOOK_EVERY_S = 0.25
_WEIGH_EVERY_S = 1.0
_NOTE_USE_S = 1.0
_FINISH_S = 15.0
_KNOWN_GONE_S = 2.0

_LONG_LIFE_S = 30.0
_RESTARTS = Backoff(least_s=0.02, most_s=30.0)
_NEVER_STARTED = "its process can't be started"


class Supervisor:
    """All versions that one replica has: `keep` wraps a function that gives a version's `Resident`
    into an LRU."""

    def __init__(
        self,
        settings: HostSettings,
        keep: Callable[[Callable[[str], Awaitable[Resident]]], Keep],
        processes: Processes | None = None,
    ) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._processes = processes or Processes(zygote=settings.zygote)
        sharing = settings.sharing
        self._environments = VersionEnvironments(
            settings.environments,
            self._processes,
            linger_s=LINGER_S if sharing is None else max(LINGER_S, sharing.idle_timeout_s),
        )
        self._room = (
            None if sharing is None else SharedRoom(sharing, self, templates=self._environments)
        )
        self._quarantine = Quarantine(retry_after_s=settings.retry_load_after_s)
        self._asides = Asides()
        self.events = LoadEventLog()
        self._versions: dict[str, VersionId] = {}
        self._running: dict[str, VersionProcess] = {}
        self._ending: set[VersionProcess] = set()
        self._loads: SingleFlight[str, VersionProcess] = SingleFlight()
        self._seen: dict[str, tuple[int, int, float]] = {}
        self._ready_at: dict[str, float] = {}
        self._short_lives: Counter[str] = Counter()
        self._isolation = Isolation()
        self._random = Random()  # noqa: S311 - no secret
        self._keep = keep(self._take)
        self._is_closing = False
        self._tasks: set[asyncio.Task[Any]] = set()
        methods = start_methods(settings.flavors)
        fetching = next((each for each in methods if each.forks), methods[0])
        self._artifacts = VersionArtifacts(settings, self._processes, fetching)
        self._go_on(self._watch(self._look, _LOOK_EVERY_S))
        self._go_on(self._watch(self._look_at_asides, _WEIGH_EVERY_S))
        if self._room is not None:
            self._go_on(self._watch(self._room.look, _WEIGH_EVERY_S))
        for method in methods:
            self._go_on(self._prepare(method))

    async def load(self, version: VersionId) -> tuple[str, Any]:
        """Have the version in memory: `("ok", None)`, or `("load_failed", …)`, `("suspended", …)`
        or `("building", …)` with `retry_after_s` and `reason`."""
        try:
            await self._loaded(version)
        except VersionUnavailable as unavailable:
            return unavailable.outcome()
        return ("ok", None)

    async def call(
        self, version: VersionId, message: bytes, *, load_timeout_s: float, give_up_at: float
    ) -> tuple[str, Any]:
        """Answer a packed call, waiting for a load up to `load_timeout_s`.

        One of `("answered", (header, body, address, load_s))`, where header and body are the
        outcome's (see `model_process.messages`) and the address is the process's own;
        `("loading", None)`, `("load_failed", …)`, `("suspended", …)` where its calls ended their
        processes or hung, `("building", …)` where its environment isn't there yet, and
        `("lost", None)` where its process ended with it. A load or a build that takes longer goes
        on.
        """
        began = time.monotonic()
        process = await self._loaded_within(version, load_timeout_s)
        if not isinstance(process, VersionProcess):
            return process
        load_s = time.monotonic() - began
        try:
            header, body = await process.call(given_up_at(message, give_up_at))
        except ConnectionError:
            # Known to be gone before the call comes again.
            await process.wait_for_end(_KNOWN_GONE_S)
            return ("lost", None)
        return ("answered", (header, body, process.address, load_s))

    async def stream(
        self, version: VersionId, message: bytes, *, load_timeout_s: float, give_up_at: float
    ) -> AsyncGenerator[tuple[str, Any]]:
        """The outcomes of a packed call that streams, each as `call` tells it; without end, unless
        it isn't `answered`."""
        began = time.monotonic()
        process = await self._loaded_within(version, load_timeout_s)
        if not isinstance(process, VersionProcess):
            yield process
            return
        load_s = time.monotonic() - began
        try:
            async with aclosing(process.stream(given_up_at(message, give_up_at))) as outcomes:
                async for header, body in outcomes:
                    yield ("answered", (header, body, process.address, load_s))
        except ConnectionError:
            await process.wait_for_end(_KNOWN_GONE_S)
            yield ("lost", None)

    async def _loaded_within(
        self, version: VersionId, timeout_s: float
    ) -> VersionProcess | tuple[str, Any]:
        """The version's process, or what comes of the call."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._loaded(version)
        except TimeoutError:
            return ("loading", None)
        except VersionUnavailable as unavailable:
            return unavailable.outcome()

    async def close(self) -> None:
        """Answer what was taken, and end all processes."""
        self._stop_taking_in()
        for task in self._tasks:
            task.cancel()
        for process in [each for each in self.running if each.version.aside]:
            process.give_up()
        await asyncio.gather(self._processes.close(timeout_s=_FINISH_S), self._environments.close())

    def abandon(self) -> None:
        """End all processes at once."""
        self._stop_taking_in()
        self._processes.abandon()
        self._environments.abandon()

    def _stop_taking_in(self) -> None:
        self._is_closing = True
        if self._room is not None:
            self._room.close()

    async def _loaded(self, version: VersionId) -> VersionProcess:
        """Load first, by ourselves, and only then show the version to the LRU.

        Ray's LRU evicts before it loads and loads one at a time (ray/serve/multiplex.py): handed
        a version that is in memory already, it does neither for long.
        """
        key = version.key
        self._versions[key] = version
        process = await self._ready(key)
        if not version.aside:
            await self._keep(key)
        return process

    async def _take(self, key: str) -> Resident:
        def evict() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and so has the process
                self._loop.call_soon_threadsafe(self.evict, key)

        return Resident(evict)

    async def _ready(self, key: str) -> VersionProcess:
        """The version's process, loaded now unless it is still there; raises VersionUnavailable."""
        running = self._running.get(key)
        if running is not None and running.state is State.READY:
            return running
        self._refuse_suspended(key)
        return await self._loads.run(key, partial(self._load_until_it_stands, key))

    def _refuse_suspended(self, key: str) -> None:
        suspension = self._quarantine.suspension(key)
        if suspension is not None:
            raise VersionUnavailable(suspension)

    async def _load_until_it_stands(self, key: str) -> VersionProcess:
        """Load the version; again where its process was killed, until that was too often."""
        version = self._versions[key]
        began = time.monotonic()
        if version.aside:
            self._let_in_aside(version)
        while True:
            if self._is_closing:
                raise VersionUnavailable(CLOSING)
            home: Home | None = None
            process: VersionProcess | None = None
            try:
                await self._artifacts.fetch(version)
                folder = self._artifacts.folder(version)
                home = await self._environments.home(version, folder)
                if self._room is not None and not version.aside:
                    await self._room.wait(key)
                process = VersionProcess(
                    version,
                    at_end=partial(self._take_end, key, home),
                    at_lack=partial(self._take_lack, home),
                )
                self._running[key] = process
                await process.load(
                    home.processes,
                    start_method(version.flavor),
                    self._job(version, home),
                    alone=self._isolation.is_alone(key),
                )
            except EnvironmentBuilding as building:
                raise VersionUnavailable(building_now(building)) from None
            except RoomClosed:
                raise VersionUnavailable(CLOSING) from None
            except ProcessEnded as ended:
                if process is None or not process.given_up:
                    self._quarantine.died(key, "load", f"{ended} while it was being loaded")
            except TemplateEnded as ended:
                if home is not None:
                    home.leave()
                self._log_not_started(key, ended)
                self._quarantine.died(key, "load", _NEVER_STARTED)
            except (LoadFailed, StartFailed, OSError) as failed:
                if process is not None:
                    process.give_up()
                if home is not None:
                    home.leave()
                if not await _is_another_next(home, failed):
                    self._fail(key, failed)
            else:
                self._quarantine.loaded(key)
                self._seen.pop(key, None)
                self._ready_at[key] = time.monotonic()
                if self._room is not None:  # else Ray's LRU sees to how many there are
                    await self._room.take_in(process)
                self._note_loaded(version, process, time.monotonic() - began)
                return process
            if process is not None and self._running.get(key) is process:
                del self._running[key]
            suspension = self._quarantine.suspension(key)
            if suspension is not None and version.aside:
                raise VersionUnavailable(suspension)
            if suspension is not None:
                spent_s = time.monotonic() - began
                self.events.note_failure(version.model, version.number, spent_s, suspension.reason)
                raise VersionUnavailable(suspension)

    def _let_in_aside(self, version: VersionId) -> None:
        """A shadow takes the place of its model's one before, and no other's; raises
        VersionUnavailable."""
        for other in self._asides.replaced_by(version, self.running):
            self._end_aside(other)
        is_full = self._room is not None and not self._room.has_room(version.key)
        refusal = NO_ROOM if is_full else self._asides.refusal()
        if refusal is not None:
            raise VersionUnavailable(refusal)

    def _fail(self, key: str, failed: Exception) -> None:
        if isinstance(failed, LoadFailed):
            reason = failed.reason
        else:
            self._log_not_started(key, failed)
            reason = _NEVER_STARTED
        self._quarantine.load_failed(key, reason)

    def _log_not_started(self, key: str, failed: Exception) -> None:
        _logger.error("%s: %s: %s", self._versions[key].name, _NEVER_STARTED, failed)

    def _note_loaded(self, version: VersionId, process: VersionProcess, spent_s: float) -> None:
        if not version.aside:
            self.events.note_load(version.model, version.number, spent_s)
        self._count_loaded()
        _logger.info("%s loaded in %.2f s", version.name, spent_s, extra=fields(**version.where))

    def _count_loaded(self) -> None:
        """By models. One with a replica of its own counts there when nothing of it is left."""
        known = dict.fromkeys(self.events.loaded, 0) if self._room is None else {}
        for process in self._running.values():
            if process.state is State.READY:
                known[process.version.model] = known.get(process.version.model, 0) + 1
        self.events.loaded = known

    def _job(self, version: VersionId, home: Home) -> dict[str, Any]:
        return {
            "kind": "serve",
            "folder": str(self._artifacts.folder(version)),
            "tracking_uri": self._settings.tracking_uri,
            "registry_uri": self._settings.registry_uri,
            "aside": version.aside,
            "may_move": home.may_be_another,
        }

    def _take_lack(self, home: Home, process: VersionProcess, module: str) -> None:
        self._go_on(self._move(home, process, module))

    async def _move(self, home: Home, process: VersionProcess, module: str) -> None:
        """A call lacks a module: the version gets an environment that may have it. What it is asked
        meanwhile is lost with its process, and comes again there."""
        if not await home.is_another_next(module):
            return
        version = process.version
        text = "%s: No module named %r with the gateway's packages: it gets its own"
        _logger.warning(text, version.name, module, extra=fields(**version.where))
        if self._running.get(version.key) is process:
            del self._running[version.key]
        process.give_up()

    def _take_end(self, key: str, home: Home, process: VersionProcess) -> None:
        """A process is no more: whose fault that is, and what comes of it."""
        home.leave()
        self._ending.discard(process)
        if process.may_have_killed_template:
            self._isolation.suspect(key)
        else:
            self._isolation.was_calm(key, process.calm_s)
        if self._room is not None:
            self._room.free()
        was_serving = self._running.get(key) is process and process.was_ready
        if self._running.get(key) is process:
            del self._running[key]
        self._count_loaded()
        if process.given_up or not was_serving or self._is_closing:
            return
        where = fields(**process.version.where)
        text = "%s: %s%s"
        at_work = ", in a call" if process.was_at_work else ""
        _logger.error(text, process.version.name, process.how_it_ended, at_work, extra=where)
        if process.was_at_work:
            self._quarantine.died(key, "call", f"in its calls {process.how_it_ended}")
        self._restart(key)

    def _restart(self, key: str) -> None:
        """Load the version again, which was in use until now, before anybody asks; less and less
        soon where its processes don't live long."""
        if self._versions[key].aside:
            return  # nobody waits for it: it comes back when it is asked
        if not self._is_closing and self._quarantine.suspension(key) is None:
            process_s = time.monotonic() - self._ready_at.get(key, 0.0)
            self._short_lives[key] = 0 if process_s > _LONG_LIFE_S else self._short_lives[key] + 1
            self._go_on(self._try(key, _RESTARTS.pause_s(self._short_lives[key], self._random)))

    async def _try(self, key: str, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        try:
            await self._loaded(self._versions[key])
        except VersionUnavailable as unavailable:
            _logger.info("%s isn't restarted: %s", self._versions[key].name, unavailable)

    def evict(self, key: str) -> None:
        """The version makes room for others: its process ends, after what it has taken."""
        process = self._running.get(key)
        if process is not None and process.state is State.READY:
            if not process.version.aside:
                self.events.note_eviction(process.version.model, process.version.number)
            self.finish(process)

    def finish(self, process: VersionProcess) -> None:
        """Have a process that is ready end after what it has taken."""
        del self._running[process.version.key]
        self._ending.add(process)
        process.finish()
        self._count_loaded()
        self._go_on(self._see_off(process))

    async def _see_off(self, process: VersionProcess) -> None:
        """One that doesn't end by itself is ended."""
        if not await process.wait_for_end(_FINISH_S + self._settings.load_timeout_s):
            process.give_up()

    def refuse(self, process: VersionProcess, reason: str) -> None:
        """The version can't be here: its process ends, and it isn't tried for a while."""
        version = process.version
        _logger.error("%s: %s", version.name, reason, extra=fields(**version.where))
        self._quarantine.load_failed(version.key, reason)
        if process.state is State.LOADING:
            process.give_up()
            return
        if not version.aside:
            self.events.note_failure(version.model, version.number, 0.0, reason)
        self.finish(process)

    @property
    def running(self) -> list[VersionProcess]:
        """The processes that have, or are to have, a version in memory."""
        return list(self._running.values())

    @property
    def alive(self) -> list[VersionProcess]:
        """Those, and those that are ending."""
        return [*self._running.values(), *self._ending]

    async def _watch(self, look: Callable[[], Awaitable[None]], pause_s: float) -> None:
        """Look at all processes now and then, for ever."""
        while True:
            await asyncio.sleep(pause_s)
            # Whatever goes wrong with one look, who hangs must be seen by the next.
            with Attempt(_logger, "the versions' processes can't be looked at"):
                await look()

    async def _look_at_asides(self) -> None:
        """End the shadows that nobody asks, or that leave too little memory for the others."""
        for process in self._asides.to_end(self.running, time.monotonic()):
            self._end_aside(process)

    def _end_aside(self, process: VersionProcess) -> None:
        """End a shadow: one that is at work may hang, and nobody waits for its answer."""
        if process.is_at_work:
            process.give_up()
            self._running.pop(process.version.key, None)
        else:
            self.finish(process)

    async def _look(self) -> None:
        """Who hangs is given up, and who was used is noted."""
        now = time.monotonic()
        for key, process in list(self._running.items()):
            if process.state is State.LOADING:
                self._look_at_load(key, process, now)
            elif process.mark is not None:
                await self._look_at_calls(key, process, now)

    def _look_at_load(self, key: str, process: VersionProcess, now: float) -> None:
        limit_s, began_at = self._settings.load_timeout_s, process.load_began_at
        if began_at is not None and now - began_at > limit_s and not process.given_up:
            _logger.error(
                "%s: the load has hung: its process is ended",
                process.version.name,
                extra=fields(**process.version.where),
            )
            self._quarantine.load_failed(key, f"it wasn't loaded within {limit_s:g} s")
            process.give_up()

    async def _look_at_calls(self, key: str, process: VersionProcess, now: float) -> None:
        mark = process.mark
        assert mark is not None
        calls, ended, overdue_at = mark.calls, mark.ended, mark.overdue_at
        seen, seen_ended, noted_at = self._seen.get(key, (0, 0, 0.0))
        if overdue_at and now > overdue_at + GRACE_S:
            _logger.error(
                "%s: a call has hung: its process is ended",
                process.version.name,
                extra=fields(**process.version.where),
            )
            self._quarantine.hung(key, "its calls hung")
            process.give_up()
            self._running.pop(key, None)
            self._restart(key)
        elif (calls, ended) != (seen, seen_ended) and now - noted_at > _NOTE_USE_S:
            if ended > seen_ended:
                self._quarantine.answered(key)
            self._seen[key] = (calls, ended, now)
            if not process.version.aside:
                await self._keep(key)

    async def _prepare(self, method: StartMethod) -> None:
        """Have what is imported ahead there before the first version is asked for."""
        try:
            await self._processes.prepare(method)
        except StartFailed as failed:
            _logger.warning("nothing can be imported ahead: %s", failed)

    def _go_on(self, work: Any) -> None:
        task = self._loop.create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _is_another_next(home: Home | None, failed: Exception) -> bool:
    """Whether a load that failed is to be tried once more elsewhere."""
    if home is None or not isinstance(failed, LoadFailed):
        return False
    return await home.is_another_next(failed.lacks)
