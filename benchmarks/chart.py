"""The chart of a run: requests a second by callers, one line for each contender."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.measuring import Measured
from benchmarks.report import OURS

mpl.use("Agg")

_WIDTH, _HEIGHT, _DPI = 9.0, 5.0, 110
_OURS_COLOUR = "#c0392b"
_COLOURS = ["#1f77b4", "#e69f00", "#2ca02c", "#17becf", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f"]


def draw(measured: Sequence[Measured], path: Path, *, caption: str) -> None:
    """Write a PNG. The throughput's axis is logarithmic: contenders differ by a hundred times."""
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(color=_COLOURS)
    levels = sorted(measured[0].levels)
    places = range(len(levels))
    for each in measured:
        axes.plot(places, [each.levels[level].per_s for level in levels], **_style(each))
    axes.set_xticks(list(places), [str(level) for level in levels])
    axes.set_yscale("log")
    axes.set_xlabel("callers")
    axes.set_ylabel("requests/s (logarithmic)")
    axes.set_title("One row of JSON, a scikit-learn model of 4 columns")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small", frameon=False)
    figure.supxlabel(caption, fontsize="x-small", color="grey", x=0.01, ha="left")
    figure.savefig(path)


def _style(each: Measured) -> dict[str, Any]:
    if each.name == OURS:
        return {"label": each.title, "marker": "o", "color": _OURS_COLOUR, "linewidth": 3}
    if not each.predicts:
        return {"label": each.title, "marker": ".", "linestyle": ":"}
    return {"label": each.title, "marker": "."}
