"""Processes of a flavor's model, started by a given method, whose answers are compared with those
of a fresh interpreter."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from deployments.model_process.messages import Call, packed_call, unpacked_outcome
from deployments.model_replica.processes import Processes
from deployments.model_replica.start_methods import StartMethod
from deployments.model_replica.version_process import VersionId, VersionProcess
from tests.support import flavor_models, flavor_probe
from tests.support.flavor_models import INPUT
from tests.support.processes_of import children_of, command_of

ANSWER_S = 120.0
"""Who takes longer for an answer counts as hung."""


class WrongAnswer(Exception):
    """A process answered something else than a fresh interpreter."""


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A flavor's model in a folder, what it is asked, and what a fresh interpreter answers."""

    folder: Path
    asked: Any
    answer: Any

    def call(self, times: int = 1) -> bytes:
        """The input, so many times over."""
        frame: Any
        if isinstance(self.asked, dict):
            columns = tuple(_column(values * times) for values in self.asked.values())
            frame = ("table", tuple(self.asked), columns)
        else:
            frame = ("tensor", (), (np.array(self.asked * times, "f4"),))
        return packed_call(Call(frame, {}, time.monotonic() + ANSWER_S, ANSWER_S))

    def compare(self, answer: list[list[Any]]) -> None:
        """Raises WrongAnswer for one to `call` that begins with anything else than `answer`."""
        for ours, theirs in zip(answer, self.answer, strict=True):
            begin = ours[: len(theirs)]
            if isinstance(theirs[0], float):
                if not np.allclose(begin, theirs, rtol=1e-5, atol=1e-6):
                    raise WrongAnswer(f"{begin} instead of {theirs}")
            elif [str(each) for each in begin] != [str(each) for each in theirs]:
                raise WrongAnswer(f"{begin} instead of {theirs}")


def run_in(interpreter: str, *arguments: str) -> str:
    """What `flavor_models` prints in an interpreter."""
    command = [interpreter, str(flavor_models.__file__), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def saved_model(
    flavor: str, folder: Path, interpreter: str, *, answers: str = "answer", at_once: bool = False
) -> SavedModel:
    """Have the interpreter save the flavor's model, unless it is there, and another one of it
    answer, by column or as `predictions`; `at_once` it is the same one, which takes half as
    long."""
    if at_once:
        printed = run_in(interpreter, "save", flavor, str(folder), answers).splitlines()
    else:
        if not (folder / INPUT).exists():
            run_in(interpreter, "save", flavor, str(folder))
        printed = run_in(interpreter, answers, str(folder)).splitlines()
    asked = json.loads((folder / INPUT).read_text())
    # H2O has a last word after that.
    answer = json.loads(next(line for line in reversed(printed) if line.startswith(("[", "{"))))
    return SavedModel(folder=folder, asked=asked, answer=answer)


def with_probe(model: SavedModel, folder: Path) -> SavedModel:
    """A copy of the model that can be asked about its own process (`flavor_probe`)."""
    if not folder.exists():
        shutil.copytree(model.folder, folder)
        document = yaml.safe_load((folder / "MLmodel").read_text())
        flavor = document["flavors"]["python_function"]
        (folder / flavor_probe.LOADER_FILE).write_text(flavor["loader_module"])
        flavor.update(loader_module="flavor_probe", code="code")
        document.pop("signature", None)
        (folder / "MLmodel").write_text(yaml.safe_dump(document))
        (folder / "code").mkdir(exist_ok=True)
        shutil.copy(str(flavor_probe.__file__), folder / "code")
    return SavedModel(folder=folder, asked=model.asked, answer=model.answer)


@dataclass(frozen=True, kw_only=True)
class Started:
    """A process, and how long it took to its first answer since it was asked for."""

    process: VersionProcess
    pid: int
    first_answer_s: float = 0.0

    @property
    def was_forked(self) -> bool:
        """Whether it is a fork of its template, which has then but one thread of Python's."""
        return " template " in command_of(self.pid)

    async def asked(self, call: bytes) -> list[list[Any]]:
        """A call's answer, by column."""
        return await _asked(self.process, call)

    async def probed(self, *probe: str) -> Any:
        """What the probe of that name finds out, with its arguments."""
        frame = ("table", (flavor_probe.PROBE,), (list(probe),))
        call = packed_call(Call(frame, {}, time.monotonic() + ANSWER_S, ANSWER_S))
        ((told,),) = await _asked(self.process, call)
        return json.loads(told)

    async def end(self) -> None:
        """Have it end as an evicted version's process does."""
        self.process.finish()
        await self.process.wait_for_end(ANSWER_S)


class Starter:
    """Starts processes by one method, from one template."""

    def __init__(self, processes: Processes, method: StartMethod, template: int) -> None:
        self._processes = processes
        self._method = method
        self.template = template

    async def start(self, model: SavedModel) -> Started:
        """Start a process and have it answer; raises WrongAnswer, and TimeoutError where it
        hangs."""
        began = time.perf_counter()
        started = await self.load(model)
        model.compare(await _asked(started.process, model.call()))
        return replace(started, first_answer_s=time.perf_counter() - began)

    async def load(self, model: SavedModel) -> Started:
        """Start a process; raises TimeoutError where it hangs."""
        registry = f"sqlite:///{model.folder}/traces.db"
        job = {
            "kind": "serve",
            "folder": str(model.folder),
            "tracking_uri": registry,
            "registry_uri": registry,
        }
        version = VersionId(model="m", number=1, fingerprint="f")
        before = set(children_of(self.template))
        process = VersionProcess(version, at_end=lambda _: None, at_lack=lambda *_: None)
        async with asyncio.timeout(ANSWER_S):
            await process.load(self._processes, self._method, job)
        (pid,) = set(children_of(self.template)) - before
        return Started(process=process, pid=pid)


@asynccontextmanager
async def starting(method: StartMethod, interpreter: str) -> AsyncIterator[Starter]:
    """A starter whose template has its imports done; its processes end with it."""
    processes = Processes(interpreter)
    try:
        await processes.prepare(method)
        (template,) = processes.template_pids()
        yield Starter(processes, method, template)
    finally:
        await processes.close(timeout_s=10.0)


async def _asked(process: VersionProcess, call: bytes) -> list[list[Any]]:
    async with asyncio.timeout(ANSWER_S):
        outcome = unpacked_outcome(await process.call(call))
    if outcome.kind != "ok":
        raise WrongAnswer(outcome.kind)
    kind, *rest = outcome.value
    if kind == "columns":
        return [np.asarray(column).tolist() for column in rest[1]]
    rows = np.asarray(rest[0])
    return [rows.tolist()] if rows.ndim == 1 else list(rows.T.tolist())


def _column(values: list[Any]) -> Any:
    return values if isinstance(values[0], str) else np.array(values)
