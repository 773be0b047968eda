"""`python -m benchmarks`: measure, print tables, keep the raw figures."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks import report
from benchmarks.contenders import CONTENDERS, QUICK
from benchmarks.measuring import Effort, Measured, measure
from benchmarks.paths import RUNS
from benchmarks.work import Work, prepare_work

_out = Console(highlight=False, soft_wrap=True)

_QUICK_EFFORT = Effort(warm_up_s=1.5, round_s=2.0, rounds=3)


def main(
    quick: Annotated[bool, typer.Option(help="modelmux and its floor only.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="A contender by name; repeatable.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Measured rounds.")] = None,
    duration: Annotated[float | None, typer.Option(min=0.5, help="Seconds of a round.")] = None,
    warm_up: Annotated[float | None, typer.Option(min=0.0, help="Seconds before them.")] = None,
    callers: Annotated[list[int] | None, typer.Option(min=1, help="Levels; repeatable.")] = None,
    lists: Annotated[bool | None, typer.Option(help="Measure long lists too.")] = None,
    at_least: Annotated[
        float | None, typer.Option(help="Exit with 1 below this ratio to the floor at 64 callers.")
    ] = None,
) -> None:
    """Measure the contenders one after the other, and print the ratios."""
    stop_on_signals()
    effort = _effort(quick, rounds=rounds, round_s=duration, warm_up_s=warm_up, levels=callers)
    names = only or (QUICK if quick else [each.name for each in CONTENDERS])
    folder = RUNS / time.strftime("%Y%m%d-%H%M%S")
    work = prepare_work(folder)
    measured = _measure_all(
        names, work, effort, folder, lists=not quick if lists is None else lists
    )
    _show(measured)
    if at_least is not None and (ratio := report.ratio_to_floor(measured)) < at_least:
        _out.print(f"The ratio to the floor is {ratio:.2f}, below {at_least:g}.")
        raise typer.Exit(1)


def stop_on_signals() -> None:
    """Have the first SIGINT or SIGTERM end everything that was started, and later ones wait."""

    def stop(number: int, _frame: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _effort(quick: bool, **given: Any) -> Effort:
    effort = _QUICK_EFFORT if quick else Effort()
    fields = {name: getattr(effort, name) for name in ("levels", "warm_up_s", "round_s", "rounds")}
    return Effort(**fields | {name: value for name, value in given.items() if value is not None})


def _measure_all(
    names: list[str] | tuple[str, ...], work: Work, effort: Effort, folder: Path, *, lists: bool
) -> list[Measured]:
    def say(line: str) -> None:
        _out.print(line, markup=False)

    return [
        measure(each, work, effort, folder=folder / each.name, lists=lists, say=say)
        for each in CONTENDERS
        if each.name in names
    ]


def _show(measured: list[Measured]) -> None:
    sheets = [report.throughput(measured), report.latency(measured)]
    if any(each.name == report.OURS for each in measured):
        sheets.append(report.ratios(measured))
        if any(each.lists for each in measured):
            sheets.append(report.lists(measured))
    for sheet in sheets:
        sheet.show(_out)


if __name__ == "__main__":
    typer.run(main)
