"""What the tag `modelmux.capture_drop` keeps out of everything that holds callers' data. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

INPUT, OUTPUT, PARAM = "input", "output", "param"


def is_left_out(names: Container[str], part: str, column: str) -> bool:
    """Whether a column of that part isn't to be kept: by its own name, with that of the part before
    it, or because the whole part isn't."""
    return part in names or column in names or f"{part}.{column}" in names


def without(names: Container[str], part: str, value: Any) -> Any:
    """A value of that part without those of its members."""
    if not isinstance(value, Mapping):
        return value
    return {name: each for name, each in value.items() if not is_left_out(names, part, name)}
