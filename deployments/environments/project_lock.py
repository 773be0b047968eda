"""What a uv project's `uv.lock` says, of a source that isn't trusted. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from deployments.environments.requirement_lines import UnreadableLine, Wanted, wanted

_PROJECT_SOURCES = ("virtual", "editable", "directory")
_Key = tuple[str, str]
_BROKEN = (tomllib.TOMLDecodeError, AttributeError, KeyError, TypeError, RecursionError)


def project_name(lock: str) -> str | None:
    """The name of the project that it is of; None where that isn't to be found."""
    try:
        return _project(tomllib.loads(lock).get("package", []))
    except _BROKEN:
        return None


def packages_of(lock: str) -> tuple[Wanted, ...] | None:
    """The packages that the project needs, each as `name==version`, with the marker by which one of
    them asks for it if all do so by one; None where that isn't to be found.

    More than is needed here where markers exclude each other along the way; None where one of them
    isn't of an index, since under its name and version there may be anything.
    """
    try:
        packages = tomllib.loads(lock).get("package", [])
        project = _project(packages)
        if project is None:
            return None
        lines = _Walk(packages).lines_from(project)
        return tuple(sorted(map(wanted, lines), key=lambda each: each.text(str)))
    except (*_BROKEN, UnreadableLine):
        return None


def _project(packages: Iterable[Mapping[str, Any]]) -> str | None:
    own = [
        each["name"]
        for each in packages
        if any(each["source"].get(kind) == "." for kind in _PROJECT_SOURCES)
    ]
    if len(own) != 1 or not isinstance(own[0], str):
        return None
    return own[0] if re.match(r"[A-Za-z0-9._-]+\Z", own[0]) else None


class _Walk:
    """From a package to all that it needs; raises KeyError and TypeError for what is no lock."""

    def __init__(self, packages: Iterable[Mapping[str, Any]]) -> None:
        self._packages: dict[str, list[Mapping[str, Any]]] = {}
        for each in packages:
            self._packages.setdefault(each["name"], []).append(each)

    def lines_from(self, project: str) -> list[str]:
        """A line for each package."""
        markers: dict[_Key, set[str]] = {}
        seen: set[tuple[str, str, tuple[str, ...]]] = set()
        (root,) = self._packages[project]
        left: list[Mapping[str, Any]] = [*root.get("dependencies", ())]
        while left:
            asked = left.pop()
            for found in self._meant(asked):
                _ = found["source"]["registry"]
                key = (found["name"], found["version"])
                markers.setdefault(key, set()).add(_marker(asked))
                extras = tuple(sorted(asked.get("extra", ())))
                if (*key, extras) not in seen:
                    seen.add((*key, extras))
                    left += found.get("dependencies", ())
                    optional = found.get("optional-dependencies", {})
                    left += [each for extra in extras for each in optional.get(extra, ())]
        return [_line(key, of_it) for key, of_it in markers.items()]

    def _meant(self, asked: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """All of that name, unless it is said which."""
        version = asked.get("version")
        return [
            each
            for each in self._packages[asked["name"]]
            if version is None or each["version"] == version
        ]


def _marker(asked: Mapping[str, Any]) -> str:
    marker = str(asked.get("marker", ""))
    # What a project declares to be in conflict is chosen by uv's own extras.
    return "" if "extra" in marker else marker


def _line(key: _Key, markers: set[str]) -> str:
    line = "==".join(key)
    return f"{line} ; {next(iter(markers))}" if len(markers) == 1 and "" not in markers else line
