"""What a model's version needs to run, by the files that MLflow wrote beside it.

`python_env.yaml` (since MLflow 1.26) or else `conda.yaml`, `requirements.txt` with what it names,
and a uv project's `uv.lock`. Read as `mlflow models predict --env-manager uv` does. Pure, but for
what is read through the function that is given.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from packaging.utils import canonicalize_name

from deployments.environments.project_lock import packages_of
from deployments.environments.requirement_lines import (
    LineReader,
    Lines,
    UnreadableLine,
    Wanted,
    decoded,
    own_path,
    wanted,
)
from registry_sync.masking import credentials_in, shown
from registry_sync.yaml_text import BrokenYaml, parsed

Minor = tuple[int, int]

MLFLOW_NAMES = frozenset({"mlflow", "mlflow-skinny"})

_PYTHON_ENV = "python_env.yaml"
_CONDA = "conda.yaml"
_REQUIREMENTS = "requirements.txt"
_LOCK = "uv.lock"
_MLMODEL = "MLmodel"

# That of a wide model has its signature in it, and a lock has each file of each package.
_MAX_LARGE_BYTES = 16 * 1024 * 1024
_MAX_YAML_BYTES = 1024 * 1024
_MAX_LISTED = 5000

_MINOR = re.compile(r"(\d{1,3})\.(\d{1,3})(?![\d])")
_CONDA_NAME = re.compile(r"(?:[\w.-]+::)?(?P<name>[A-Za-z0-9_.-]+)\s*(?P<version>.*)\Z")
_BUILD_PACKAGES = ("setuptools", "wheel")
# What conda's Pythons bring; what was logged with them imports `pkg_resources`.
_CONDA_BUILD_PACKAGES = ("setuptools<81", "wheel")
_NOT_LOGGED = "is a file of the project's, which MLflow doesn't log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """What a version says of its environment can't be taken. All of it may be shown."""

    why: str
    file: str
    line: str = ""

    def __str__(self) -> str:
        at = f", line {self.line!r}" if self.line else ""
        return f"{self.file}{at}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a version needs: equal ones run in the same environment.

    `options` are those of the index, as lines of a requirements file. `lock` is a uv project's
    lock; where there is one it is what gets installed, `locked` being the packages that it has for
    the project (None where that can't be told), and what `requirements` name beside it.
    `source` tells the model's own files (`files`, `folders`) from others of the same names; nothing
    where it has none. `conda_only` are packages that only conda has under these names, as they may
    be shown: as by MLflow, they aren't installed. `flavors` are those of MLflow's that it has.
    """

    python_minor: Minor
    requirements: tuple[Wanted, ...] = ()
    build_requirements: tuple[Wanted, ...] = ()
    constraints: tuple[Wanted, ...] = ()
    options: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    lock: str | None = None
    locked: tuple[Wanted, ...] | None = None
    source: str = ""
    conda_only: tuple[str, ...] = ()
    flavors: tuple[str, ...] = ()

    @property
    def python(self) -> str:
        """The Python, as people write it."""
        return "{}.{}".format(*self.python_minor)

    @property
    def files(self) -> tuple[str, ...]:
        """Archives of the model's own that are to be installed, by their paths beside it."""
        named = (each.file for each in (*self.requirements, *self.constraints))
        return tuple(sorted({file for file in named if file is not None}))

    def digest(self, platform: str) -> str:
        """Tells environments from each other: 32 hexadecimal digits."""
        said = [
            platform,
            self.python,
            *(
                [each.text(lambda path: f"file:{path}") for each in group]
                for group in (self.requirements, self.build_requirements, self.constraints)
            ),
            self.options,
            self.folders,
            self.lock,
            self.source,
        ]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]

    def secrets(self) -> set[str]:
        """Credentials that its URLs carry, to be masked in what tools say."""
        urls = [each.url for each in (*self.requirements, *self.constraints) if each.url]
        return credentials_in([*urls, *self.options])


def read_needs(
    read: Callable[[str], bytes | None], *, gateway_python: Minor, source: str
) -> Needs | Unreadable:
    """What the version's files say.

    `read` gives the bytes of a file beside the MLmodel file by its path there, or None where there
    is none; it may be asked for any path. `gateway_python` is for those that name no Python, and
    `source` names the version's files (its fingerprint).
    """
    reader = LineReader(read)
    try:
        return _needs(read, reader, gateway_python, source)
    except UnreadableLine as problem:
        return Unreadable(why=problem.why, file=problem.file, line=problem.line)


def locked(needs: Needs, exported: str) -> Needs | Unreadable:
    """The needs with the lines that uv has exported from their lock in place of those of the same
    packages."""
    reader = LineReader(lambda _: None)
    try:
        reader.take_text(exported, file=_LOCK)
    except UnreadableLine as problem:
        return Unreadable(why=problem.why, file=problem.file, line=problem.line)
    found = reader.lines.requirements
    beside = next((each for each in found if each.file is not None), None)
    if beside is not None:
        return Unreadable(why=_NOT_LOGGED, file=_LOCK, line=str(beside))
    # Of the project's extras and groups that it was logged with (`uv_extras`, `uv_groups`).
    names = {each.name for each in found}
    others = [each for each in needs.requirements if each.name not in names]
    return replace(needs, requirements=_sorted([*found, *others]), constraints=())


def completed(needs: Needs, *, gateway_mlflow: str) -> Needs:
    """The needs with what a model's process itself imports: MLflow, NumPy and pandas.

    A version that names no MLflow gets the newest, up to the gateway's, that its Python and its
    other packages allow.
    """
    named = {each.name for each in needs.requirements}
    added: list[str] = []
    if not named & MLFLOW_NAMES:
        added.append(f"mlflow-skinny>=2,<={gateway_mlflow}")
    if "mlflow" not in named:
        added += [name for name in ("numpy", "pandas") if name not in named]
    if not added:
        return needs
    # Those that were added have no hashes; the others' are looked at all the same.
    options = tuple(option for option in needs.options if option != "--require-hashes")
    requirements = _sorted([*needs.requirements, *map(wanted, added)])
    return replace(needs, requirements=requirements, options=options)


def conda_name(line: str) -> str | None:
    """The package that a line of conda's names, as an index of Python's would spell it."""
    found = _CONDA_NAME.match(line)
    return None if found is None else canonicalize_name(found["name"])


def _needs(
    read: Callable[[str], bytes | None], reader: LineReader, gateway_python: Minor, source: str
) -> Needs:
    flavors = _flavors(read)
    python_env_path, conda_path = _named_files(flavors)
    conda = _conda(read, conda_path)
    python_env = _yaml(read, python_env_path)
    has_requirements = read(_REQUIREMENTS) is not None
    if python_env is not None:
        python = _minor(_text_of(python_env.get("python"), python_env_path), python_env_path)
        build = _strings(python_env.get("build_dependencies"), python_env_path)
        lines = _strings(python_env.get("dependencies"), python_env_path)
        reader.take_text("\n".join(lines), file=python_env_path)
    else:
        python = conda.python
        build = list(_CONDA_BUILD_PACKAGES) if conda.is_there else []
        if has_requirements:
            reader.take_file(_REQUIREMENTS)
        else:
            reader.take_text("\n".join(conda.pip), file=conda_path)
    content = read(_LOCK)
    lock = None if content is None else decoded(content, _LOCK, most_bytes=_MAX_LARGE_BYTES)
    named = {each.name for each in reader.lines.requirements}
    return _from_lines(
        reader.lines,
        python_minor=python or gateway_python,
        build_requirements=_sorted(_build_requirements(build, python_env_path)),
        lock=lock,
        locked=None if lock is None else packages_of(lock),
        source=source,
        conda_only=tuple(each for each in conda.others if conda_name(each) not in named),
        flavors=tuple(map(str, flavors)),
    )


def _from_lines(lines: Lines, *, source: str, **rest: Any) -> Needs:
    needs = Needs(
        requirements=_sorted(lines.requirements),
        constraints=_sorted(lines.constraints),
        options=tuple(lines.options),
        folders=tuple(sorted(set(lines.folders))),
        **rest,
    )
    return replace(needs, source=source) if needs.files or needs.folders else needs


def _sorted(requirements: Iterable[Wanted]) -> tuple[Wanted, ...]:
    """Without what is said twice, and equal for those who say the same in another order."""
    return tuple(sorted(set(requirements), key=lambda each: each.text(lambda path: path)))


def _flavors(read: Callable[[str], bytes | None]) -> dict[str, Any]:
    """What the MLmodel file says of each of its flavors."""
    document = _yaml(read, _MLMODEL, most_bytes=_MAX_LARGE_BYTES) or {}
    flavors = document.get("flavors")
    return flavors if isinstance(flavors, dict) else {}


def _named_files(flavors: dict[str, Any]) -> tuple[str, str]:
    """The two files that describe the environment, as the MLmodel file calls them."""
    pyfunc = flavors.get("python_function")
    env = pyfunc.get("env") if isinstance(pyfunc, dict) else None
    if isinstance(env, str):  # MLflow 1.x
        return _PYTHON_ENV, _own_file(env)
    if not isinstance(env, dict):
        return _PYTHON_ENV, _CONDA
    return _own_file(env.get("virtualenv", _PYTHON_ENV)), _own_file(env.get("conda", _CONDA))


def _own_file(path: Any) -> str:
    if not isinstance(path, str):
        raise UnreadableLine("names its environment in a way that can't be read", file=_MLMODEL)
    try:
        return own_path(path)
    except UnreadableLine as problem:
        raise UnreadableLine(problem.why, file=_MLMODEL, line=shown(path)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conda:
    is_there: bool = False
    python: Minor | None = None
    pip: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def _conda(read: Callable[[str], bytes | None], path: str) -> _Conda:
    """What a conda environment says: its Python, its pip part, and the packages that only conda
    has under these names."""
    document = _yaml(read, path)
    if document is None:
        return _Conda()
    pip: list[str] = []
    others: list[str] = []
    python: Minor | None = None
    for each in _list(document.get("dependencies"), path):
        if isinstance(each, dict):
            pip += _strings(each.get("pip"), path)
            continue
        text = _text_of(each, path) or ""
        name = conda_name(text)
        if name is None:
            raise UnreadableLine("isn't a package of conda's", file=path, line=shown(text))
        if name == "python":
            python = python or _conda_minor(_CONDA_NAME.sub(r"\g<version>", text), path)
        elif name not in ("pip", *_BUILD_PACKAGES):
            others.append(shown(text))
    return _Conda(is_there=True, python=python, pip=tuple(pip), others=tuple(others))


def _conda_minor(version: str, path: str) -> Minor | None:
    """The Python of `=3.8.13=build`, `==3.8`, `>=3.8,<3.9`: the first that is named, as MLflow
    takes it."""
    first = version.replace("|", ",").partition(",")[0].strip()
    if first.startswith(("<", "!")) and not first.startswith("<="):
        raise UnreadableLine("names only Pythons that it can't have", file=path, line=shown(first))
    return _minor(first.lstrip("=<>~ "), path)


def _minor(version: str | None, path: str) -> Minor | None:
    if not version:
        return None
    found = _MINOR.match(version)
    if found is None and not re.match(r"\d+(\.\*)?\Z", version):
        raise UnreadableLine("has a Python that isn't one", file=path, line=shown(version))
    return None if found is None else (int(found[1]), int(found[2]))


def _build_requirements(lines: Sequence[str], path: str) -> Iterator[Wanted]:
    """Those that a model may import; nothing that serves one imports pip."""
    for line in lines:
        try:
            each = wanted(line.strip())
        except UnreadableLine as problem:
            raise UnreadableLine(problem.why, file=path, line=shown(line)) from None
        if each.name in _BUILD_PACKAGES and each.url is None and each.file is None:
            yield each


def _yaml(
    read: Callable[[str], bytes | None], path: str, *, most_bytes: int = _MAX_YAML_BYTES
) -> dict[str, Any] | None:
    """A YAML file's mapping, whose scalars are strings: `3.10` stays `3.10`."""
    content = read(path)
    if content is None:
        return None
    try:
        document = parsed(decoded(content, path, most_bytes=most_bytes), texts_only=True)
    except BrokenYaml:
        raise UnreadableLine("isn't YAML", file=path) from None
    if document in (None, ""):
        return {}
    if not isinstance(document, dict):
        raise UnreadableLine("isn't a mapping", file=path)
    return document


def _list(value: Any, path: str) -> list[Any]:
    if value in (None, ""):
        return []
    if not isinstance(value, list):
        raise UnreadableLine("isn't a list", file=path)
    if len(value) > _MAX_LISTED:
        raise UnreadableLine("has too many lines", file=path)
    return value


def _strings(value: Any, path: str) -> list[str]:
    return [_text_of(each, path) or "" for each in _list(value, path)]


def _text_of(value: Any, path: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise UnreadableLine("isn't text", file=path)
