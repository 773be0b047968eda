"""Whether the packages of an interpreter are what a version needs. Pure, but for `Installed.here`,
which looks at this process's own."""

from __future__ import annotations

import importlib.metadata
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from packaging.markers import Marker, UndefinedEnvironmentName, default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from deployments.environments.model_needs import MLFLOW_NAMES, Minor, Needs
from deployments.environments.requirement_lines import Wanted

_T = TypeVar("_T")

GATEWAY_PYTHON: Minor = (sys.version_info.major, sys.version_info.minor)
"""The Python that the gateway runs on."""

_BROUGHT_BY_MLFLOW = {"sklearn": "scikit-learn"}
"""What flavors import that `mlflow` requires and `mlflow-skinny` doesn't: a model that names no
more than MLflow has it in an environment of its own."""

_LOOK_AGAIN_S = 1.0
_LOWER_BOUNDS = ("==", ">=", "~=", ">", "===")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """An interpreter's Python and packages, by canonical name, and what each of these requires."""

    python_minor: Minor
    versions: Mapping[str, str]
    requires: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    marker_environment: Mapping[str, str] = field(
        default_factory=lambda: {key: str(value) for key, value in default_environment().items()}
    )

    @classmethod
    def here(cls) -> Installed:
        """Those of this process. Each is looked for when it is asked for: to read them all takes
        some tenths of a second."""
        return cls(
            python_minor=GATEWAY_PYTHON,
            versions=_Distributions(lambda found: found.version),
            requires=_Distributions(lambda found: tuple(found.requires or ())),
        )


class _Distributions(Mapping[str, _T]):
    """Something about each distribution of this process, by canonical name; one that isn't there
    is looked for again after a moment, since it may have been installed meanwhile."""

    def __init__(self, told: Callable[[importlib.metadata.Distribution], _T]) -> None:
        self._told = told
        self._known: dict[str, _T] = {}
        self._absent_until: dict[str, float] = {}

    def __getitem__(self, name: str) -> _T:
        if name not in self._known:
            # To look takes a millisecond, and thousands of versions may need the same.
            if not name or time.monotonic() < self._absent_until.get(name, 0.0):
                raise KeyError(name)
            try:
                found = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:
                self._absent_until[name] = time.monotonic() + _LOOK_AGAIN_S
                raise KeyError(name) from None
            self._known[name] = self._told(found)
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        names = (each.metadata["Name"] for each in importlib.metadata.distributions())
        return iter({canonicalize_name(name) for name in names if name})

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmet:
    """One thing that a version needs and an interpreter hasn't; both as they may be shown."""

    needed: str
    has: str | None

    def __str__(self) -> str:
        """As part of a sentence: `needs scikit-learn==1.5.2, the gateway has 1.9.1`."""
        if self.has is None:
            return f"needs {self.needed}, which the gateway hasn't"
        return f"needs {self.needed}, the gateway has {self.has}"


def unmet(needs: Needs, installed: Installed) -> tuple[Unmet, ...]:
    """What of the needs isn't met, the Python first; empty where the interpreter will do."""
    found: list[Unmet] = []
    if needs.python_minor != installed.python_minor:
        has = "{}.{}".format(*installed.python_minor)
        found.append(Unmet(needed=f"Python {needs.python}", has=has))
    if needs.lock is not None and needs.locked is None:
        found.append(Unmet(needed="what its uv.lock names", has=None))
    locked = needs.locked or ()
    of_lock = {each.name for each in locked}
    for each in (*(each for each in needs.requirements if each.name not in of_lock), *locked):
        found += _unmet(each, installed)
    found += _unmet_of_mlflow(needs, installed)
    for each in needs.constraints:
        if each.name in installed.versions and _applies(each, installed):
            found += _unmet(each, installed)
    return tuple(dict.fromkeys(found))


def leans_on_client(needs: Needs, installed: Installed) -> bool:
    """Whether it names MLflow, of which the interpreter has the client: what else MLflow requires,
    and the version's code may import, isn't there."""
    return "mlflow" not in installed.versions and any(
        each.name == "mlflow" and _applies(each, installed) for each in needs.requirements
    )


def _unmet_of_mlflow(needs: Needs, installed: Installed) -> Iterator[Unmet]:
    named = {each.name for each in needs.requirements}
    if "mlflow" in named:
        for flavor, package in _BROUGHT_BY_MLFLOW.items():
            if flavor not in needs.flavors or package in named:
                continue
            if package not in installed.versions:
                yield Unmet(needed=package, has=None)


def _unmet(each: Wanted, installed: Installed) -> Iterator[Unmet]:
    if not _applies(each, installed):
        return
    needed = f"{each}".partition(" ;")[0]
    if each.name is None or each.url is not None or each.file is not None:
        # Under one name and version there may be anything.
        has = installed.versions.get(each.name or "")
        yield Unmet(needed=needed, has=None if has is None else f"{has} of its own")
    elif each.name in MLFLOW_NAMES:
        newest = _newest_mlflow(installed)
        if newest is None or not _is_as_new(newest, each.specifier):
            yield Unmet(needed=needed, has=newest)
        elif each.extras and each.name not in installed.versions:
            yield Unmet(needed=needed, has=f"{newest} without that")
        else:
            yield from _unmet_extras(each, installed)
    else:
        yield from _unmet_by_name(each, needed, installed)


def _unmet_by_name(each: Wanted, needed: str, installed: Installed) -> Iterator[Unmet]:
    has = installed.versions.get(each.name or "")
    if has is None or not _contains(each.specifier, has):
        yield Unmet(needed=needed, has=has)
        return
    yield from _unmet_extras(each, installed)


def _unmet_extras(each: Wanted, installed: Installed) -> Iterator[Unmet]:
    for extra in each.extras:
        missing = _missing_of_extra(each.name or "", extra, installed, set())
        if missing is not None:
            yield Unmet(needed=f"{each.name}[{extra}], so {missing.needed}", has=missing.has)


def _missing_of_extra(
    name: str, extra: str, installed: Installed, seen: set[tuple[str, str]]
) -> Unmet | None:
    """The first thing that an extra of a package asks for and that isn't there."""
    if (name, extra) in seen:
        return None
    seen.add((name, extra))
    for required in _of_extra(name, extra, installed):
        dependency = canonicalize_name(required.name)
        has = installed.versions.get(dependency)
        if has is None or not _contains(str(required.specifier), has):
            return Unmet(needed=f"{dependency}{required.specifier}", has=has)
        for each in required.extras:
            missing = _missing_of_extra(dependency, canonicalize_name(each), installed, seen)
            if missing is not None:
                return missing
    return None


def _of_extra(name: str, extra: str, installed: Installed) -> Iterator[Requirement]:
    for line in installed.requires.get(name, ()):
        try:
            required = Requirement(line)
        except InvalidRequirement:
            continue
        marker = required.marker
        if marker is not None and not _is_true(marker, installed, ""):
            spellings = {extra, extra.replace("-", "_")}
            if any(_is_true(marker, installed, each) for each in spellings):
                yield required


def _is_true(marker: Marker, installed: Installed, extra: str) -> bool:
    try:
        return marker.evaluate({**installed.marker_environment, "extra": extra})
    except (UndefinedEnvironmentName, InvalidVersion):
        return False


def _applies(each: Wanted, installed: Installed) -> bool:
    return not each.marker or _is_true(Marker(each.marker), installed, "")


def _contains(specifier: str, version: str) -> bool:
    try:
        return SpecifierSet(specifier).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


def _newest_mlflow(installed: Installed) -> str | None:
    """MLflow is what it is, with or without the packages that its server wants."""
    there = [installed.versions[name] for name in MLFLOW_NAMES if name in installed.versions]
    return max(there, key=Version, default=None)


def _is_as_new(version: str, specifier: str) -> bool:
    """Whether MLflow of that version isn't older than any that is named: it reads what earlier
    ones have written."""
    for each in SpecifierSet(specifier):
        if each.operator not in _LOWER_BOUNDS:
            continue
        try:
            if Version(each.version.removesuffix(".*")) > Version(version):
                return False
        except InvalidVersion:
            return False
    return True
