"""What the published schemas say. That the parser agrees with them is in test_properties.py."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from mlflow.types.schema import AnyType, Array, Map, Object, ParamSpec, Property

from gateway.contract import Contract
from tests.unit.gateway.contract.signatures import body, column, contract, tensor


def titles(model: Contract) -> list[str]:
    return [form["title"] for form in model.request_schema()["anyOf"]]


def test_forms_are_published() -> None:
    """The wrapper is in the schema exactly where the model takes it."""
    assert titles(contract([column("long", "x")])) == [
        "One input",
        "List of inputs",
        "Inputs with params",
    ]
    assert titles(contract([column("long", "inputs")])) == ["One input", "List of inputs"]


def test_records_are_closed_and_optional_members_nullable() -> None:
    """A record says its members, which are required, which may be null, and that it is closed."""
    model = contract([column("string", "a"), column("boolean", "b", required=False)])
    assert model.record_schema() == {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": ["boolean", "null"]}},
        "additionalProperties": False,
        "required": ["a"],
    }


def test_schemas_stand_alone() -> None:
    """No schema refers to anything outside of itself, and all are JSON without NaN."""
    type_ = Object([Property("a", Array(Map("double"))), Property("b", AnyType(), required=False)])
    params = [ParamSpec("p", "float", 0.5)]
    model = contract([column(type_, "x")], [column(type_, "x")], params)
    for schema in (model.request_schema(), model.response_schema(), model.params_schema()):
        Draft202012Validator.check_schema(schema)
        assert "$ref" not in json.dumps(schema, allow_nan=False)


@pytest.mark.parametrize("type_", [Map("long"), AnyType()])
def test_bare_objects_exclude_the_wrapper(type_: Any) -> None:
    """Where any object may be an input, the schema says that one with inputs is the wrapper."""
    one, _, wrapper = contract([column(type_)]).request_schema()["anyOf"]
    assert not Draft202012Validator(one).is_valid({"inputs": 1})
    assert Draft202012Validator(wrapper).is_valid({"inputs": {"inputs": 1}})


def test_floats_of_answers_may_be_null() -> None:
    """The schema of an answer says that NaN becomes null, and that of a request refuses it."""
    model = contract([column("double", "x")], [column("double", "y"), column("long", "n")])
    row = model.response_schema()["items"]["properties"]
    assert row["y"]["type"] == ["number", "null"]
    assert "NaN" in row["y"]["description"]
    assert row["n"]["type"] == "integer"
    assert model.record_schema()["properties"]["x"]["type"] == "number"


@pytest.mark.parametrize(
    ("columns", "want"),
    [
        ([column("string", "a"), column("long", "b", required=False)], {"a": "text"}),
        ([column(Array("double"))], [[1.0]]), ([column("long"), column("string")], [[1, "text"]]),
        ([tensor("float32", (-1, 2, -1))], [[[1.0], [1.0]]]),
        ([tensor("int64", (2, 1))], [[1], [1]]),
        ([tensor("int64", (1, 1), "t")], {"t": [1]}), ([column(Map("boolean"))], [{"key": False}]),
    ],
)  # fmt: skip
def test_examples(columns: Any, want: Any) -> None:
    """The example is the smallest request that has a value in it."""
    model = contract(columns)
    assert model.example() == want
    assert model.parse(body(want)).rows == max(1, model.inputs.chunk or 1)


@pytest.mark.parametrize(
    ("shape", "is_made_up"),
    [((-1, 1000), True), ((-1, 1001), False), ((1000,), True), ((501, 2), False),
     ((-1, 2048, 2048, 3), False), ((-1, 10**6, 10**6, 10**6), False)],
)  # fmt: skip
def test_large_tensors_have_no_example(shape: tuple[int, ...], is_made_up: bool) -> None:
    """A few numbers of a shape never become gigabytes."""
    for name in (None, "t"):
        assert (contract([tensor("int64", shape, name)]).example() is not None) == is_made_up
