"""Where the benchmarks keep things; all but the documentation is below `.bench`, out of git."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

BENCH = ROOT / ".bench"
VENVS = BENCH / "venvs"
RUNS = BENCH / "runs"
RESULTS = BENCH / "results"
DEMO_CACHE = BENCH / "demo-models"

REQUIREMENTS = ROOT / "benchmarks" / "requirements"
SERVERS = ROOT / "benchmarks" / "servers"

PAGE = ROOT / "docs" / "benchmarks.md"
CHART = ROOT / "docs" / "benchmarks.png"
