"""Objects inside of a schema as components of their own."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from gateway.contract import json_schema
from gateway.http.schema_parts import taken_apart
from tests.unit.gateway.contract.signatures import contracts, json_values, values

LEAF = {"type": "object", "properties": {"q": {"type": "number"}}, "additionalProperties": False}
KEY = "#/components/schemas/"


def _whole(parts: dict[str, Any], key: str) -> dict[str, Any]:
    """The document that a component would be in, as a schema that stands alone."""
    return {"components": {"schemas": parts}, "$ref": f"{KEY}{key}"}


def test_each_object_has_a_name_of_where_it_is() -> None:
    """Members, elements of lists and values of maps; null stays where it was allowed."""
    schema = {
        "type": "object",
        "properties": {
            "address": {"type": "object", "properties": {"geo": LEAF}},
            "tags": {"type": ["array", "null"], "items": LEAF},
            "by name": {"type": "object", "additionalProperties": LEAF},
            "maybe": {**LEAF, "type": ["object", "null"]},
        },
    }
    parts = taken_apart("m", "Input", schema)
    assert set(parts) == {
        "m.Input", "m.InputAddress", "m.InputAddressGeo", "m.InputTagsItem", "m.InputByNameValue",
        "m.InputMaybe",
    }  # fmt: skip
    members = parts["m.Input"]["properties"]
    assert members["maybe"] == {"anyOf": [{"$ref": f"{KEY}m.InputMaybe"}, {"type": "null"}]}
    assert members["tags"]["items"] == {"$ref": f"{KEY}m.InputTagsItem"}
    assert parts["m.InputMaybe"] == LEAF


def test_members_that_read_alike_have_objects_of_their_own() -> None:
    """`a-b`, `a_b` and `a` with `b` in it would all be `InputAB`."""
    inner = {"type": "object", "properties": {"b": LEAF}}
    schema = {"type": "object", "properties": {"a-b": LEAF, "a_b": LEAF, "a": inner, "A B": LEAF}}
    parts = taken_apart("m", "Input", schema)
    assert len(parts) == 6
    assert len({key.casefold() for key in parts}) == 6


@given(st.data(), contracts())
def test_the_parts_say_what_the_whole_said(data: Any, contract: Any) -> None:
    """Any value is valid under the one exactly where it is under the other."""
    for schema, row in (
        (json_schema.record_schema(contract.accepted), contract.accepted.row),
        (json_schema.answer_schema(contract.promised), contract.promised.row),
    ):
        parts = taken_apart("m", "Input", schema)
        value = data.draw(values(row) | json_values)
        apart = Draft202012Validator(_whole(parts, "m.Input"))
        assert apart.is_valid(value) == Draft202012Validator(schema).is_valid(value)
