"""Where an exception of any class stops: the list, and that there is no other place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("gateway", "registry_sync", "deployments")

# Each with whose exceptions they are: nobody can name those.
BOUNDARIES = {
    "gateway/attempt.py: Attempt.__exit__": "background work that nobody waits for",
    "gateway/http/boundary.py: Boundary.__call__": "whatever an HTTP request ends with",
    "gateway/http/problems.py: problem_of_any": "an error that can't even be told",
    "gateway/http/predict/direct/predictions.py: DirectPredictions.begin": "a connection's turn",
    "gateway/http/predict/direct/predictions.py: DirectPredictions._begin": "one of many",
    "gateway/http/predict/direct/predictions.py: DirectPredictions._answer_together": "as _done",
    "gateway/small_predictions.py: SmallPredictions.end_together": "one of many, found by itself",
    "gateway/http/predict/direct/answer.py: DirectAnswer.begin_alone": "the ordinary way has it",
    "gateway/http/predict/direct/answer.py: DirectAnswer._done": "what a batch ends with",
    "gateway/batching/batcher.py: _Lane._answer": "a call for many, of whom one may be the cause",
    "gateway/batching/batcher.py: _Lane._deliver": "a call for many, who all wait",
    "gateway/shadow/asker.py: Asker._ask_together": "a call for many, as those of the batcher",
    "gateway/capture/journal.py: CaptureJournal._write": "fsspec's stores",
    "gateway/contract/signature.py: _read": "MLflow's reading of what anybody registered",
    "registry_sync/example_signature.py: inferred_signature": "MLflow's inference, as that",
    "registry_sync/source.py: MlflowRegistry._answers": "MLflow's registry stores",
    "registry_sync/version_files.py: _told": "MLflow's artifact stores",
    "deployments/logs.py: LineHandler.emit": "what is logged, and says itself how",
    "deployments/serve/handles.py: _AsOurs.__exit__": "Ray, and what it calls",
    "deployments/model_process/attempt.py: attempted": "a model's own code, and its packages",
}

BROAD = {"Exception", "BaseException"}


def _where(node: ast.AST, above: tuple[str, ...] = ()) -> Iterator[tuple[ast.AST, str]]:
    """All nodes below one, with the dotted name of what they are in."""
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        names = (*above, child.name) if named else above  # type: ignore[attr-defined]
        yield child, ".".join(names)
        yield from _where(child, names)


def _is_broad(kind: ast.expr | None) -> bool:
    if isinstance(kind, ast.Tuple):
        return any(map(_is_broad, kind.elts))
    return kind is None or ast.unparse(kind).rpartition(".")[2] in BROAD


def _passes_on(handler: ast.ExceptHandler) -> bool:
    """Whether it ends by raising again what it has caught, in each case."""
    last = handler.body[-1]
    leaves = (ast.Return, ast.Break, ast.Continue)
    return (
        isinstance(last, ast.Raise)
        and last.exc is None
        and not any(isinstance(node, leaves) for node in ast.walk(handler))
    )


def _stops(node: ast.AST) -> bool:
    """Whether an exception of any class may go no further here, or go on as another one."""
    if isinstance(node, ast.ExceptHandler):
        return _is_broad(node.type) and not _passes_on(node)
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        return any(map(_is_broad, node.args))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return node.name in {"__exit__", "__aexit__"} and any(map(_names_broad, node.body))
    return False


def _names_broad(statement: ast.stmt) -> bool:
    return any(isinstance(each, ast.Name) and each.id in BROAD for each in ast.walk(statement))


def _found(source: str) -> set[str]:
    return {where for node, where in _where(ast.parse(source)) if _stops(node)}


def test_exceptions_of_any_class_stop_at_the_boundaries_of_the_list_alone() -> None:
    """What catches all exceptions and doesn't pass them on is a boundary of the list, and all of
    that are there."""
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    found = {
        f"{file.relative_to(ROOT)}: {where}"
        for file in files
        for where in _found(file.read_text(encoding="utf-8"))
    }
    assert found == set(BOUNDARIES)


@pytest.mark.parametrize(
    "body",
    [
        "try: work()\n    except: pass",
        "try: work()\n    except Exception: log()",
        "try: work()\n    except (OSError, builtins.BaseException) as e: raise Other from e",
        "try: work()\n    except Exception:\n        if odd: return 1\n        raise",
        "with contextlib.suppress(Exception): work()",
    ],
)
def test_what_catches_all_is_found(body: str) -> None:
    """Each form of catching all exceptions counts, unless what was caught is raised again."""
    assert _found(f"class A:\n  def f():\n    {body}") == {"A.f"}


def test_what_passes_on_or_names_its_exceptions_is_none() -> None:
    """Cleaning up and raising again stops nothing, and neither does a named class."""
    passing = "try: work()\n    except BaseException:\n        clean()\n        raise"
    named = "try: work()\n    except (OSError, ValueError): pass"
    leaving = "with suppress(OSError): work()"
    assert not _found("".join(f"def f():\n    {body}\n" for body in (passing, named, leaving)))
