"""Finding Pythons, over programs that only say what they are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from deployments.environments.interpreters import Interpreter, Interpreters

OTHER = (3, 7) if sys.version_info[:2] != (3, 7) else (3, 6)


def program(path: Path, body: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def python(path: Path, version: str, name: str = "cpython", free_threaded: int = 0) -> str:
    return program(path, f"echo {name} {version.replace('.', ' ')} {free_threaded}")


def uv_with(folder: Path, *pythons: tuple[str, str]) -> str:
    """A uv that has these, and another 3.7 once it was told to download it."""
    listed = json.dumps([{"version": version, "path": path} for version, path in pythons])
    late = python(folder / "late" / "python", "3.7.99")
    more = json.dumps([{"version": "3.7.99", "path": late}])
    return program(
        folder / "uv",
        f"""
case "$*" in
  *list*) test -z "$PATH" || exit 3
          if test -e {folder}/downloaded; then echo '{more}'; else echo '{listed}'; fi;;
  *install*) : > {folder}/downloaded;;
esac""",
    )


def interpreters(
    folder: Path, uv: str, *, may_download: bool = False, **variables: str
) -> Interpreters:
    environment = {"HOME": str(folder / "home"), "PATH": str(folder / "bin"), **variables}
    return Interpreters(uv=uv, environment=environment, may_download=may_download)


async def test_the_gateways_own_python_is_taken_for_its_minor(tmp_path: Path) -> None:
    """Nothing else is looked for where the minor is the gateway's."""
    found = await interpreters(tmp_path, "/nonexistent/uv").find(sys.version_info[:2])
    assert found == Interpreter(path=sys.executable, version=sys.version_info[:3])


async def test_pyenvs_newest_patch_of_the_minor_is_taken(tmp_path: Path) -> None:
    """By its full path: the shims on the PATH start none that isn't chosen there."""
    for version in ("3.7.2", "3.7.16", "3.70.1", "3.7-dev"):
        python(tmp_path / "pyenv" / "versions" / version / "bin" / "python", version)
    program(tmp_path / "bin" / "python3.7", "echo 'pyenv: python3.7: command not found'; exit 127")
    found = await interpreters(
        tmp_path, "/nonexistent/uv", PYENV_ROOT=str(tmp_path / "pyenv")
    ).find(OTHER)
    assert found is not None
    assert found.version == (3, 7, 16)


async def test_pythons_on_the_path_and_below_home_are_found(tmp_path: Path) -> None:
    """pyenv's usual place goes first."""
    on_path = python(tmp_path / "bin" / "python3.7", "3.7.3")
    look = interpreters(tmp_path, "/nonexistent/uv")
    assert await look.find(OTHER) == Interpreter(path=on_path, version=(3, 7, 3))
    of_pyenv = python(tmp_path / "home/.pyenv/versions/3.7.1/bin/python", "3.7.1")
    again = interpreters(tmp_path, "/nonexistent/uv")
    assert await again.find(OTHER) == Interpreter(path=of_pyenv, version=(3, 7, 1))


@pytest.mark.parametrize(
    "said", ["echo pypy 3 7 3 0", "echo cpython 3 7 3 1", "echo cpython 3 8 1 0", "exit 1",
             "echo nonsense", "kill -9 $$"]
)  # fmt: skip
async def test_what_isnt_that_python_is_passed_over(tmp_path: Path, said: str) -> None:
    """Another implementation, one without a lock of its threads, another minor, a broken one."""
    program(tmp_path / "bin" / "python3.7", said)
    assert await interpreters(tmp_path, uv_with(tmp_path)).find(OTHER) is None


async def test_uvs_own_are_found_without_a_look_at_the_path(tmp_path: Path) -> None:
    """uv would start every program there that is called like a Python."""
    path = python(tmp_path / "managed" / "python", "3.7.5")
    look = interpreters(tmp_path, uv_with(tmp_path, ("3.70.1", "/x"), ("3.7.5", path)))
    assert await look.find(OTHER) == Interpreter(path=path, version=(3, 7, 5))


async def test_a_python_is_downloaded_only_where_that_is_allowed(tmp_path: Path) -> None:
    """One that isn't here is none otherwise, and what isn't there now may be later."""
    uv = uv_with(tmp_path)
    assert await interpreters(tmp_path, uv).find(OTHER) is None
    assert not (tmp_path / "downloaded").exists()
    found = await interpreters(tmp_path, uv, may_download=True).find(OTHER)
    assert found is not None
    assert found.version == (3, 7, 99)


async def test_a_download_that_failed_is_not_tried_again_at_once(tmp_path: Path) -> None:
    """Where Pythons can't be reached, each version would wait for that to fail anew."""
    tries = tmp_path / "tries"
    uv = program(
        tmp_path / "uv", f'case "$*" in *list*) echo "[]";; *) echo >> {tries}; exit 2;; esac'
    )
    look = interpreters(tmp_path, uv, may_download=True)
    assert [await look.find(OTHER), await look.find(OTHER)] == [None, None]
    assert tries.read_text() == "\n"
