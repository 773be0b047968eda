"""What is kept of a row that differs, where a tag says that columns are kept nowhere."""

from __future__ import annotations

import pytest

from gateway.contract import Frame, Request
from gateway.shadow.answered import inputs_of, row_of

FRAME = Frame(layout="table", rows=1, names=("x", "secret"), columns=([1.0], ["s"]), key=())
ASKED = Request(frames=(([0], FRAME),), rows=1, params={"p": 1, "secret": 2})


@pytest.mark.parametrize(
    ("left_out", "inputs", "outputs"),
    [
        (
            (),
            {"x": 1.0, "secret": "s", "params": {"p": 1, "secret": 2}},
            {"y": 2, "secret": {"a": 3}},
        ),
        (("secret",), {"x": 1.0, "params": {"p": 1}}, {"y": 2}),
        (
            ("input.secret",),
            {"x": 1.0, "params": {"p": 1, "secret": 2}},
            {"y": 2, "secret": {"a": 3}},
        ),
        (("input", "param"), {}, {"y": 2, "secret": {"a": 3}}),
        (
            ("output.secret", "param.p"),
            {"x": 1.0, "secret": "s", "params": {"secret": 2}},
            {"y": 2},
        ),
        (("output.a", "input"), {"params": {"p": 1, "secret": 2}}, {"y": 2, "secret": {}}),
        (("output", "input", "param"), {}, {}),
    ],
)
def test_what_a_tag_leaves_out_is_left_out_here_too(
    left_out: tuple[str, ...], inputs: dict[str, object], outputs: dict[str, object]
) -> None:
    """By the column's name, by that after its part's, or the whole part."""
    assert inputs_of(ASKED, 0, left_out) == inputs
    assert row_of({"y": [2], "secret": [{"a": 3}]}, 0, left_out) == outputs
