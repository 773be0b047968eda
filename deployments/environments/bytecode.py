"""Byte code of environments that share a source file by a hard link: it is compiled once.

Compiling is most of what an environment costs: 4,000 files for MLflow and pandas. Blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

# Packages' own tests are half of some, and nobody imports them.
_NOT_COMPILED = frozenset({"__pycache__", "tests"})


def site_packages(environment: Path) -> Path:
    """Where the packages of an environment are."""
    found = sorted(environment.glob("lib/python3.*/site-packages"))
    return found[0] if found else environment / "lib"


def share_bytecode(into: Path, others: Sequence[Path]) -> list[Path]:
    """Link what other environments of the same Python have compiled of the very same files; the
    source files that are left to be compiled. Size and time alone don't make two files the same,
    though Python is content with them."""
    target = site_packages(into)
    sources = [site_packages(other) for other in others]
    left: list[Path] = []
    for folder, names in _source_files(target):
        relative = folder.relative_to(target)
        for source in sources:
            names -= _link_folder(source / relative, folder, names)
            if not names:
                break
        left += [folder / name for name in sorted(names)]
    return left


def _source_files(folder: Path) -> Iterator[tuple[Path, set[str]]]:
    for where, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if each not in _NOT_COMPILED]
        sources = {name for name in names if name.endswith(".py")}
        if sources:
            yield Path(where), sources


def _link_folder(source: Path, target: Path, names: set[str]) -> set[str]:
    """The source files of one folder whose byte code was linked from the other one."""
    try:
        compiled = {each.partition(".")[0]: each for each in os.listdir(source / "__pycache__")}
        (target / "__pycache__").mkdir(exist_ok=True)
    except OSError:
        return set()
    linked: set[str] = set()
    for name in names:
        found = compiled.get(name.removesuffix(".py"))
        with suppress(OSError):
            if found and os.path.samestat(os.lstat(source / name), os.lstat(target / name)):
                os.link(source / "__pycache__" / found, target / "__pycache__" / found)
                linked.add(name)
    return linked
