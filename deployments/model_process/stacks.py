"""Stack traces as lines: an exception's type and stack, and those of what led to it.

Never an exception's text, which may repeat what a caller sent or hold a password.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator


def stack_lines(error: BaseException | None) -> list[str]:
    """The lines of an exception; none of None."""
    lines: list[str] = []
    for each in () if error is None else _chain(error):
        kind = type(each)
        lines.append("%s.%s" % (kind.__module__, kind.__qualname__))
        frames = traceback.extract_tb(each.__traceback__)
        lines += ["  %s:%s in %s" % (f.filename, f.lineno, f.name) for f in frames]
    return lines


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception last, what led to it before; members of a group before the group."""
    seen: set[int] = set()

    def before(each: BaseException | None) -> Iterator[BaseException]:
        if each is None or id(each) in seen:
            return
        seen.add(id(each))
        led = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
        yield from before(led)
        for member in getattr(each, "exceptions", ()):
            if isinstance(member, BaseException):
                yield from before(member)
        yield each

    return before(error)
