"""Requests that were read together are captured as if each had come alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.capture.columns import Shape
from gateway.capture.kept import Kept
from gateway.catalog import ModelOptions, Resolution
from gateway.contract import Contract, Joint
from gateway.contract.forms import TYPED
from gateway.contract.outputs import Output
from tests.support.catalogs import served, signature, version

TYPES = signature(
    ("x", "double"), ("n", "long"), ("name", "string"),
    outputs=(("y", "double"), ("label", "string")),
)  # fmt: skip
CONTRACT = Contract.from_signature(orjson.loads(TYPES))
MODEL = served(version(1, TYPES), options=ModelOptions(capture=50.0))
(VERSION,) = MODEL.versions

rows = st.fixed_dictionaries(
    {"x": st.floats(-9, 9), "n": st.integers(-9, 9), "name": st.sampled_from(["a", "é", ""])}
)
bodies = st.lists(st.lists(rows, min_size=1, max_size=3), min_size=1, max_size=5)


def answer_to(joint: Joint) -> Output:
    """By its rows alone, so that nobody has another one's."""
    x = np.asarray(joint.frame.columns[0], np.float64)
    return ("columns", ["y", "label"], [x * 2, [f"l{value:g}" for value in x]])


def kept_of(joint: Joint, number: int, *, fails: bool) -> Kept:
    kept = Kept(
        resolution=Resolution(model=MODEL, version=VERSION, contract=CONTRACT),
        asked=None, protocol="modelmux", request_id=f"r{number}", correlation_id=None,
        at_s=1.0, status=502 if fails else 200, error="model_failed" if fails else None,
    )  # fmt: skip
    kept.note_joint(joint, number, 100)
    if not fails:
        kept.note_joint_output(answer_to(joint), 20)
    return kept


@settings(max_examples=200, deadline=None)
@given(crowds=st.lists(bodies, min_size=1, max_size=4), data=st.data())
def test_a_table_of_many_is_what_the_table_of_each_says(
    crowds: list[list[list[dict[str, Any]]]], data: st.DataObject
) -> None:
    """Whichever of those who travelled together are kept, and whichever calls failed."""
    kept: list[Kept] = []
    for crowd in crowds:
        assert TYPED.together is not None
        joint = TYPED.together.read(CONTRACT, [orjson.dumps(each) for each in crowd])
        assert joint is not None
        drawn = data.draw(st.lists(st.booleans(), min_size=len(crowd), max_size=len(crowd)))
        fails = data.draw(st.booleans())
        kept += [kept_of(joint, i, fails=fails) for i, is_kept in enumerate(drawn) if is_kept]
    if not kept:
        return
    shape = Shape(kept[0].resolution)
    together = shape.table(kept)
    apart = []
    for each in kept:
        each.stands_alone()
        apart += shape.table([each]).to_pylist()
    assert together.to_pylist() == apart


def test_what_is_held_together_is_counted_once() -> None:
    """A joint call's bytes are shared out among those of its callers who are kept."""
    assert TYPED.together is not None
    body = orjson.dumps({"x": 1.0, "n": 1, "name": "n"})
    joint = TYPED.together.read(CONTRACT, [body] * 10)
    assert joint is not None
    # Half of them are kept, and hold what all ten have; and each has its answer.
    sizes = [kept_of(joint, i, fails=False).size_bytes for i in range(5)]
    assert sum(sizes) == 10 * 100 + 5 * 20
