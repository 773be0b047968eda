"""How a version's process starts, by flavor: as the table of `start_methods` says, and anew.

`python -m benchmarks.start_methods --interpreter PYTHON` saves a small model of each flavor whose
packages that interpreter has, starts processes for it in each way, compares their answers with a
fresh interpreter's, and prints the table of docs/5-performance.md, "Start of a process".
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console

from deployments.model_replica.start_methods import StartMethod, start_method
from tests.support.flavor_models import PACKAGES
from tests.support.flavor_processes import SavedModel, WrongAnswer, saved_model, starting

_WIDER = 2_000
"""How often the input is repeated for a call that is worth several threads."""

_ANEW = StartMethod((), False, "To compare with.")
_ROW = "| {:<19} | {:<8} | {:>7} | {:>7} | {:>24} | {:>8} |"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was seen of a way to start processes: the template's imports, its threads as the system
    counts them, and of each process the time to its first answer and what memory it shares with
    nobody after that."""

    imports_s: float
    threads: int
    first_answer_s: list[float]
    private_bytes: list[int]
    were_forked: bool


async def measure(method: StartMethod, model: SavedModel, interpreter: str, rounds: int) -> Figures:
    """Start processes one by one, and three that compute at once, while older ones have computed
    by all their threads; raises WrongAnswer, and TimeoutError where one hangs."""
    began = time.perf_counter()
    async with starting(method, interpreter) as starter:
        imports_s = time.perf_counter() - began
        threads = len(os.listdir(f"/proc/{starter.template}/task"))
        first = await starter.start(model)
        seen, private = [], []
        for _ in range(rounds):
            model.compare(await first.asked(model.call(_WIDER)))
            each = await starter.start(model)
            seen.append(each)
            private.append(_private_bytes(each.pid))
            model.compare(await each.asked(model.call(_WIDER)))
            were_forked = each.was_forked
            await each.end()
        together = [await starter.start(model) for _ in range(3)]
        for answer in await asyncio.gather(*(t.asked(model.call(_WIDER)) for t in together)):
            model.compare(answer)
    return Figures(
        imports_s=imports_s,
        threads=threads,
        first_answer_s=[each.first_answer_s for each in seen],
        private_bytes=private,
        were_forked=were_forked,
    )


def _private_bytes(process: int) -> int:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def _has(interpreter: str, package: str) -> bool:
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)"
    return subprocess.run([interpreter, "-c", code], check=False).returncode == 0


def _row(flavor: str, figures: Figures) -> str:
    spent_s = figures.first_answer_s
    return _ROW.format(
        flavor,
        "forked" if figures.were_forked else "anew",
        figures.threads,
        f"{figures.imports_s:.1f} s",
        f"{median(spent_s):.2f} s ({min(spent_s):.2f} to {max(spent_s):.2f})",
        f"{median(figures.private_bytes) / 1e6:.0f} MB",
    )


def main(
    interpreter: Annotated[str, typer.Option(help="A Python with MLflow.")] = sys.executable,
    only: Annotated[list[str] | None, typer.Option(help="A flavor; repeatable.")] = None,
    rounds: Annotated[int, typer.Option(help="Forks; a quarter as many anew.")] = 20,
    folder: Annotated[Path | None, typer.Option(help="Where the models are kept.")] = None,
) -> None:
    """Measure how processes of each flavor start, and print it as a table."""
    out = Console(highlight=False, soft_wrap=True)
    kept = folder or Path(tempfile.mkdtemp(prefix="modelmux-flavors-"))
    out.print(_ROW.format("flavor", "way", "threads", "imports", "first answer", "private"))
    for flavor in only or [each for each in PACKAGES if _has(interpreter, PACKAGES[each])]:
        model = saved_model(flavor, kept.absolute() / flavor, interpreter)
        for method in (start_method(flavor), _ANEW):
            few = rounds if method.forks else (rounds + 3) // 4
            try:
                figures = asyncio.run(measure(method, model, interpreter, few))
            except (WrongAnswer, TimeoutError) as error:
                out.print(f"| {flavor} | {method} | {type(error).__name__}: {error} |")
            else:
                out.print(_row(flavor, figures))


if __name__ == "__main__":
    typer.run(main)
