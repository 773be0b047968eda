"""The chart of a shadow's agreement over time, as the numbers of an SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.http.shadow_view import ShadowStretch

WIDTH, HEIGHT = 720, 160
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 10, 22
_WIDEST = 28.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A stretch of time: the compared requests in it as one bar, of which `equal_height` from the
    bottom is equal. `label` says it in words."""

    x: float
    width: float
    top: float
    equal_top: float
    equal_height: float
    different_height: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Bars from the oldest to the newest, and when they begin and end."""

    bars: tuple[Bar, ...]
    first: str
    last: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


def chart_of(course: Sequence[ShadowStretch]) -> Chart | None:
    """The chart; None where nothing was compared."""
    shown = [each for each in course if each.agreement is not None]
    if not shown:
        return None
    first, last = shown[0], shown[-1]
    begins_at = first.at.timestamp()
    span_s = last.at.timestamp() + last.seconds - begins_at
    room = WIDTH - _LEFT - _RIGHT
    width = min(_WIDEST, max(2.0, room * first.seconds / span_s))
    return Chart(
        bars=tuple(
            _bar(each, _LEFT + (room - width) * (each.at.timestamp() - begins_at) / span_s, width)
            for each in shown
        ),
        first=first.at.strftime("%Y-%m-%d %H:%M"),
        last=last.at.strftime("%Y-%m-%d %H:%M"),
    )


def _bar(each: ShadowStretch, x: float, width: float) -> Bar:
    agreement = each.agreement or 0.0
    room = HEIGHT - _TOP - _BOTTOM
    equal = room * agreement
    compared = each.equal + each.different
    return Bar(
        x=round(x, 2),
        width=round(max(1.5, width - 1.0), 2),
        top=_TOP,
        equal_top=round(_TOP + room - equal, 2),
        equal_height=round(equal, 2),
        different_height=round(room - equal, 2),
        label=f"{each.at:%Y-%m-%d %H:%M}: {agreement:.1%} of {compared} equal",
    )
