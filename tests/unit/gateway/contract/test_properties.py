"""Properties that hold for every signature, drawn by hypothesis."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from mlflow.models.utils import _enforce_schema
from mlflow.types.type_hints import _validate_data_against_type_hint

from gateway.contract import Contract, Frame, differences
from gateway.contract.encoding import COLUMN_DTYPES
from gateway.contract.extension import extended_rows
from gateway.contract.json_schema import example_value
from gateway.contract.signature import read_signature
from gateway.contract.types import (
    AnyValue,
    ArrayOf,
    Field,
    MapOf,
    ObjectOf,
    Rows,
    Scalar,
    TensorOf,
    Type,
)
from gateway.errors import InvalidInput, MalformedJson
from tests.unit.gateway.contract import signatures as sig

# `make fuzz` multiplies how many examples are tried.
_EFFORT = int(os.environ.get("FUZZ_EFFORT", "1"))

few = settings(
    max_examples=40 * _EFFORT,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.data_too_large,
    ],
)


def accepts(contract: Contract, value: Any) -> bool:
    try:
        contract.parse(sig.body(value))
    except InvalidInput:
        return False
    return True


def ragged(contract: Contract, value: Any) -> bool:
    """Refused for what JSON Schema can't say."""
    try:
        contract.parse(sig.body(value))
    except InvalidInput as error:
        return any("equal length" in v.message for v in error.violations)
    return False


@few
@given(st.data(), sig.contracts())
def test_valid_bodies_are_accepted_and_valid(data: Any, contract: Contract) -> None:
    """What the strategy means to be valid is accepted, and valid under the request schema."""
    value = data.draw(sig.bodies(contract))
    assert Draft202012Validator(contract.request_schema()).is_valid(value)
    assert accepts(contract, value) or ragged(contract, value)


@settings(few, max_examples=80 * _EFFORT)
@given(st.data(), sig.contracts())
def test_parser_and_schema_agree(data: Any, contract: Contract) -> None:
    """Any JSON value is accepted by parse iff it is valid under the request schema."""
    value = data.draw(sig.bodies(contract))
    for _ in range(data.draw(st.integers(1, 2))):
        value = data.draw(sig.mutated(value))
    schema = contract.request_schema()
    Draft202012Validator.check_schema(schema)
    assume(not ragged(contract, value))
    value = json.loads(sig.body(value))
    assert accepts(contract, value) == Draft202012Validator(schema).is_valid(value)


def enforced(frame: Frame, rows: Rows) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _enforce_schema(sig.model_input(frame), sig.to_schema(rows))


@few
@given(st.data(), sig.contracts())
def test_frames_pass_mlflow(data: Any, contract: Contract) -> None:
    """What parse accepts passes MLflow's own enforcement, with all its rows and exact types."""
    value = data.draw(sig.bodies(contract))
    assume(not ragged(contract, value))
    request = contract.parse(sig.body(value))
    assert sorted(i for places, _ in request.frames for i in places) == list(range(request.rows))
    for places, frame in request.frames:
        assert len(places) == frame.rows
        made = enforced(frame, contract.inputs)
        if frame.layout == "table":
            check_table(made, frame, contract.inputs)
        elif frame.layout == "tensor":
            assert len(made) == frame.rows


def check_table(made: pd.DataFrame, frame: Frame, rows: Rows) -> None:
    assert len(made) == frame.rows
    types = dict(zip(rows.labels, rows.fields, strict=True))
    for name in frame.names:
        field = types[name]
        if isinstance(field.type, Scalar) and field.type.kind in COLUMN_DTYPES:
            dtype = COLUMN_DTYPES[field.type.kind]
            assert made[name].dtype == dtype or (dtype == np.bool_ and not field.required)


@few
@given(st.data(), sig.types(plain=True))
def test_values_pass_type_hints(data: Any, type_: Type) -> None:
    """What parse accepts for a model made from type hints passes MLflow's check of the hints."""
    rows = Rows((Field("0", type_),), (0,), False)
    contract = sig.of_rows(rows, hints=True)
    request = contract.parse(sig.body(data.draw(sig.bodies(contract))))
    for _, frame in request.frames:
        assert frame.layout == "values"
        made = _validate_data_against_type_hint(frame.columns[0], list[sig.to_hint(type_)])  # type: ignore[misc]
        assert len(made) == frame.rows


@few
@given(st.data(), sig.contracts())
def test_answers_are_valid(data: Any, contract: Contract) -> None:
    """The outputs of the model that returns its inputs are rendered, and valid."""
    value = data.draw(sig.bodies(contract))
    assume(not ragged(contract, value))
    request = contract.parse(sig.body(value))
    outputs = [(places, sig.as_output(frame)) for places, frame in request.frames]
    answer = json.loads(contract.render(outputs, request.rows))
    assert len(answer) == request.rows
    schema = contract.response_schema()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(answer)


@settings(few, max_examples=120 * _EFFORT)
@given(st.binary(max_size=60) | sig.json_values.map(sig.body), sig.contracts())
def test_nothing_foreign_is_raised(body: bytes, contract: Contract) -> None:
    """Whatever the bytes, parse returns or raises an error of the gateway's tree."""
    with contextlib.suppress(MalformedJson, InvalidInput):
        contract.parse(body)


@few
@given(sig.contracts())
def test_examples_are_accepted(contract: Contract) -> None:
    """The example is a valid request with a row, and so is one of examples of all columns."""
    assert contract.parse(sig.body(contract.example())).rows >= 1
    if contract.inputs.named:
        whole = {field.name: example_value(field.type) for field in contract.inputs.fields}
        assert contract.parse(sig.body([whole] * (contract.inputs.chunk or 1))).rows >= 1


@few
@given(sig.contracts(), st.booleans())
def test_no_contract_differs_from_itself(contract: Contract, exact: bool) -> None:
    """A version may always answer for its own contract, which leaves it as it is."""
    assert differences(contract, contract, exact=exact) == ()
    assert contract.extended_by(contract) is contract


@few
@given(sig.tables() | sig.tensor_rows())
def test_signatures_are_read_back(rows: Rows) -> None:
    """Types -> MLflow's JSON -> types is the identity."""
    signature = {"inputs": sig.to_schema(rows).to_json()}
    assert read_signature(signature, from_type_hints=False).inputs == rows


# --- two versions ---------------------------------------------------------------------------------


@st.composite
def changed_type(draw: st.DrawFn, type_: Type) -> Type:
    """Another type, near to the one given."""
    match type_:
        case ArrayOf(items) if draw(st.booleans()):
            return ArrayOf(draw(changed_type(items)))
        case MapOf(inner) if draw(st.booleans()):
            return MapOf(draw(changed_type(inner)))
        case ObjectOf(members) if draw(st.booleans()):
            return ObjectOf(tuple(sorted(draw(changed_fields(members)), key=lambda f: f.name)))
        case Scalar(kind) if kind in ("integer", "long", "float"):
            return draw(st.sampled_from([Scalar("long"), Scalar("double"), AnyValue()]))
        case TensorOf(dtype, shape):
            wider = draw(st.sampled_from([dtype, np.dtype("float64"), np.dtype("int64")]))
            return TensorOf(
                wider, draw(st.sampled_from([shape, (*shape[:1], *[-1] * len(shape[1:]))]))
            )
    return draw(st.just(AnyValue()) | st.just(type_) | sig.scalars)


@st.composite
def changed_fields(draw: st.DrawFn, members: tuple[Field, ...]) -> tuple[Field, ...]:
    kept = list(members)
    at = draw(st.integers(0, len(kept) - 1))
    old = kept[at]
    match draw(st.sampled_from(["type", "flag", "drop", "add"])):
        case "type":
            kept[at] = Field(old.name, draw(changed_type(old.type)), old.required)
        case "flag":
            kept[at] = Field(old.name, old.type, not old.required)
        case "drop" if len(kept) > 1:
            del kept[at]
        case _:
            if all(f.name != "new" for f in kept):
                kept.append(Field("new", Scalar("string"), False))
    return tuple(kept)


@st.composite
def versions(draw: st.DrawFn) -> tuple[Contract, Contract]:
    rows = draw(sig.tables() | sig.tensor_rows())
    other = rows
    for _ in range(draw(st.integers(1, 3))):
        if rows.tensors or not rows.named:
            fields = tuple(Field(f.name, draw(changed_type(f.type))) for f in other.fields)
        else:
            fields = draw(changed_fields(other.fields))
        if rows.tensors != all(isinstance(f.type, TensorOf) for f in fields):
            continue
        other = Rows(
            fields, tuple(f.name for f in fields) if rows.named else rows.labels, rows.named
        )
    whole = (Scalar("integer"), Scalar("long"))
    assume(any(f.required or f.type not in whole for f in other.fields))
    return sig.of_rows(rows), sig.of_rows(other)


def inputs_only(contract: Contract) -> Contract:
    """The contract with outputs of anything."""
    return replace(contract, outputs=None, promised=None)


@few
@given(st.data(), versions())
def test_what_may_answer_takes_all_requests(data: Any, pair: tuple[Contract, Contract]) -> None:
    """Where nothing differs, every request of the contract is one of the version: same rows."""
    old, new = map(inputs_only, pair)
    assume(not differences(old, new))
    value = data.draw(sig.bodies(old))
    assume(not ragged(old, value))
    extended = new.extended_by(old)
    request = extended.parse(sig.body(value))
    assert request.rows == old.parse(sig.body(value)).rows
    for _, frame in request.frames:
        enforced(frame, new.inputs)
    assert extended.inputs == new.inputs
    assert extended.accepted == extended_rows(new.inputs, old.inputs)


@few
@given(st.data(), versions())
def test_what_may_answer_keeps_the_answers(data: Any, pair: tuple[Contract, Contract]) -> None:
    """Where the outputs differ in nothing, every answer of the version is one of the contract."""
    old, new = pair
    assume(all(d.section != "outputs" for d in differences(old, new)))
    value = data.draw(sig.bodies(new))
    assume(not ragged(new, value))
    request = new.parse(sig.body(value))
    answering = replace(new, promised=old.promised)
    outputs = [(places, sig.as_output(frame)) for places, frame in request.frames]
    answer = json.loads(answering.render(outputs, request.rows))
    Draft202012Validator(old.response_schema()).validate(answer)


@few
@given(versions())
def test_difference_is_told(pair: tuple[Contract, Contract]) -> None:
    """Exactly, two signatures differ in nothing only where they are equal."""
    old, new = pair
    same = old.inputs == new.inputs
    assert (differences(old, new, exact=True) == ()) == same
