"""Stack traces as lines: an exception's type and stack, and those of what led to it.

Never an exception's text, which may repeat what a caller sent or hold a password.
"""

from __future__ import annotations

import traceback

from .attempt import attempted

_MOST = 20


def stack_lines(error: BaseException | None) -> list[str]:
    """The lines of an exception; none of None."""
    lines: list[str] = []
    for each in () if error is None else _chain(error):
        kind = type(each)
        lines.append("%s.%s" % (kind.__module__, kind.__qualname__))
        frames = traceback.extract_tb(each.__traceback__)
        lines += ["  %s:%s in %s" % (f.filename, f.lineno, f.name) for f in frames]
    return lines


def _chain(error: BaseException) -> list[BaseException]:
    """The exception last, what led to it before; members of a group before the group. Not all of
    those of which there are too many: a model may link thousands, or in a circle."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting and len(found) < _MOST:
        each = waiting.pop()
        if any(each is other for other in found):
            continue
        found.append(each)
        led = each.__cause__
        if led is None and not each.__suppress_context__:
            led = each.__context__
        if led is not None:
            waiting.append(led)
        waiting += _members(each)
    return found[::-1]


def _members(error: BaseException) -> list[BaseException]:
    # Of a class of the model's own, that attribute may be anything.
    members = attempted(lambda: list(getattr(error, "exceptions", ())))[0]
    return [member for member in members or () if isinstance(member, BaseException)]
