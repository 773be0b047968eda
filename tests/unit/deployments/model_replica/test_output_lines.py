"""What processes write, as lines of the log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deployments.model_replica.output_lines import (
    BURST_LINES,
    LINES_PER_S,
    LONGEST_LINE_BYTES,
    OutputLines,
)
from tests.support.clocks import Clock


def output(clock: Clock | None = None) -> tuple[OutputLines, list[str]]:
    said: list[str] = []
    return OutputLines("m", {}, write=said.append, clock=clock or Clock()), said


@given(st.lists(st.text("ab \r", max_size=9), max_size=20), st.lists(st.integers(1, 30)))
def test_lines_are_the_same_in_whatever_pieces_they_come(lines: list[str], cuts: list[int]) -> None:
    """Each that isn't blank is said once, in its order, the last one without its end too."""
    lines_out, said = output()
    data = "\n".join(lines).encode()
    for cut in cuts:
        lines_out.feed(data[:cut])
        data = data[cut:]
    lines_out.feed(data)
    lines_out.close()
    assert said == [line.rstrip("\r") for line in lines if line.strip()]


def test_a_line_without_end_is_cut() -> None:
    """Its beginning is said, and what follows is not kept."""
    lines_out, said = output()
    for _ in range(100):
        lines_out.feed(b"x" * 10_000)
    lines_out.feed(b"\nnext\n")
    assert said == ["x" * LONGEST_LINE_BYTES + " …", "next"]


def test_a_flood_is_left_out_and_counted() -> None:
    """As many at once as a burst, then none until it is a second's worth again."""
    clock = Clock()
    lines_out, said = output(clock)
    lines_out.feed(b"flood\n" * (BURST_LINES + 1000))
    assert said == ["flood"] * BURST_LINES
    clock.now += 0.5
    lines_out.feed(b"flood\n")
    assert len(said) == BURST_LINES
    clock.now += 1.0
    lines_out.feed(b"after\n")
    assert said[BURST_LINES:] == ["(1001 lines were left out)", "after"]


def test_what_is_left_out_is_told_at_the_end() -> None:
    """Also where nothing follows it."""
    lines_out, said = output()
    lines_out.feed(b"flood\n" * (BURST_LINES + 3))
    lines_out.close()
    assert said[-1] == "(3 lines were left out)"
    assert LINES_PER_S > 1


def test_what_is_no_text_is_said_as_far_as_it_is() -> None:
    """A model may write whatever bytes."""
    lines_out, said = output()
    lines_out.feed(b"a\xffb\n")
    assert said == ["a\ufffdb"]


def test_a_flood_costs_next_to_nothing_per_line() -> None:
    """What is left out anyway isn't looked at line by line: calls of others wait meanwhile."""

    class Counting(Clock):
        asked = 0

        def __call__(self) -> float:
            self.asked += 1
            return super().__call__()

    clock = Counting()
    lines_out, _ = output(clock)
    for _ in range(10):
        lines_out.feed(b"flood\n\n" * 100_000)
    lines_out.feed(b"flood")
    lines_out.close()
    assert clock.asked < BURST_LINES + 50
