"""Tables of what was measured, and what is kept of it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import report, results
from benchmarks.chart import draw
from benchmarks.figures import Figures
from benchmarks.measuring import Effort, ListFigures, Measured
from benchmarks.results import Results
from benchmarks.scenarios.finding import Finding, at_least, at_most


def measured(name: str, per_s: float, *, failed: int = 0, rows_per_s: float = 1000.0) -> Measured:
    """A contender with the same figures at two levels."""
    figures = Figures(per_s=per_s, p50_ms=1.0, p99_ms=2.0, failed=failed, cpu_s_per_1000=0.5)
    return Measured(
        name=name,
        title=f"the {name}",
        predicts=name != "floor",
        versions={"ray": "2.0"},
        levels={1: figures, 64: figures},
        lists=(ListFigures(form="f", rows_per_s=rows_per_s, p50_ms=1.0, body_bytes=100),),
    )


BOTH = [measured("floor", 2000.0, rows_per_s=500.0), measured("modelmux", 1600.0)]


def test_the_ratio_to_the_floor_is_ours_over_the_floors() -> None:
    """0.8 is the bar."""
    assert report.ratio_to_floor(BOTH) == pytest.approx(0.8)


def test_ratios_leave_ourselves_out() -> None:
    """A ratio of one says nothing."""
    assert report.ratios(BOTH).rows == [["the floor", "0.80", "0.80"]]


def test_processor_time_is_shown_where_it_was_looked_at() -> None:
    """An empty cell is no zero."""
    unknown = replace(BOTH[0], levels={1: Figures(per_s=1.0, p50_ms=1.0, p99_ms=1.0)})
    assert report.processor([BOTH[1]]).rows == [["the modelmux", "0.500", "0.500"]]
    assert report.processor([unknown]).rows == [["the floor", ""]]


def test_failures_are_shown_beside_the_throughput() -> None:
    """Who fails quickly doesn't look fast."""
    assert report.throughput([measured("x", 5.0, failed=3)]).rows[0][1] == "5 (3 failed)"


def test_lists_are_compared_with_ours_in_the_same_form() -> None:
    """1,000 rows a second against 500; another form is compared with our first."""
    assert [row[3] for row in report.lists(BOTH).rows] == ["2.00 × (f)", "1.00 × (f)"]
    (figures,) = BOTH[0].lists
    other = replace(BOTH[0], lists=(replace(figures, form="g"), figures))
    two = replace(BOTH[1], lists=(*BOTH[1].lists, replace(figures, form="g", rows_per_s=4000.0)))
    assert [row[3] for row in report.lists([other, two]).rows][:2] == ["8.00 × (g)", "2.00 × (f)"]


def test_without_modelmux_there_are_no_ratios() -> None:
    """A contender can be measured alone."""
    titles = [sheet.title for sheet in report.sheets([BOTH[0]], [])]
    assert len(titles) == 4
    assert not any("multiple" in title for title in titles)


def test_a_missing_contender_is_an_error() -> None:
    """Rather than a ratio to something else."""
    with pytest.raises(LookupError, match="floor"):
        report.ratio_to_floor([BOTH[1]])


def test_output_that_is_no_terminal_is_plain() -> None:
    """No lines, no colours, columns aligned."""
    output = io.StringIO()
    report.throughput(BOTH).show(Console(file=output))
    assert "the modelmux  1,600  1,600" in output.getvalue()


def test_markdown_has_a_rule_and_all_rows() -> None:
    """As the documentation's tables are written."""
    lines = report.throughput(BOTH).markdown().splitlines()
    assert lines[:2] == ["| callers | 1 | 64 |", "| --- | ---: | ---: |"]
    assert len(lines) == 4


def test_kept_results_are_read_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page can be written again from the raw figures."""
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    kept = Results(
        effort=Effort(levels=[1, 64]),
        measured=BOTH,
        findings=[Finding(what="a", measured="b", bar="c", met=True)],
        left_out={"x": "not here"},
    )
    assert results.read(results.keep(kept)) == kept


def test_bars_are_reached_or_missed() -> None:
    """On the right side of the bar, and on it."""
    assert at_most("a", 1.5, 1.5, "").met
    assert not at_most("a", 1.6, 1.5, "").met
    assert at_least("a", 3.0, 3.0, "").met
    assert not at_least("a", 2.9, 3.0, "").met


def test_the_chart_is_a_png(tmp_path: Path) -> None:
    """Drawn without a display."""
    path = tmp_path / "chart.png"
    draw(BOTH, path, caption="made up")
    assert path.read_bytes().startswith(b"\x89PNG")
