"""The boundary to code that isn't ours: a model's own, and the packages that it imports.

It may raise anything, also what isn't an `Exception` (`SystemExit`, `KeyboardInterrupt`), of
classes of its own that fail when they are asked what they say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def attempted(
    work: Callable[..., Any], *arguments: Any, catching: type[BaseException] = BaseException
) -> tuple[Any, BaseException | None]:
    """What the work gives, and None; or None, and what it has raised: whatever that is, or of the
    class that is named.

    By its traceback the error has the frame of who called this. Who keeps the error in a variable
    makes a circle, and all that the failed work held stays until the collector comes: `del` it.
    """
    try:
        return work(*arguments), None
    except BaseException as error:
        if not isinstance(error, catching):
            raise
        return None, error
