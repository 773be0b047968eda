"""Answers to several requests that were read together, in the form of each protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from gateway.contract import TYPED, Contract, Form, Output
from gateway.contract.outputs import split_output
from gateway.forms import mlflow_json
from gateway.http.protocols.inference_v2.dialect import InferenceV2
from gateway.http.protocols.mlflow_scoring import MlflowScoring
from tests.support.catalogs import catalog, served, version

INPUTS = [{"name": "x", "type": "double", "required": True}]
ROWS = 6


def column(name: str | None, kind: str, *, required: bool = True) -> dict[str, Any]:
    named = {} if name is None else {"name": name}
    return {**named, "type": kind, "required": required}


TENSOR = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}]
SIGNATURES: Mapping[str, list[dict[str, Any]] | None] = {
    "none": None,
    "unnamed double": [column(None, "double")],
    "unnamed long": [column(None, "long")],
    "unnamed string": [column(None, "string")],
    "one": [column("a", "double")],
    "two": [column("a", "double"), column("b", "string", required=False)],
    "optional": [column("a", "float", required=False)],
    "may lack": [column("a", "long", required=False), column("b", "double", required=False)],
    "numbers": [column("a", "double"), column("b", "long")],
    "flags": [column("a", "boolean"), column("b", "long")],
    "tensor": TENSOR,
}
NUMBERS = np.array([1.5, float("nan"), -0.0, 1e300, 3.0, 0.1])
SCARCE = np.array([float("nan"), float("nan"), 1.0, 2.0, float("nan"), 4.0])
OUTPUTS: Mapping[str, Output] = {
    "fractions": ("values", NUMBERS),
    "narrow": ("values", NUMBERS.clip(-9, 9).astype(np.float32)),
    "whole": ("values", np.arange(ROWS)),
    "flags": ("values", np.arange(ROWS) % 2 == 0),
    "texts": ("values", list("abcdef")),
    "pairs": ("values", np.arange(2.0 * ROWS).reshape(ROWS, 2)),
    "flat": ("values", np.arange(1.0 * ROWS).reshape(ROWS, 1)),
    "scarce": ("values", SCARCE),
    "scarce pairs": ("values", np.column_stack([SCARCE, SCARCE])),
    "scarce a": ("columns", ["a"], [SCARCE]),
    "scarce b": ("columns", ["b", "a"], [SCARCE, np.arange(ROWS)]),
    "of another order": ("columns", ["b", "a"], [np.arange(ROWS, dtype=">i4"), NUMBERS]),
    "a": ("columns", ["a"], [NUMBERS]),
    "a b": ("columns", ["a", "b"], [NUMBERS, list("abcdef")]),
    "b a": ("columns", ["b", "a"], [np.arange(ROWS), np.arange(ROWS) % 2 == 0]),
    "others": ("columns", ["0", "1"], [NUMBERS, list("abcdef")]),
    "objects": ("values", [{"a": 1.0}, {"a": 2.0, "b": "x"}, {}, {"a": 1.0}, {"b": "y"}, {}]),
    "gaps": ("values", ["a", None, "c", "d", None, "f"]),
    "mixed": ("values", [1, "a", None, 2.5, True, [1]]),
    "dict": ("columns", ["a"], [NUMBERS], ("dict",)),
}  # fmt: skip


def contract_of(outputs: list[dict[str, Any]] | None) -> Contract:
    said = None if outputs is None else json.dumps(outputs)
    return Contract.from_signature({"inputs": json.dumps(INPUTS), "outputs": said, "params": None})


def forms() -> dict[str, tuple[Form, Any]]:
    """Each with how it writes records of x."""
    resolution = catalog(served(version(1))).resolve("m", None)
    said = [(b"content-type", b"application/json")]
    return {
        "typed": (TYPED, lambda xs: [{"x": x} for x in xs]),
        "mlflow": (
            MlflowScoring().form(said, resolution),
            lambda xs: {"dataframe_records": [{"x": x} for x in xs]},
        ),
        "inference_v2": (
            InferenceV2().form(said, resolution),
            lambda xs: {
                "inputs": [{"name": "x", "shape": [len(xs)], "datatype": "FP64", "data": xs}]
            },
        ),
    }


@pytest.mark.parametrize("protocol", ["typed", "mlflow", "inference_v2"])
@pytest.mark.parametrize("outputs", SIGNATURES)
@pytest.mark.parametrize("sizes", [[2, 1, 3], [1] * ROWS])
def test_each_answer_is_what_it_is_alone(protocol: str, outputs: str, sizes: list[int]) -> None:
    """Byte by byte, whatever the model answers; or they are written one by one."""
    form, body_of = forms()[protocol]
    together = form.together
    assert together is not None
    contract = contract_of(SIGNATURES[outputs])
    bodies = [json.dumps(body_of([float(i) for i in range(size)])).encode() for size in sizes]
    joint = together.read(contract, bodies)
    assert joint is not None
    assert list(joint.sizes) == sizes
    for number, body in enumerate(bodies):
        alone, one = form.read(contract, body, None), joint.request(number)
        assert (one.rows, one.params, one.echo) == (alone.rows, alone.params, alone.echo)
        ((_, mine),), ((_, its),) = one.frames, alone.frames
        assert (mine.key, mine.names) == (its.key, its.names)
        np.testing.assert_array_equal(mine.columns[0], its.columns[0])
    written = 0
    for output in OUTPUTS.values():
        found = together.write(contract, joint, output)
        if found is None:
            continue
        written += 1
        for number, part in enumerate(split_output(output, sizes)):
            request = joint.request(number)
            answer = form.write(contract, request, [(range(request.rows), part)])
            assert (answer.body, answer.headers) == (found[number], ())
            assert answer.media_type == b"application/json"
    assert written > 0 or (protocol, outputs) == ("inference_v2", "none")


@pytest.mark.parametrize("protocol", ["typed", "mlflow", "inference_v2"])
def test_what_is_wrong_with_one_is_found_by_itself(protocol: str) -> None:
    """None of them is read with the others then."""
    form, body_of = forms()[protocol]
    assert form.together is not None
    good = json.dumps(body_of([1.0])).encode()
    wrong = [
        b"", b"{", b"[]", b"1", b'{"x": "a"}', b"[1, 2]", good[:-1], good + good,
        json.dumps(body_of([])).encode(), json.dumps(body_of(["a"])).encode(),
        json.dumps(body_of([None])).encode(), json.dumps(body_of([1.0, True])).encode(),
    ]  # fmt: skip
    contract = contract_of([column("a", "double")])
    for body in wrong:
        assert form.together.read(contract, [good, body, good]) is None


def test_type_hints_are_left_to_the_ordinary_way() -> None:
    """MLflow's records aren't taken by models with hints."""
    contract = Contract.from_signature(
        {
            "inputs": json.dumps([{"type": "double", "required": True}]),
            "outputs": None,
            "params": None,
        },
        from_type_hints=True,
    )
    body = b'{"dataframe_records": [{"x": 1.0}]}'
    assert mlflow_json.read_together(contract, [body, body]) is None
