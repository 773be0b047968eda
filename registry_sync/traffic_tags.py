"""Tags on a registered model that send a share of its traffic to another version: `NAME:PERCENT`,
where a name is an alias, a version's number or `latest`. Pure.

Which version that is now, and whether it may have any, is decided by who reads the tag.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PERCENT = re.compile(r"[0-9]{1,3}(\.[0-9]{1,9})?")
_ALL = 100.0


class InvalidShare(ValueError):
    """The tag says no share; the text is the end of a sentence about the tag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """So many of a hundred requests, and the alias, number or `latest` that has them."""

    selector: str
    percent: float


def parse_share(text: str, default_percent: float | None = None) -> Share:
    """The share that a tag's value says; `default_percent` is that of one that says no percentage,
    which then may not be left out where it is None. Raises InvalidShare."""
    selector, colon, said = (part.strip() for part in text.strip().partition(":"))
    if not selector:
        raise InvalidShare("it names no alias, number or latest")
    if not colon and default_percent is None:
        raise InvalidShare("it says no percentage, as in challenger:10")
    if not colon and default_percent is not None:
        return Share(selector=selector, percent=default_percent)
    if not _PERCENT.fullmatch(said) or float(said) > _ALL:
        raise InvalidShare("its percentage is no number from 0 to 100")
    return Share(selector=selector, percent=float(said))
