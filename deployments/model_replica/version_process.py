"""One version's process: started, loading, ready, ended; and calls of it.

Asyncio only; must not import ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from deployments.application_names import version_key
from deployments.logs import fields
from deployments.model_process.framing import Message
from deployments.model_process.mark import Mark
from deployments.model_replica.connection import Connections
from deployments.model_replica.output_lines import OutputLines
from deployments.model_replica.processes import Process, Processes, new_address, new_mark
from deployments.model_replica.start_methods import StartMethod
from gateway.catalog import EnvironmentMode, ModelVersion, ServedModel

_logger = logging.getLogger("modelmux.version_process")

_JUST_LOADED_S = 5.0


class State(Enum):
    """What a version's process is at."""

    LOADING = "loading"
    READY = "ready"
    ENDING = "ending"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionId:
    """A version of a model: `fingerprint` tells its artifacts from others under the same number,
    `flavor` is the loader module of its MLmodel file, `environment` what a tag says of the packages
    that it runs with, where one does, `max_loaded_versions` how many of its model's may be in a
    replica's memory at once. One that is `aside` is a shadow (see `model_replica.asides`): another
    process than that of the version for callers, with faults of its own."""

    model: str
    number: int
    fingerprint: str
    flavor: str | None = None
    environment: EnvironmentMode | None = None
    max_loaded_versions: int = 3
    aside: bool = False

    @classmethod
    def of(cls, model: ServedModel, version: ModelVersion, *, aside: bool = False) -> VersionId:
        """That version as the catalog has it."""
        return cls(
            model=model.name,
            number=version.number,
            fingerprint=version.fingerprint,
            flavor=version.flavor,
            environment=model.environment_of(version),
            max_loaded_versions=model.options.max_loaded_versions,
            aside=aside,
        )

    @property
    def key(self) -> str:
        """See `version_key`."""
        key = version_key(self.number, self.fingerprint, self.environment)
        return f"{key}-aside" if self.aside else key

    @property
    def name(self) -> str:
        """For the log."""
        return f"{self.model} version {self.number}{' as a shadow' if self.aside else ''}"

    @property
    def where(self) -> dict[str, object]:
        """Members of its log lines."""
        return {"model": self.model, "version": self.number}


class LoadFailed(Exception):
    """A version can't be put into memory; `reason` may be told to anybody. `lacks` is the module
    that wasn't there, where that is the reason."""

    def __init__(self, reason: str, *, lacks: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lacks = lacks


class ProcessEnded(Exception):
    """The process ended before it was ready; the sentence says how."""


class VersionProcess:
    """A process that has, or is to have, one version in memory.

    `at_end` is called with it once the process is no more, whyever; `at_lack` with it and a module
    that a call of its wants and doesn't find, which waits for a while then.
    """

    def __init__(
        self,
        version: VersionId,
        *,
        at_end: Callable[[VersionProcess], None],
        at_lack: Callable[[VersionProcess, str], None],
    ) -> None:
        self.version = version
        self.state = State.LOADING
        self.load_began_at: float | None = None
        """When the process began with the load, of the monotonic clock; None until then."""
        self.given_up = False
        """Whether the supervisor has ended it, so that its end is nobody's fault."""
        self.was_at_work = False
        self.address = new_address()
        self.mark: Mark | None = None
        self.own_bytes: int | None = None
        """What it has of memory for itself, as measured last; None where it wasn't yet."""
        self.resident_bytes, self.measured_at = 0, 0.0
        self.ready_at = 0.0
        """When the version was in memory, of the monotonic clock; 0 before."""
        self._at_end = at_end
        self._at_lack = at_lack
        self._is_alone = False
        self._process: Process | None = None
        self._is_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connections = Connections(self.address)

    async def load(
        self,
        processes: Processes,
        method: StartMethod,
        job: dict[str, Any],
        *,
        alone: bool = False,
    ) -> None:
        """Start the process, `alone` or not (see `Processes.start`), and wait until it has loaded
        the version.

        Raises LoadFailed, ProcessEnded, and StartFailed where there can't be a process.
        """
        path = new_mark()
        self._is_alone = alone
        try:
            self.mark = Mark(str(path))
            self._process = await processes.start(
                {**job, "listen": self.address, "mark": str(path)},
                method,
                hear=self._hear,
                output=OutputLines(self.version.name, self.version.where),
                alone=alone,
            )
            self.load_began_at = time.monotonic()
            self._process.ended.add_done_callback(lambda _: self._end())
            await self._is_ready
        finally:
            path.unlink(missing_ok=True)
        self.state = State.READY

    @property
    def pid(self) -> int | None:
        """Its number; None until it has one."""
        return None if self._process is None else self._process.pid

    @property
    def may_have_killed_template(self) -> bool:
        """Whether its template has ended while this process ran code of its own, or just after."""
        if self._process is None or not self._process.lost_template:
            return False
        is_calm = self.was_ready and time.monotonic() - self.ready_at > _JUST_LOADED_S
        return not is_calm or self.was_at_work

    @property
    def calm_s(self) -> float:
        """How long it has had the version in memory beside a template of its own that it has left
        alone; 0 where it hasn't."""
        has_lost = self._process is None or self._process.lost_template
        if not self._is_alone or has_lost or not self.was_ready:
            return 0.0
        return time.monotonic() - self.ready_at

    @property
    def used_at(self) -> float:
        """When its last call began, or it was loaded, of the monotonic clock."""
        return max(self.ready_at, 0.0 if self.mark is None else self.mark.used_at)

    @property
    def is_at_work(self) -> bool:
        """Whether a call goes on."""
        return self.mark is not None and self.mark.is_at_work

    @property
    def how_it_ended(self) -> str:
        """In words."""
        return "its process ended" if self._process is None else self._process.how_it_ended()

    async def call(self, message: bytes) -> Message:
        """The packed outcome of a packed call; raises ConnectionError where the process is gone."""
        return await self._connections.call(message)

    def stream(self, message: bytes) -> AsyncGenerator[Message]:
        """See `Connections.stream`."""
        return self._connections.stream(message)

    @property
    def was_ready(self) -> bool:
        """Whether it ever had the version in memory."""
        return self._is_ready.done() and self._is_ready.exception() is None

    def give_up(self) -> None:
        """End it now: it hangs."""
        self.given_up = True
        if self._process is not None:
            self._process.kill()

    def finish(self) -> None:
        """Have it answer what has come, and end."""
        if self.state is State.READY:
            self.state = State.ENDING
            self.given_up = True
            if self._process is not None:
                self._process.finish()

    async def wait_for_end(self, timeout_s: float) -> bool:
        """Whether it has ended within so many seconds."""
        if self._process is None:
            return True
        done, _ = await asyncio.wait([self._process.ended], timeout=timeout_s)
        return bool(done)

    def _hear(self, event: dict[str, Any]) -> None:
        match event.get("event"):
            case "ready":
                self.ready_at = time.monotonic()  # it may end before anybody sees that it is
                self._settle(None)
            case "failed":
                self._log_failed_load(event)
                self.give_up()
                lacks = event.get("lacks")
                reason = str(event.get("reason"))[:300]
                self._settle(LoadFailed(reason, lacks=lacks if isinstance(lacks, str) else None))
            case "call_failed":
                self._log_failed_call(event)
            case "lacks":
                self._at_lack(self, str(event.get("module"))[:200])

    def _end(self) -> None:
        self.was_at_work = self.is_at_work
        self.state = State.ENDED
        self._settle(ProcessEnded(self.how_it_ended))
        self._connections.leave()
        if self.mark is not None:
            self.mark.close()
            self.mark = None
        self._at_end(self)

    def _settle(self, error: Exception | None) -> None:
        if self._is_ready.done():
            return
        if error is None:
            self._is_ready.set_result(None)
        else:
            self._is_ready.set_exception(error)
            self._is_ready.exception()  # mark as seen: who waited may have left

    def _log_failed_load(self, event: dict[str, Any]) -> None:
        # No caller has a part in it, so its text may be told; it is what people need.
        _logger.error(
            "%s can't be loaded: %s: %s",
            self.version.name,
            event.get("reason"),
            event.get("text"),
            extra={**fields(**self.version.where), "stack_lines": _lines(event)},
        )

    def _log_failed_call(self, event: dict[str, Any]) -> None:
        extra = {**fields(**self.version.where), "stack_lines": _lines(event)}
        with contextlib.suppress(KeyError):
            if event["what"] == "unsupported_output":
                _logger.error("%s: %s", self.version.name, event["text"], extra=extra)
            else:
                _logger.error("%s failed on a request", self.version.name, extra=extra)


def _lines(event: dict[str, Any]) -> list[str]:
    stack = event.get("stack")
    return [str(line) for line in stack] if isinstance(stack, list) else []
