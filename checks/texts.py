"""Every text of the program that a person may read, in one list: of errors, log lines, the command
line, settings, options and metrics.

`python -m checks.texts` prints it, to be read from top to bottom; a test holds it to a few rules.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("gateway", "deployments", "registry_sync")
_LEVELS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
_SAYING = frozenset({"print", "say", "echo", "secho"})
_DESCRIBED = frozenset({"Field", "Option", "Argument", "Family"})
_DESCRIPTIONS = frozenset({"description", "help"})
_UNKNOWN = "{…}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text, what it is for (`raise`, `log`, `say` or `help`), by whom, and where."""

    kind: str
    by: str
    words: str
    where: str


def texts() -> Iterator[Text]:
    """All that have two words at least. What is put in at run time is `{…}`."""
    for package in _PACKAGES:
        for path in sorted((_ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                for kind, by, said in _said(node):
                    words = _words(said)
                    if words is not None and " " in words:
                        where = f"{path.relative_to(_ROOT)}:{said.lineno}"
                        yield Text(kind=kind, by=by, words=words, where=where)


def _said(node: ast.AST) -> Iterator[tuple[str, str, ast.expr]]:
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        for each in (*node.exc.args, *(named.value for named in node.exc.keywords)):
            yield "raise", _name(node.exc.func), each
    if not isinstance(node, ast.Call):
        return
    name = _name(node.func)
    if name in _LEVELS and isinstance(node.func, ast.Attribute) and node.args:
        yield "log", name, node.args[0]
    elif name in _SAYING:
        for each in node.args:
            yield "say", name, each
    elif name in _DESCRIBED:
        for described in node.keywords:
            if described.arg in _DESCRIPTIONS:
                yield "help", name, described.value


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _words(node: ast.expr) -> str | None:
    """A constant, an f-string, or such added together; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(_words(part) or _UNKNOWN for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = (_words(node.left), _words(node.right))
        return None if parts == (None, None) else "".join(part or _UNKNOWN for part in parts)
    return None


if __name__ == "__main__":
    for text in texts():
        print(f"{text.kind:6}{text.where}\n      {text.words}")
