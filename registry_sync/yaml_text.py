"""YAML that others have written, parsed so that no file can stop or fill the process.

PyYAML and libyaml follow whatever is there: some thousand levels take minutes or the whole process
down, and a kilobyte of aliases or merge keys becomes gigabytes in who walks or prints them. So
events are counted first, which needs no recursion. Pure.
"""

from __future__ import annotations

from typing import Any

import yaml

_MAX_LEVELS = 100
# Of characters and values, with what is repeated by aliases counted each time.
_MAX_SIZE = 64 * 1024 * 1024

# libyaml's are ten times as fast as PyYAML's own, but not every platform has them.
_VALUES = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXTS = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class BrokenYaml(ValueError):
    """A text that isn't YAML, or not as any program writes it."""


def parsed(text: str, *, texts_only: bool = False) -> Any:
    """The one document of a text; with `texts_only` scalars stay as they are written, so that
    `3.10` is no number. Raises BrokenYaml, also for what is nested beyond 100 levels."""
    loader = _TEXTS if texts_only else _VALUES
    try:
        _check(text, loader)
        return yaml.load(text, loader)  # noqa: S506 - both make plain values only
    # ValueError is a number or a date that is none.
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise BrokenYaml(str(type(error).__name__)) from None


def _check(text: str, loader: Any) -> None:
    """Raise BrokenYaml for what is nested too deep or would be too large; YAMLError."""
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, loader):
        if isinstance(event, yaml.CollectionStartEvent):
            # Its own alias inside of it is of what isn't there yet.
            sizes.pop(event.anchor or "", None)
            opened.append((event.anchor, 1))
            if len(opened) > _MAX_LEVELS:
                raise BrokenYaml("nested too deep")
            continue
        match event:
            case yaml.CollectionEndEvent():
                anchor, size = opened.pop()
            case yaml.AliasEvent(anchor=anchor) if anchor in sizes:
                size = sizes[anchor]
            case yaml.ScalarEvent(anchor=anchor, value=value) if not _is_merge(event):
                size = len(value) + 1
            case yaml.NodeEvent():
                raise BrokenYaml("a merge key, or an alias of what isn't there")
            case _:
                continue
        if anchor is not None:
            sizes[anchor] = size
        above, so_far = opened[-1]
        opened[-1] = (above, so_far + size)
        if so_far + size > _MAX_SIZE:
            raise BrokenYaml("too large")


def _is_merge(scalar: Any) -> bool:
    return bool(scalar.value == "<<" and scalar.implicit[0])
