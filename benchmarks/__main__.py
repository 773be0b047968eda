"""`python -m benchmarks`: measure, print tables, keep the raw figures, write the page.

Exit codes: 0 all measured, 1 a contender or scenario could not be, or the ratio to the floor is
below what was asked for.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks import report
from benchmarks.contenders import CONTENDERS, QUICK
from benchmarks.measuring import Effort, Measured, measure
from benchmarks.paths import CHART, PAGE, RUNS
from benchmarks.results import Results, keep
from benchmarks.scenarios import SCENARIOS
from benchmarks.scenarios.finding import Finding
from benchmarks.work import prepare_work

_out = Console(highlight=False, soft_wrap=True)

_QUICK_EFFORT = Effort(warm_up_s=1.5, round_s=2.0, rounds=3)
_NAMES = [each.name for each in CONTENDERS] + [each.name for each in SCENARIOS]


def main(
    quick: Annotated[bool, typer.Option(help="modelmux and its floor, one row only.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Repeatable; of {', '.join(_NAMES)}.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Measured rounds.")] = None,
    duration: Annotated[float | None, typer.Option(min=0.5, help="Seconds of a round.")] = None,
    warm_up: Annotated[float | None, typer.Option(min=0.0, help="Seconds before them.")] = None,
    callers: Annotated[list[int] | None, typer.Option(min=1, help="Levels; repeatable.")] = None,
    at_least: Annotated[
        float | None, typer.Option(help="Exit with 1 below this ratio to the floor at 64 callers.")
    ] = None,
    write_docs: Annotated[bool, typer.Option(help="Write the documentation's page.")] = False,
) -> None:
    """Measure the contenders one after the other and then modelmux alone; print the ratios."""
    _stop_on_signals()
    if write_docs and (quick or only):
        raise typer.BadParameter("the documentation's page is of a whole run")
    names = _chosen(only, quick)
    effort = _effort(quick, rounds=rounds, round_s=duration, warm_up_s=warm_up, levels=callers)
    run = Run(RUNS / time.strftime("%Y%m%d-%H%M%S"))
    measured = run.contenders(names, effort, lists=not quick)
    findings = run.scenarios(names)
    results = Results(effort=effort, measured=measured, findings=findings, left_out=run.left_out)
    _show(results)
    _say(f"\nRaw figures: {keep(results)}")
    if write_docs:
        _write_docs(results)
    raise typer.Exit(_exit_code(results, at_least))


class Run:
    """One after the other; what can't be measured is said, and the rest goes on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.left_out: dict[str, str] = {}

    def contenders(self, names: Sequence[str], effort: Effort, *, lists: bool) -> list[Measured]:
        """Those of the contenders that are named."""
        chosen = [each for each in CONTENDERS if each.name in names]
        if not chosen:
            return []
        work = prepare_work(self._folder)
        found: list[Measured] = []
        for each in chosen:
            folder = self._folder / each.name
            one = partial(measure, each, work, effort, folder=folder, lists=lists, say=_say)
            found += self._attempt(each.name, partial(_alone, one))
        return found

    def scenarios(self, names: Sequence[str]) -> list[Finding]:
        """Those of the scenarios that are named."""
        found: list[Finding] = []
        for each in SCENARIOS:
            if each.name in names:
                _say(f"{each.name} …")
                found += self._attempt(each.name, partial(each.run, self._folder / each.name, _say))
        return found

    def _attempt(self, name: str, work: Callable[[], Sequence[Any]]) -> Sequence[Any]:
        try:
            return work()
        except Exception as error:  # noqa: BLE001  # one that breaks must not cost the others
            reason = str(error).strip().splitlines() or [""]
            self.left_out[name] = f"{type(error).__name__}: {reason[-1]} ({self._folder / name})"
            _say(f"  can't be measured: {self.left_out[name]}")
            return []


def _alone(measuring: Callable[[], Measured]) -> Sequence[Measured]:
    return [measuring()]


def _chosen(only: list[str] | None, quick: bool) -> Sequence[str]:
    if only is None:
        return QUICK if quick else _NAMES
    if unknown := sorted(set(only) - set(_NAMES)):
        raise typer.BadParameter(f"{', '.join(unknown)}: there are only {', '.join(_NAMES)}")
    return only


def _effort(quick: bool, **given: Any) -> Effort:
    effort = _QUICK_EFFORT if quick else Effort()
    fields = {name: getattr(effort, name) for name in ("levels", "warm_up_s", "round_s", "rounds")}
    return Effort(**fields | {name: value for name, value in given.items() if value})


def _stop_on_signals() -> None:
    """Have the first SIGINT or SIGTERM end everything that was started, and later ones wait."""

    def stop(number: int, _frame: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _show(results: Results) -> None:
    for sheet in report.sheets(results.measured, results.findings):
        sheet.show(_out)
    for name, reason in results.left_out.items():
        _say(f"Left out: {name}: {reason}")


def _write_docs(results: Results) -> None:
    from benchmarks.page import write_page  # matplotlib is slow to import

    write_page(results)
    _say(f"Written: {PAGE}, {CHART}")


def _exit_code(results: Results, at_least: float | None) -> int:
    if results.left_out:
        return 1
    if at_least is None:
        return 0
    ratio = report.ratio_to_floor(results.measured)
    _say(f"At {report.RATIO_AT} callers modelmux does {ratio:.2f} of its floor, of {at_least:g}.")
    return 0 if ratio >= at_least else 1


def _say(line: str) -> None:
    _out.print(line, markup=False)


if __name__ == "__main__":
    typer.run(main)
