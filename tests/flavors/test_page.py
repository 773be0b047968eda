"""The page about flavors says what the suite tries and what the tables in the code say."""

from __future__ import annotations

import re
from pathlib import Path

from deployments.model_replica.start_methods import start_method
from gateway.batching.compatibility import ROW_WISE_FLAVORS
from tests.flavors.recipes import FLAVORS

DOCS = Path(__file__).parents[2] / "docs"
_NAME = r"^\| `(?P<name>mlflow\.[^`]+)` .*"
_ROW = re.compile(_NAME + r"\| (?P<batched>[a-z ]+) \| (?P<start>\w+) \|$")


def _rows() -> dict[str, re.Match[str]]:
    lines = (DOCS / "13-flavors.md").read_text(encoding="utf-8").splitlines()
    return {row["name"]: row for row in map(_ROW.match, lines) if row}


def test_the_table_has_what_the_suite_tries() -> None:
    """Each once, batched and started as the code does it."""
    rows = _rows()
    assert list(rows) == [flavor.name for flavor in FLAVORS]
    for flavor in FLAVORS:
        said = rows[flavor.name]
        assert said["start"] == ("forked" if start_method(flavor.loader).forks else "spawned")
        if said["batched"] != "row by row":
            assert said["batched"] == ("yes" if flavor.loader in ROW_WISE_FLAVORS else "no")


def test_every_flavor_that_the_table_of_batching_names_is_told() -> None:
    """As a row, or among those that the suite has not, with the reason."""
    text = (DOCS / "5-performance.md").read_text(encoding="utf-8")
    table = text.partition("### What is batched by default")[2].partition("## Transport")[0]
    named = set(re.findall(r"`(mlflow\.[a-z0-9_.]+)`", table))
    page = (DOCS / "13-flavors.md").read_text(encoding="utf-8")
    assert named <= set(re.findall(r"`(mlflow\.[a-z0-9_.]+)[^`]*`", page))
