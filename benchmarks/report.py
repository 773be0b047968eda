"""Tables for the terminal and for the documentation: what was measured, and the ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figures
from benchmarks.measuring import ListFigures, Measured
from benchmarks.scenarios.finding import Finding

OURS = "modelmux"
FLOOR = "floor"
RATIO_AT = 64

_MET = {True: "reached", False: "missed", None: ""}

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A table: a title, headings, rows of text."""

    title: str
    headings: Sequence[str]
    rows: Rows
    aligned_right: bool = True

    def markdown(self) -> str:
        """As a table of a page."""
        rule = "---:" if self.aligned_right else "---"
        lines = [self.headings, ["---", *(rule for _ in self.headings[1:])], *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def show(self, console: Console) -> None:
        """On a terminal with lines and colours; plain where the output is no terminal."""
        if not console.is_terminal:
            console.print(f"\n{self.title}\n{_aligned([self.headings, *self.rows])}", markup=False)
            return
        made = Table(title=self.title, title_justify="left")
        for number, heading in enumerate(self.headings):
            made.add_column(heading, justify="right" if number else "left")
        for row in self.rows:
            made.add_row(*row)
        console.print(made)


def sheets(measured: Sequence[Measured], found: Sequence[Finding]) -> list[Sheet]:
    """All that can be said of what was measured; ratios only where modelmux was."""
    made = []
    if measured:
        made += [throughput(measured), latency(measured), processor(measured)]
    if any(each.name == OURS for each in measured):
        made.append(ratios(measured))
    if any(each.lists for each in measured):
        made.append(lists(measured))
    if found:
        made.append(findings(found))
    return made


def throughput(measured: Sequence[Measured]) -> Sheet:
    """Requests a second by contender and number of callers."""
    levels = _levels(measured)
    return Sheet(
        title="One row, requests/s",
        headings=["callers", *map(str, levels)],
        rows=[[each.title, *(_per_s(each.levels[level]) for level in levels)] for each in measured],
    )


def latency(measured: Sequence[Measured]) -> Sheet:
    """Median and p99 by contender and number of callers."""
    levels = _levels(measured)
    return Sheet(
        title="One row, latency in ms: median / p99",
        headings=["callers", *map(str, levels)],
        rows=[
            [
                each.title,
                *(
                    f"{each.levels[level].p50_ms:.1f} / {each.levels[level].p99_ms:.1f}"
                    for level in levels
                ),
            ]
            for each in measured
        ],
    )


def processor(measured: Sequence[Measured]) -> Sheet:
    """Processor seconds of the server's processes: on shared cores that is the figure that
    travels."""
    levels = _levels(measured)
    return Sheet(
        title="One row, processor seconds of the server per 1,000 requests",
        headings=["callers", *map(str, levels)],
        rows=[
            [each.title, *(_cost(each.levels[level].cpu_s_per_1000) for level in levels)]
            for each in measured
        ],
    )


def ratios(measured: Sequence[Measured]) -> Sheet:
    """By how much modelmux answers more requests than each of the others."""
    levels = _levels(measured)
    ours = named(measured, OURS)
    return Sheet(
        title="One row, modelmux's requests/s as a multiple of",
        headings=["callers", *map(str, levels)],
        rows=[
            [each.title, *(f"{ours.levels[n].per_s / each.levels[n].per_s:.2f}" for n in levels)]
            for each in measured
            if each is not ours
        ],
    )


def lists(measured: Sequence[Measured]) -> Sheet:
    """Rows a second of long lists, in every form that was tried, beside ours in that form, or as
    records where that is none of ours."""
    ours = next((each.lists for each in measured if each.name == OURS), ())
    return Sheet(
        title="One list of 10,000 rows, one caller",
        headings=["contender", "form", "rows/s", "modelmux is", "growth of the ingress / body"],
        rows=[
            [
                each.title,
                form.form,
                f"{form.rows_per_s:,.0f}",
                _beside(ours, form),
                "" if form.peak_bytes is None else f"{form.peak_bytes / form.body_bytes:.1f}",
            ]
            for each in measured
            for form in each.lists
        ],
    )


def _beside(ours: Sequence[ListFigures], form: ListFigures) -> str:
    if not ours:
        return ""
    mine = next((each for each in ours if each.form == form.form), ours[0])
    return f"{mine.rows_per_s / form.rows_per_s:.2f} × ({mine.form})"


def findings(found: Sequence[Finding]) -> Sheet:
    """The scenarios, beside their bars."""
    return Sheet(
        title="modelmux alone",
        headings=["what", "measured", "bar", ""],
        rows=[[each.what, each.measured, each.bar, _MET[each.met]] for each in found],
    )


def ratio_to_floor(measured: Sequence[Measured], callers: int = RATIO_AT) -> float:
    """modelmux's requests/s over those of the floor."""
    ours, floor = named(measured, OURS), named(measured, FLOOR)
    return ours.levels[callers].per_s / floor.levels[callers].per_s


def named(measured: Sequence[Measured], name: str) -> Measured:
    """The one of that name; raises LookupError."""
    for each in measured:
        if each.name == name:
            return each
    raise LookupError(f"{name} was not measured")


def _per_s(figures: Figures) -> str:
    return f"{figures.per_s:,.0f}" + (f" ({figures.failed} failed)" if figures.failed else "")


def _cost(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.3f}"


def _levels(measured: Sequence[Measured]) -> list[int]:
    return sorted(measured[0].levels)


def _aligned(rows: Rows) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
