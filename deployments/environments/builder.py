"""Builds environments by uv: each once, a bounded number at a time, behind nobody's request.

What is installed comes from a registry and from an index, and building a package runs its code: so
a build has low priority, bounds, no more of this process's environment variables than it needs, and
ends with the gateway (`guarded_run`). Asyncio only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import sysconfig
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uv

from deployments.environments import guarded_run
from deployments.environments.build_places import LOOK_S, BuildPlace
from deployments.environments.bytecode import share_bytecode
from deployments.environments.failures import Cause, Failure
from deployments.environments.interpreters import LEAST_PYTHON, Interpreters
from deployments.environments.model_needs import (
    Needs,
    Unreadable,
    completed,
    locked,
)
from deployments.environments.project_lock import project_name
from deployments.environments.requirement_lines import Wanted
from deployments.environments.store import Environment, Store
from gateway.single_flight import SingleFlight
from registry_sync.masking import credentials_in, shown

_OUTPUT_BYTES = 64 * 1024
_FIRST_BYTES = 4 * 1024
# uv says first what it couldn't do, and then all that a package's build said.
_FIRST_LINES = 3
_LAST_LINES = 17
_LAST_WAIT_S = 15.0
_MANY_FILES = 200
_CACHE_LOCK_S = 5

# What uv, git, the network, and a compiler read. A package's setup code sees these and no more.
_PASSED_ON = re.compile(
    r"(UV_\w+|PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TZ|TMPDIR|XDG_\w+|NETRC|SSH_AUTH_SOCK|GIT_\w+"
    r"|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|(HTTPS?|ALL|NO)_PROXY|PYENV_ROOT|LD_LIBRARY_PATH"
    r"|CC|CXX|CFLAGS|CXXFLAGS|CPPFLAGS|LDFLAGS|MAKEFLAGS|PKG_CONFIG_PATH|CUDA_\w+|CARGO_\w+"
    r"|RUSTUP_\w+|MACOSX_DEPLOYMENT_TARGET)\Z",
    re.IGNORECASE,
)
# Where a build goes, and with what, is said by us.
_OURS = frozenset({"UV_SYSTEM_PYTHON", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "UV_WORKING_DIR",
                   "UV_PROJECT", "UV_COMPILE_BYTECODE"})  # fmt: skip
_SECRET = re.compile(r"UV_INDEX_\w+_(PASSWORD|USERNAME)\Z|UV_\w*(TOKEN|PASSWORD)\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSettings:
    """Bounds of builds; `most_at_once` is of all processes that share the store, and `wheels_only`
    forbids to build packages, which runs their code. One that takes longer than `long_s` makes room
    for another: no more than `most_at_once` such go on beside the others."""

    most_at_once: int = 1
    long_s: float = 60.0
    timeout_s: float = 1800.0
    max_bytes: int = 20 * 1024**3
    wheels_only: bool = False


class BuildFailed(Exception):
    """An environment that can't be had: why in one sentence, and what the tools said of it last;
    all of it may be shown. It isn't tried again before `retry_at` (Unix time)."""

    def __init__(self, cause: Cause, reason: str, lines: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.cause = cause
        self.reason = reason
        self.lines = tuple(lines)
        self.retry_at = 0.0

    @classmethod
    def remembered(cls, failure: Failure) -> BuildFailed:
        """What was raised when it failed."""
        failed = cls(failure.cause, failure.reason, failure.lines)
        failed.retry_at = failure.retry_at
        return failed


def platform() -> str:
    """Tells machines from each other that can't share an environment."""
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, OSError, ValueError):
        libc = "other"
    # Its version doesn't count: wheels are of the oldest that they can bear.
    return f"{sysconfig.get_platform()} {libc.partition(' ')[0]}"


class Builder:
    """Builds what is needed into a store. To be closed on its event loop."""

    def __init__(
        self,
        store: Store,
        *,
        settings: BuildSettings,
        gateway_mlflow: str,
        environment: Mapping[str, str],
        may_download_pythons: bool = False,
    ) -> None:
        self.store = store
        self._settings = settings
        self._gateway_mlflow = gateway_mlflow
        self._uv = uv.find_uv_bin()
        self._environment = _environment(environment, store)
        self._secrets = credentials_in(self._environment.values())
        self._secrets |= {value for name, value in environment.items() if _SECRET.match(name)}
        self.interpreters = Interpreters(
            uv=self._uv, environment=self._environment, may_download=may_download_pythons
        )
        self._platform = platform()
        self._flights: SingleFlight[str, Environment] = SingleFlight()

    def digest(self, needs: Needs) -> str:
        """The name of the environment that meets these needs on this machine."""
        return needs.digest(self._platform)

    async def build(
        self,
        needs: Needs,
        *,
        artifacts: Path | None = None,
        again: bool = False,
        ahead: bool = False,
    ) -> Environment:
        """The environment that meets the needs, built unless it is there; raises BuildFailed, at
        once where it has just failed, for whatever process, and isn't to be tried `again`. What is
        built `ahead` waits for what somebody asks for.

        `artifacts` is the folder of the version's files; it may be left out where the needs have
        none of them (`files`, `folders`). A caller who is cancelled leaves alone.
        """
        if artifacts is None and needs.source:
            raise ValueError("these needs are in part the version's own files")
        digest = self.digest(needs)
        once = partial(self._once, digest, needs, artifacts, again, ahead)
        return await self._flights.run(digest, once)

    async def prune(self, max_bytes: int, in_use: Collection[str]) -> list[Environment]:
        """Remove the least recently used environments while all is larger than that, never one
        whose digest is in use or that another process holds; those that were removed."""
        loop = asyncio.get_running_loop()

        def clear_cache() -> None:
            asyncio.run_coroutine_threadsafe(self._clear_cache(), loop).result()

        return await asyncio.to_thread(self.store.prune, max_bytes, in_use, clear_cache=clear_cache)

    async def close(self) -> None:
        """End all builds."""
        tasks = list(self._flights.going_on())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_WAIT_S)

    async def _once(
        self, digest: str, needs: Needs, artifacts: Path | None, again: bool, ahead: bool
    ) -> Environment:
        since = time.time() if again else 0.0
        first: int | None = None
        try:
            while True:
                found, failure = await asyncio.to_thread(self._known, digest, since)
                if found is not None:
                    return found
                # Who asks for what has failed before keeps nobody waiting.
                is_first = not ahead and (again or failure is None)
                took_long = failure is not None and failure.cause == "too_long" and not again
                place = self._try_for_place(digest, is_first=is_first, is_slow=took_long)
                if place is not None:
                    return await self._placed(digest, needs, artifacts, place, since)
                if is_first and first is None:
                    first = self.store.be_first()
                await asyncio.sleep(LOOK_S)  # another builds it, or as many as may build
        except OSError as error:
            raise await self._failed(digest, _disk(error)) from None
        finally:
            if first is not None:
                os.close(first)

    def _known(self, digest: str, since: float) -> tuple[Environment | None, Failure | None]:
        """The environment, if it is there, or why it couldn't be built before; raises BuildFailed
        where it isn't to be tried again yet, by a failure since then."""
        found = self.store.find(digest)
        if found is not None:
            return found, None
        failure = self.store.failure(digest)
        if failure is not None and failure.failed_at > since and failure.is_fresh(time.time()):
            raise BuildFailed.remembered(failure)
        return None, failure

    def _try_for_place(self, digest: str, *, is_first: bool, is_slow: bool) -> BuildPlace | None:
        """The place of who builds it, if it is its turn. What took too long before has it only
        beside those who may build at once."""
        if not is_first and self.store.is_anybody_first():
            return None
        built = self.store.try_to_build(digest)
        if built is None:
            return None
        place = BuildPlace(self.store, built, self._settings.most_at_once)
        try:
            is_had = place.has_slow() if is_slow else place.has_slot()
        except OSError:
            place.close()
            raise
        if not is_had:
            place.close()
            return None
        return place

    async def _placed(
        self, digest: str, needs: Needs, artifacts: Path | None, place: BuildPlace, since: float
    ) -> Environment:
        giving_way = asyncio.create_task(place.give_way(self._settings.long_s))
        try:
            # What another has done just before the locks were free.
            found, _ = await asyncio.to_thread(self._known, digest, since)
            if found is not None:
                return found
            try:
                return await self._into_place(digest, needs, artifacts, place.descriptors)
            except OSError as error:
                failed = _disk(error)
            except BuildFailed as error:
                failed = error
            raise await self._failed(digest, failed)
        finally:
            giving_way.cancel()
            place.close()

    async def _failed(self, digest: str, failed: BuildFailed) -> BuildFailed:
        """The failure as everybody will be told it from now on."""
        said = (failed.cause, failed.reason, failed.lines)
        return BuildFailed.remembered(await asyncio.to_thread(self.store.fail, digest, *said))

    async def _into_place(
        self, digest: str, needs: Needs, artifacts: Path | None, locks: Sequence[int]
    ) -> Environment:
        # Its own place for what packages' build code puts into TMPDIR is removed with it.
        work = await asyncio.to_thread(self.store.begin, digest)
        if work is None:
            raise BuildFailed(
                "in_use", "Another gateway runs its environment with a Python that isn't here."
            )
        build = _Build(
            uv=self._uv,
            needs=needs,
            folder=self.store.path(digest),
            work=work,
            artifacts=artifacts,
            locks=locks,
            settings=self._settings,
            environment={**self._environment, "TMPDIR": str(work)},
            secrets=self._secrets | needs.secrets(),
        )
        try:
            others = await asyncio.to_thread(self.store.all)
            said = await build.run(self.interpreters, self._gateway_mlflow, others)
            return await asyncio.to_thread(self.store.complete, digest, said)
        finally:
            # Of nobody who could be cancelled in the middle of it.
            await asyncio.shield(asyncio.to_thread(self.store.end, digest))

    async def _clear_cache(self) -> None:
        """Remove what uv keeps; not while another process builds by it, nor where it isn't ours."""
        if self._environment["UV_CACHE_DIR"] != str(self.store.cache):
            return
        process = await asyncio.create_subprocess_exec(
            self._uv, "cache", "clean", "--quiet", "--no-config",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={**self._environment, "UV_LOCK_TIMEOUT": str(_CACHE_LOCK_S)},
            cwd="/",
        )  # fmt: skip
        await process.wait()


class _Build:
    """One build, from an empty place to all that is installed."""

    def __init__(
        self,
        *,
        uv: str,
        needs: Needs,
        folder: Path,
        work: Path,
        artifacts: Path | None,
        locks: Sequence[int],
        settings: BuildSettings,
        environment: Mapping[str, str],
        secrets: Collection[str],
    ) -> None:
        self._uv = uv
        self._needs = needs
        self._folder = folder
        self._work = work
        self._artifacts = artifacts
        self._locks = locks
        self._settings = settings
        self._environment = environment
        self._secrets = secrets
        self._begun_at = time.monotonic()

    async def run(
        self, interpreters: Interpreters, gateway_mlflow: str, others: Sequence[Environment]
    ) -> dict[str, object]:
        """Build it, with what others have of the same; what is to be said of it. Raises
        BuildFailed, OSError."""
        needs = self._needs
        if needs.python_minor < LEAST_PYTHON:
            least = "{}.{}".format(*LEAST_PYTHON)
            raise BuildFailed(
                "python", f"It needs Python {needs.python}, and {least} is the least."
            )
        python = await interpreters.find(needs.python_minor)
        if python is None:
            raise BuildFailed("python", f"It needs Python {needs.python}, which isn't here.")
        await self._venv(python.path)
        if needs.lock is not None:
            needs = await self._exported(needs, needs.lock, python.path)
        needs = completed(needs, gateway_mlflow=gateway_mlflow)
        if needs.build_requirements:
            await self._install("build", needs, needs.build_requirements)
        await self._install("run", needs, needs.requirements, needs.constraints)
        version = "{}.{}.{}".format(*python.version)
        await self._compile([each for each in others if each.python_version == version])
        size = await asyncio.to_thread(guarded_run.folder_bytes, str(self._folder))
        if size > self._settings.max_bytes:
            raise self._too_large()
        return {
            "python_version": version,
            "size_bytes": size,
            "build_s": round(time.monotonic() - self._begun_at, 3),
            "built_at": time.time(),
            "requirements": [str(each) for each in needs.requirements],
        }

    async def _venv(self, python: str) -> None:
        await self._uv_run(
            "venv", "--no-project", "--no-python-downloads", "--python", python, str(self._folder)
        )

    async def _exported(self, needs: Needs, lock: str, python: str) -> Needs:
        """The needs with the lines of their lock. The project's own settings aren't looked at."""
        name = await asyncio.to_thread(project_name, lock)
        if name is None:
            raise BuildFailed("files", "Its uv.lock isn't one of a single project.")
        project = self._work / "project"
        project.mkdir()
        (project / "uv.lock").write_text(lock, encoding="utf-8")
        (project / "pyproject.toml").write_text(f'[project]\nname = "{name}"\nversion = "0"\n')
        into = self._work / "exported.txt"
        await self._uv_run(
            "export", "--frozen", "--no-dev", "--no-header", "--no-annotate", "--no-emit-workspace",
            "--no-config", "--offline", "--no-python-downloads", "--python", python,
            "--project", str(project), "--output-file", str(into),
        )  # fmt: skip
        found = await asyncio.to_thread(locked, needs, into.read_text(encoding="utf-8"))
        if isinstance(found, Unreadable):
            raise BuildFailed("files", f"What it says of its packages can't be taken: {found}.")
        return found

    async def _install(
        self,
        step: str,
        needs: Needs,
        requirements: Sequence[Wanted],
        constraints: Sequence[Wanted] = (),
    ) -> None:
        flags = {"--pre": "--prerelease=allow", "--require-hashes": "--require-hashes"}
        given = [flags[option] for option in needs.options if option in flags]
        if needs.lock is not None and "UV_INDEX_STRATEGY" not in self._environment:
            # The lock has each file's hash, whichever of its indexes it is on.
            given.append("--index-strategy=unsafe-best-match")
        if self._settings.wheels_only:
            given.append("--no-build")
        if "UV_LINK_MODE" not in self._environment:
            given.append("--link-mode=hardlink")
        index = [option for option in needs.options if option not in flags]
        index += [f"--find-links {self._file_url(folder)}" for folder in needs.folders]
        lines = [each.text(self._file_url) for each in requirements]
        file = self._write(f"{step}.txt", [*index, *lines])
        given += ["-r", str(file)]
        if constraints:
            bounds = [each.text(self._file_url) for each in constraints]
            given += ["-c", str(self._write(f"{step}-constraints.txt", bounds))]
        interpreter = str(self._folder / "bin" / "python")
        await self._uv_run("pip", "install", "--python", interpreter, *given)

    async def _compile(self, others: Sequence[Environment]) -> None:
        """Byte code for all packages, so that no process compiles them while it loads a model."""
        alike = [each.folder for each in others]
        left = await asyncio.to_thread(share_bytecode, self._folder, alike)
        files = self._write("compile.txt", [str(path) for path in left])
        workers = ["-j", "0"] if len(left) > _MANY_FILES else []
        interpreter = str(self._folder / "bin" / "python")
        # A file that can't be compiled (another Python's syntax) is no failure.
        await self._run(interpreter, "-I", "-m", "compileall", "-qq", *workers, "-i", str(files))

    def _write(self, name: str, lines: Sequence[str]) -> Path:
        path = self._work / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    def _file_url(self, path: str) -> str:
        """A URL of one of the version's own files; raises BuildFailed."""
        assert self._artifacts is not None
        root = self._artifacts.resolve()
        file = (root / path).resolve()
        if not file.is_relative_to(root) or not file.exists():
            raise BuildFailed("files", f"It names {shown(path)}, which isn't among its files.")
        return file.as_uri()

    async def _uv_run(self, *arguments: str) -> None:
        """Run uv; raises BuildFailed with what it said last."""
        code, output = await self._run(self._uv, *arguments, "--quiet", "--color=never")
        if code != 0:
            text = output.decode("utf-8", "replace")
            lines = [shown(line, self._secrets) for line in text.splitlines()]
            said = _first_and_last([line for line in lines if line])
            raise BuildFailed("packages", "Its packages can't be installed.", said)

    async def _run(self, *command: str) -> tuple[int | None, bytes]:
        """Run a command; its exit code and what it said last. Raises BuildFailed where it comes to
        the bounds."""
        left_s = self._settings.timeout_s - (time.monotonic() - self._begun_at)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", str(guarded_run.__file__),
            str(max(left_s, 0.0)), str(self._settings.max_bytes),
            json.dumps([str(self._folder), str(self._work)]), self._environment["UV_CACHE_DIR"],
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
            cwd="/",  # no project's settings are found from there
            pass_fds=self._locks,  # they are held until all that was started has ended
            start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(left_s + _LAST_WAIT_S):  # were the guard itself killed
                output = await _ends(process.stdout)
                await process.wait()
        except TimeoutError:
            raise self._too_long() from None
        finally:
            process.stdin.close()  # ends it, if it hasn't
            await asyncio.shield(_ended(process))
        if process.returncode == guarded_run.TOO_LONG:
            raise self._too_long()
        if process.returncode == guarded_run.TOO_LARGE:
            raise self._too_large()
        return process.returncode, output

    def _too_long(self) -> BuildFailed:
        seconds = self._settings.timeout_s
        return BuildFailed("too_long", f"Its environment took longer than {seconds:g} s.")

    def _too_large(self) -> BuildFailed:
        most = self._settings.max_bytes
        return BuildFailed("too_large", f"Its environment is larger than {most:,} bytes.")


async def _ends(stream: asyncio.StreamReader) -> bytes:
    """The beginning and the end of what is said, until nobody is left who could say more."""
    first = last = b""
    is_cut = False
    while piece := await stream.read(_OUTPUT_BYTES):
        left = _FIRST_BYTES - len(first)
        first, last = first + piece[:left], last + piece[left:]
        if len(last) > _OUTPUT_BYTES:
            is_cut, last = True, last[-_OUTPUT_BYTES:]
    if not is_cut:
        return first + last
    # Not in the middle of a line, of which a secret could be told by half.
    return first.rpartition(b"\n")[0] + b"\n" + last.partition(b"\n")[2]


def _first_and_last(lines: Sequence[str]) -> list[str]:
    if len(lines) <= _FIRST_LINES + _LAST_LINES:
        return list(lines)
    return [*lines[:_FIRST_LINES], "…", *lines[-_LAST_LINES:]]


async def _ended(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(_LAST_WAIT_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


def _environment(given: Mapping[str, str], store: Store) -> dict[str, str]:
    """What uv and all that it starts see of a process's environment variables."""
    passed = {
        name: value
        for name, value in given.items()
        if value and _PASSED_ON.match(name) and name not in _OURS
    }
    return {
        "UV_CACHE_DIR": str(store.cache),
        **passed,
        "GIT_TERMINAL_PROMPT": "0",
        "UV_NO_PROGRESS": "1",
    }


def _disk(error: OSError) -> BuildFailed:
    why = shown(error.strerror or type(error).__name__)
    return BuildFailed("disk", f"Its environment can't be written: {why}.")
