"""Starting processes of `model_process`, and hearing from them.

Owns the templates (one per interpreter and set of imports), the socket at which processes report,
and what each is told and tells. Knows nothing of versions. Asyncio only; must not import ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from contextvars import Context
from pathlib import Path
from typing import Any

from deployments.model_process import start
from deployments.model_process.call_server import is_same_user
from deployments.model_process.channel import connected, line_of, listening
from deployments.model_process.mark import Mark
from deployments.model_replica.connection import connected_socket
from deployments.model_replica.output_lines import OutputLines
from deployments.model_replica.start_methods import StartMethod
from gateway.single_flight import SingleFlight

_logger = logging.getLogger("modelmux.model_processes")

_PIECE_BYTES = 64 * 1024
_LONGEST_EVENT_BYTES = 256 * 1024
_STATUS_S = 1.0
_IMPORTS_S = 300.0
_LAST_WAIT_S = 2.0
_ZYGOTE_S = 30.0
_ENDED = "the template has ended"

# Nobody watches progress bars here.
_DEFAULTS = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
# Secrets of the gateway's own processes.
_SECRETS = frozenset({"MODELMUX_KEYS", "MODELMUX_WEBHOOK_SECRET", "MODELMUX_KEY", "RAY_AUTH_TOKEN"})

# Ray's debugger, which only Ray's own processes have.
_OF_WORKERS = frozenset({"PYTHONBREAKPOINT"})

_OF_INTERPRETER = frozenset({"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONEXECUTABLE"})


def new_address() -> str:
    """An address for a socket that nobody has."""
    name = f"modelmux-{uuid.uuid4().hex}"
    if sys.platform == "linux":
        return f"@{name}"
    return os.path.join(tempfile.mkdtemp(prefix="modelmux-"), "socket")


class StartFailed(Exception):
    """A process could not be started; the sentence is for the log."""


class TemplateEnded(StartFailed):
    """The template that was to start it has ended: another one may start it."""


class Process:
    """One process, from the request for it to its end. `hear` gets the events that it tells."""

    def __init__(self, hear: Callable[[dict[str, Any]], None], output: OutputLines) -> None:
        self.token = uuid.uuid4().hex
        self.pid: int | None = None
        self.status: int | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.output = output
        self._hear = hear
        self._exited = asyncio.Event()
        self._control: asyncio.StreamWriter | None = None
        self._template: Template | None = None
        self._is_killed = False
        self.lost_template = False
        """Whether its template has gone before it, so that nobody knows how it ends."""

    def how_it_ended(self) -> str:
        """In words; nothing where that isn't known."""
        if self.status is None:
            return "its process ended"
        if os.WIFSIGNALED(self.status):
            return f"its process was ended by signal {os.WTERMSIG(self.status)}"
        return f"its process ended with exit code {os.WEXITSTATUS(self.status)}"

    def finish(self) -> None:
        """Have it answer what has come and end; it is killed if that takes long."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.write(line_of({"event": "finish"}))

    def kill(self) -> None:
        """End it now, with what it has started; one that isn't started yet, then."""
        self._is_killed = True
        if self.pid is not None and self._template is not None:
            self._template.end(self.pid)

    def started(self, pid: int, template: Template) -> None:
        """The template has started it."""
        self.pid, self._template = pid, template
        if self._is_killed:
            self.kill()

    def connected(self, control: asyncio.StreamWriter) -> None:
        """It has reported."""
        self._control = control

    def heard(self, event: dict[str, Any]) -> None:
        """It tells something."""
        self._hear(event)

    def lose_template(self) -> None:
        """Its template is gone: no status of it will come, and it ends itself at any moment."""
        self.lost_template = True
        self._exited.set()

    def exited(self, status: int | None) -> None:
        """The template has seen its end, or is gone with all its processes."""
        self.status = status
        self._exited.set()
        if self._control is None:
            self.gone()
        else:  # of the connection's end as well, unless something that it forked has it still
            asyncio.get_running_loop().call_later(_STATUS_S, self.gone)

    async def hung_up(self) -> None:
        """Its connection is closed: that is its end, whose status comes in a moment; it is made to
        end where it has only closed what it had open."""
        try:
            async with asyncio.timeout(_STATUS_S):
                await self._exited.wait()
        except TimeoutError:
            self.kill()
        self.gone()

    def gone(self) -> None:
        """It is no more."""
        if not self.ended.done():
            self.ended.set_result(None)


class Template:
    """A template (see `model_process.template`) and the processes that it has started."""

    def __init__(self, interpreter: str, environment: Mapping[str, str]) -> None:
        self._interpreter = interpreter
        self._environment = environment
        self._writer: asyncio.StreamWriter | None = None
        self._asked: dict[int, tuple[Process, asyncio.Future[None]]] = {}
        self._processes: dict[int, Process] = {}
        self._last_id = 0
        self.pid: int | None = None
        """Of one that was started and not forked, once it is ready: all that it has is its own."""
        self._is_started = False
        self.is_gone = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.tasks: list[asyncio.Task[None]] = []

    async def open(self, method: StartMethod) -> None:
        """Start it, from the thread that lives as long as this process: Linux ends it with that."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                self._interpreter,
                str(start.__file__),
                "template",
                str(theirs.fileno()),
                str(os.getpid()),
                *method.preload,
                pass_fds=(theirs.fileno(),),
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        self._is_started = True
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        assert process.stdout is not None
        self.tasks = [
            _task(_read_output(process.stdout, OutputLines("template", {}))),
            _task(self._follow(reader, process)),
        ]

    async def fork(self, base: str, supervisor: str, token: str) -> None:
        """Have it forked from the base at that address (see `model_process.zygote`); its output
        comes to the supervisor's address, with the token. Raises OSError where there is none."""
        reader, self._writer = await _connection(base)
        environ = dict(self._environment)
        hello = {"environ": environ, "supervisor": supervisor, "token": token}
        self._writer.write(line_of(hello))
        self.tasks = [_task(self._follow(reader, None))]

    async def start(self, process: Process, job: Mapping[str, Any], *, forks: bool) -> None:
        """Have it start a process; raises StartFailed, and of that TemplateEnded."""
        assert self._writer is not None
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_IMPORTS_S):
                await asyncio.shield(self.ready)
                if self.is_gone:  # in the moment in which it was ready
                    raise TemplateEnded(_ENDED)
                self._last_id += 1
                self._asked[self._last_id] = (process, started)
                said = {"id": self._last_id, "method": "fork" if forks else "spawn"}
                self._writer.write(line_of({**said, "job": dict(job)}))
                await asyncio.shield(started)
        except TimeoutError:
            self.close()  # what it imports has hung
            raise StartFailed("the template doesn't come to an end with its imports") from None

    def end(self, pid: int) -> None:
        """Have it kill a process of its own and what that has started."""
        if self._writer is not None and not self.is_gone:
            self._writer.write(line_of({"end": pid}))

    def close(self) -> None:
        """Hang up: it ends, and ends all its processes."""
        if self._writer is not None:
            self._writer.close()

    async def _follow(
        self, reader: asyncio.StreamReader, process: asyncio.subprocess.Process | None
    ) -> None:
        try:
            async for line in reader:
                self._take(json.loads(line))
        except (OSError, ValueError) as error:
            _logger.warning("a template can't be followed: %s", type(error).__name__)
        finally:
            self.is_gone = True
            self.close()
            # At once: its guard ends with the last of them, be that another's hundred GB later.
            for each in self._processes.values():
                each.lose_template()
            if process is not None:
                await process.wait()
            self._lose_all()

    def _take(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "ready":
                for module, kind in event["failed"].items():
                    _logger.info("%s can't be imported ahead: %s", module, kind)
                self.pid = event["pid"] if self._is_started else None
                self.ready.set_result(None)
            case "started":
                process, started = self._asked.pop(event["id"])
                process.started(event["pid"], self)
                self._processes[event["pid"]] = process
                if not started.done():
                    started.set_result(None)
            case "exited":
                found = self._processes.pop(event["pid"], None)
                if found is not None:
                    found.exited(event["status"])

    def _lose_all(self) -> None:
        failure = TemplateEnded(_ENDED)
        for future in (self.ready, *(started for _, started in self._asked.values())):
            if not future.done():
                future.set_exception(failure)
                future.exception()  # mark as seen: nobody may wait for it
        for process in self._processes.values():
            process.exited(None)
        self._asked, self._processes = {}, {}


class Processes:
    """All processes of one supervisor. To be opened and closed on its event loop."""

    def __init__(self, interpreter: str = sys.executable, *, zygote: str | None = None) -> None:
        """`zygote` is the address of the machine's (see `model_process.zygote`), if it has one; it
        is of the gateway's own interpreter."""
        self._interpreter = interpreter
        self._zygote = zygote if interpreter == sys.executable else None
        self._address = new_address()
        self._listener: asyncio.Server | None = None
        self._listening: SingleFlight[str, None] = SingleFlight()
        self._opening: asyncio.Lock = asyncio.Lock()
        self._templates: dict[StartMethod, Template] = {}
        self._single: set[Template] = set()
        self._following: set[asyncio.Task[None]] = set()
        self._by_token: dict[str, Process] = {}
        self._outputs: dict[str, OutputLines] = {}
        self._greeting: set[asyncio.Task[Any]] = set()

    async def prepare(self, method: StartMethod) -> None:
        """Have the template there that starts processes by that method, with its imports done;
        raises StartFailed."""
        await (await self._template(method)).ready

    async def start(
        self,
        job: Mapping[str, Any],
        method: StartMethod,
        *,
        hear: Callable[[dict[str, Any]], None],
        output: OutputLines,
        alone: bool = False,
    ) -> Process:
        """Start a process for a job (see `model_process.job`), `alone` by a template that starts no
        other; raises StartFailed."""
        template = await (self._single_template(method) if alone else self._template(method))
        process = Process(hear, output)
        self._by_token[process.token] = process
        process.ended.add_done_callback(lambda _: self._by_token.pop(process.token, None))
        if alone:
            process.ended.add_done_callback(lambda _: self._end_single(template))
        whole = {**job, "token": process.token, "supervisor": self._address}
        try:
            await template.start(process, whole, forks=method.forks)
        except StartFailed:
            process.gone()
            raise
        return process

    def template_pids(self) -> list[int]:
        """The templates that were started for these processes alone."""
        found = (*self._templates.values(), *self._single)
        return [each.pid for each in found if each.pid is not None and not each.is_gone]

    async def close(self, *, timeout_s: float) -> None:
        """End all, after what they have taken is answered or so many seconds have passed."""
        running = list(self._by_token.values())
        for process in running:
            process.finish()
        if running:
            await asyncio.wait([process.ended for process in running], timeout=timeout_s)
        self.abandon()
        going_on = [*self._greeting, *self._following]
        if going_on:
            await asyncio.wait(going_on, timeout=_LAST_WAIT_S)

    def abandon(self) -> None:
        """End all at once."""
        for template in (*self._templates.values(), *self._single):
            template.close()
        if self._listener is not None:
            self._listener.close()

    async def _template(self, method: StartMethod) -> Template:
        async with self._opening:
            await self._have_listener()
            found = self._templates.get(method)
            if found is None or found.is_gone:
                found = await _task(self._opened(method))
                self._templates[method] = found
            return found

    async def _single_template(self, method: StartMethod) -> Template:
        async with self._opening:
            await self._have_listener()
        template: Template = await _task(self._opened(method))
        self._single.add(template)
        return template

    def _end_single(self, template: Template) -> None:
        template.close()
        self._single.discard(template)

    async def _have_listener(self) -> None:
        if self._listener is None:
            # Of no request's: what is made here outlives whoever asked first.
            await self._listening.run(self._address, self._listen)

    async def _opened(self, method: StartMethod) -> Template:
        template = await self._new_template(method)
        self._following.update(template.tasks)
        for task in template.tasks:
            task.add_done_callback(self._following.discard)
        return template

    async def _new_template(self, method: StartMethod) -> Template:
        environment = model_environment(self._interpreter)
        found = Template(self._interpreter, environment)
        base = await self._base(method, environment) if method.forks else None
        try:
            if base is not None:
                token = uuid.uuid4().hex
                self._outputs[token] = OutputLines("template", {})
                try:
                    await found.fork(base, self._address, token)
                except OSError as error:
                    _logger.info("the zygote's base is gone: %s", error.strerror)
                else:
                    return found
            await found.open(method)
        except OSError as error:
            raise StartFailed(str(error)) from error
        return found

    async def _base(self, method: StartMethod, environment: Mapping[str, str]) -> str | None:
        """The address where a template can be forked from; None where there is no such thing."""
        if self._zygote is None:
            return None
        try:
            async with asyncio.timeout(_ZYGOTE_S):
                return await base_of(self._zygote, method, environment)
        except (OSError, ValueError, TimeoutError) as error:
            _logger.info("the zygote doesn't answer: %s", type(error).__name__)
            return None

    async def _listen(self) -> None:
        ours = listening(self._address)
        ours.setblocking(False)
        self._listener = await asyncio.start_unix_server(
            self._greet, sock=ours, limit=_LONGEST_EVENT_BYTES
        )

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A process has connected: to tell events, or with its output."""
        process: Process | None = None
        this = asyncio.current_task()
        assert this is not None
        self._greeting.add(this)
        try:
            if not is_same_user(writer.get_extra_info("socket")):
                return
            hello = json.loads(await reader.readline())
            process = self._by_token.get(hello["token"])
            if process is None:
                if hello["token"] in self._outputs:
                    await _read_output(reader, self._outputs.pop(hello["token"]))
                return
            if hello["event"] == "output":
                await _read_output(reader, process.output)
            else:
                process.connected(writer)
                await _hear(reader, process)
        except (OSError, ValueError, KeyError, TypeError) as error:
            _logger.warning("a process can't be understood: %s", type(error).__name__)
            if process is not None:
                process.kill()
        finally:
            writer.close()
            self._greeting.discard(this)


async def _hear(reader: asyncio.StreamReader, process: Process) -> None:
    try:
        async for line in reader:
            process.heard(json.loads(line))
    except ConnectionError:
        pass  # killed with something unread
    await process.hung_up()


async def base_of(zygote: str, method: StartMethod, environment: Mapping[str, str]) -> str | None:
    """The address of the base that has that method's packages imported, or is about to; None where
    the environment is another than the zygote's. Raises OSError and ValueError."""
    reader, writer = await _connection(zygote)
    try:
        writer.write(line_of({"preload": list(method.preload), "environ": dict(environment)}))
        answer = json.loads(await reader.readline())
    finally:
        writer.close()
    if "refused" in answer:
        _logger.info("the zygote's environment is another: %s", answer["refused"])
        return None
    return str(answer["address"])


async def _connection(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Raises OSError. The socket is made here: uvloop can't connect to a name without a file."""
    ours = connected_socket(address)
    if ours is None:
        raise ConnectionRefusedError
    return await asyncio.open_unix_connection(sock=ours, limit=_LONGEST_EVENT_BYTES)


def import_ahead(zygote: str, method: StartMethod) -> None:
    """Have a machine's zygote import what that method does, and wait for nothing."""
    if not method.forks:
        return
    with contextlib.suppress(OSError), connected(zygote) as asking:
        asking.settimeout(_LAST_WAIT_S)
        asked = {"preload": list(method.preload), "environ": model_environment()}
        asking.sendall(line_of(asked))
        asking.recv(1)


def new_mark() -> Path:
    """A new file for a `Mark`, in memory where the system has a place for that; raises OSError."""
    shared = Path("/dev/shm")  # noqa: S108 - made under a name that nobody can guess
    where = str(shared) if os.access(shared, os.W_OK) else None
    descriptor, path = tempfile.mkstemp(prefix="modelmux-mark-", dir=where)
    try:
        Mark.prepare(descriptor)
    finally:
        os.close(descriptor)
    return Path(path)


def model_environment(interpreter: str = sys.executable) -> dict[str, str]:
    """What models' processes that an interpreter runs have of this process's environment."""
    inherited = {
        name: value for name, value in os.environ.items() if name not in _SECRETS | _OF_WORKERS
    }
    if interpreter == sys.executable:
        return {**_DEFAULTS, **inherited}
    # What an environment's `activate` sets, and takes away: the gateway's packages aren't its own.
    # https://docs.python.org/3/library/venv.html#how-venvs-work
    folder = os.path.dirname(interpreter)
    own = {"VIRTUAL_ENV": os.path.dirname(folder)}
    own["PATH"] = os.pathsep.join(filter(None, [folder, inherited.get("PATH")]))
    others = {k: v for k, v in inherited.items() if k not in _OF_INTERPRETER}
    return {**_DEFAULTS, **others, **own}


async def _read_output(reader: asyncio.StreamReader, output: OutputLines) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_PIECE_BYTES):
            output.feed(data)
    output.close()


def _task(work: Any) -> asyncio.Task[Any]:
    """Of no request: what one brings in its context doesn't come along."""
    return asyncio.get_running_loop().create_task(work, context=Context())
