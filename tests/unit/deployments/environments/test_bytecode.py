"""Byte code that environments share."""

from __future__ import annotations

import os
import py_compile
from pathlib import Path

from deployments.environments.bytecode import share_bytecode, site_packages


def environment(folder: Path, **sources: str) -> Path:
    packages = folder / "lib" / "python3.11" / "site-packages"
    for name, text in sources.items():
        path = packages / name.replace("__", "/")
        path = path.with_name(path.name + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def link(name: str, source: Path, target: Path) -> None:
    there = site_packages(target) / name
    there.parent.mkdir(parents=True, exist_ok=True)
    os.link(site_packages(source) / name, there)


def test_byte_code_of_the_very_same_file_is_linked(tmp_path: Path) -> None:
    """Only what is another file, or wasn't compiled there, is left to be compiled."""
    one = environment(tmp_path / "one", a__same="x = 1", a__late="x = 2", a__other="x = 3")
    two = environment(tmp_path / "two", a__other="x = 4", new="x = 5")
    for name in ("same", "other"):
        py_compile.compile(str(site_packages(one) / "a" / f"{name}.py"))
    for name in ("a/same.py", "a/late.py"):
        link(name, one, two)
    # As two files of one archive are: of one size and one time.
    for each in (one, two):
        os.utime(site_packages(each) / "a" / "other.py", (1000, 1000))
    left = {str(path.relative_to(site_packages(two))) for path in share_bytecode(two, [one])}
    assert left == {"a/late.py", "a/other.py", "new.py"}
    ours, theirs = (next(site_packages(each).glob("a/__pycache__/same.*")) for each in (two, one))
    assert ours.samefile(theirs)


def test_tests_of_packages_arent_compiled(tmp_path: Path) -> None:
    """They are half of some packages, and no model imports them."""
    one = environment(tmp_path / "one", a__tests__test_x="x = 1", a__b="x = 2")
    assert [path.name for path in share_bytecode(one, [])] == ["b.py"]
