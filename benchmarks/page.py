"""The documentation's page of the last full run."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import chart, report
from benchmarks.measuring import Effort, Measured
from benchmarks.paths import CHART, PAGE
from benchmarks.report import Sheet
from benchmarks.results import Results
from benchmarks.rounds import PATIENCE

_HEAD = """# Benchmarks

How fast modelmux is beside what it replaces, and beside the least that its way of working costs.
`make bench` measures this on your machine (about 20 minutes, and some minutes more the first time,
for the contenders' own environments); `make bench-quick` measures modelmux and its floor in under
three. Absolute figures belong to the machine; the ratios are what to look at.

Every contender serves the same scikit-learn model (a decision tree over 4 columns, logged with a
signature) by the same call, `mlflow.pyfunc` `predict` on a DataFrame, and every answer is compared
with what the model itself says. Callers keep their connection and ask again as soon as they have
the answer. The load runs on the same cores: wrk where it is there, whose answers one of our own
callers looks at beside it, else all callers are our own. Contenders run one after the other.
"""

_SETTINGS = {
    "mlflow": "as its documentation starts it, in the environment as it is",
    "mlserver": (
        "its MLflow runtime; batch size and waiting time are what was fastest "
        "here; lists as columns (its own protocol) and in MLflow's split form"
    ),
    "granian": "RSGI on uvloop, orjson; whatever has come together is one call; no checks",
    "mosec": "one worker, batch 64, wait 1 ms, orjson in and out; no types, versions or registry",
    "litserve": "one worker; batch size and waiting time are what was fastest here",
    "bentoml": "one worker; lists go past the batching",
    "notebook": "FastAPI in a deployment, nothing set: Python proxy, one call per request",
    "fastapi": "one process, one call per request",
    "fastapi-constant": "the same without a model",
    "floor": (
        "a bare ASGI function with the environment variables of Ray that `modelmux up` sets; reads "
        "the body and answers as many bytes as modelmux"
    ),
    "floor-fastapi": "a FastAPI handler that reads the body, with Ray's variables alone",
    "floor-tuned": "with `deployments/ingress/serve_middleware.py`: no watching for lost callers",
    "modelmux": "`modelmux up`, nothing set",
}


def write_page(results: Results) -> None:
    """The page and its chart, in `docs`."""
    chart.draw(results.measured, CHART, caption=_caption(results))
    PAGE.write_text(_page(results), encoding="utf-8")


def _page(results: Results) -> str:
    measured = results.measured
    sheets = [
        report.throughput(measured),
        report.ratios(measured),
        report.latency(measured),
        report.processor(measured),
        report.lists(measured),
    ]
    parts = [
        _HEAD,
        f"![Requests a second by number of callers]({CHART.name})\n",
        _conditions(results),
        *(f"## {sheet.title}\n\n{sheet.markdown()}\n" for sheet in sheets),
        *_scenarios(results),
        f"## Who is compared\n\n{_who(measured).markdown()}\n",
        *(f"Left out: {name}: {reason}\n" for name, reason in results.left_out.items()),
    ]
    return "\n".join(parts)


def _scenarios(results: Results) -> Sequence[str]:
    if not results.findings:
        return []
    sheet = report.findings(results.findings)
    return [f"## {sheet.title}\n\n{sheet.markdown()}\n"]


def _who(measured: Sequence[Measured]) -> Sheet:
    return Sheet(
        title="Who is compared",
        headings=["contender", "how it is set", "versions"],
        rows=[
            [
                each.title,
                _SETTINGS[each.name],
                ", ".join(f"{name} {number}" for name, number in each.versions.items()),
            ]
            for each in measured
        ],
        aligned_right=False,
    )


def _conditions(results: Results) -> str:
    effort, found = results.effort, results.machine
    return (
        f"Measured on {results.date} on {found['cores']} cores ({found['processor']}, "
        f"{found['memory']}), Python {found['python']}: {_rounds(effort)}.\n"
    )


def _rounds(effort: Effort) -> str:
    return (
        f"medians of {effort.rounds} rounds of {effort.round_s:g} s after a warm-up of "
        f"{effort.warm_up_s:g} s, for each number of callers; rounds of {PATIENCE} times that "
        "length for who answers nobody within one"
    )


def _caption(results: Results) -> str:
    found = results.machine
    return f"{results.date} · {found['cores']} cores, {found['processor']} · dotted: no model"
