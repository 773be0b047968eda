"""The boundary to code that isn't ours: a model's own, and the packages that it imports.

It may raise anything, also what isn't an `Exception` (`SystemExit`, `KeyboardInterrupt`), of
classes of its own that fail when they are asked what they say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def attempted(work: Callable[..., Any], *arguments: Any) -> tuple[Any, BaseException | None]:
    """What the work gives, and None; or None, and what it has raised, whatever that is."""
    try:
        return work(*arguments), None
    except BaseException as error:  # noqa: BLE001
        return None, error
