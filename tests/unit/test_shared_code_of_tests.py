"""`tests.support` is what tests, benchmarks and checks share; nothing else of them is shared."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("tests", "benchmarks", "checks")
SHARED = "tests.support"
TESTED = {"tests.unit.benchmarks": "benchmarks", "tests.unit.checks": "checks"}
"""Suites that test a room, and the room."""

SOURCES = [
    path
    for folder in (*ROOMS, "gateway", "registry_sync", "deployments", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def imported_by(source: str) -> Iterator[str]:
    """The full names of the modules, or of what is in them, that a source imports anywhere."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str | None:
    """The room of a module: a suite of the tests, the benchmarks, the checks; None elsewhere."""
    parts = module.split(".")
    if parts[0] not in ROOMS:
        return None
    return ".".join(parts[:2]) if parts[0] == "tests" else parts[0]


def may_import(importer: str, imported: str) -> bool:
    """Whether a module may import another one, as far as this rule is concerned."""
    room, other = room_of(importer), room_of(imported)
    if other is None or other == room:
        return True
    tested = any(importer.startswith(f"{suite}.") and other == TESTED[suite] for suite in TESTED)
    return tested or (other == SHARED and room is not None)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_only_the_shared_room_is_shared() -> None:
    """A suite imports itself and `tests.support`; so do benchmarks and checks; the product none."""
    found = {
        (module_of(path), name)
        for path in SOURCES
        for name in imported_by(path.read_text(encoding="utf-8"))
        if not may_import(module_of(path), name)
    }
    assert found == set()


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("tests.integration.test_access", "from benchmarks.work import register_model"),
        ("tests.integration.test_access", "def f():\n    import benchmarks.work"),
        ("tests.unit.test_docs", "from checks import dependencies"),
        ("tests.unit.test_docs", "from tests import integration"),
        ("tests.support.harm", "from benchmarks.memory import memory_of"),
        ("tests.support.harm", "from tests.chaos.__main__ import MODELS"),
        ("tests.unit.benchmarks.test_load", "from checks.screenshots import main"),
        ("benchmarks.work", "from tests.fuzz.conftest import SEED"),
        ("checks.screenshots", "import benchmarks"),
        ("gateway.errors", "from tests.support.processes import poll"),
    ],
)
def test_an_import_of_another_room_is_found(importer: str, source: str) -> None:
    """Also inside a function."""
    assert [name for name in imported_by(source) if may_import(importer, name)] == []
    assert list(imported_by(source))


def test_what_one_process_has_compiled_no_other_compiles() -> None:
    """Whatever the variable says that images of Python set: uv leaves byte code to who imports."""
    assert not sys.dont_write_bytecode
    assert "PYTHONDONTWRITEBYTECODE" not in os.environ
