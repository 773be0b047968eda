"""The table of what a version may change (design page, section 4), row by row and nested."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mlflow.types.schema import AnyType, Array, Map, Object, ParamSpec, Property

from gateway.contract import Contract, differences
from gateway.errors import InvalidInput
from tests.unit.gateway.contract.signatures import body, column, contract, tensor

X = column("long", "x")


def changes(old: Contract, new: Contract, *, exact: bool = False) -> list[tuple[str, str, str]]:
    """Section, pointer and change of each difference."""
    return [(d.section, d.pointer, d.change) for d in differences(old, new, exact=exact)]


def inputs(*columns: Any, params: Any = None) -> Contract:
    return contract(list(columns), params=params)


def outputs(*columns: Any) -> Contract:
    return contract([X], list(columns))


def obj(*properties: tuple[str, Any, bool]) -> Object:
    return Object([Property(name, type_, required) for name, type_, required in properties])


NESTINGS: dict[str, tuple[Any, str]] = {
    "property": (lambda o: column(o, "o"), "/o"),
    "array": (lambda o: column(Array(o), "o"), "/o/*"),
    "map": (lambda o: column(Map(Array(o)), "o"), "/o/*/*"),
    "unnamed": (lambda o: column(o), ""),
}
ONE = obj(("a", "long", True))
ONE_OPTIONAL = obj(("a", "long", False))
TWO_REQUIRED = obj(("a", "long", True), ("b", "string", True))
TWO_OPTIONAL = obj(("a", "long", True), ("b", "string", False))
# old, new, change for inputs, change for outputs (None: fine), member
FIELDS: list[tuple[Any, Any, str | None, str | None, str]] = [
    (ONE, TWO_OPTIONAL, None, None, "/b"),
    (ONE, TWO_REQUIRED, "added", None, "/b"),
    (TWO_REQUIRED, ONE, None, "removed", "/b"),
    (TWO_OPTIONAL, ONE, None, None, "/b"),
    (ONE, ONE_OPTIONAL, None, "now_optional", "/a"),
    (ONE_OPTIONAL, ONE, "now_required", None, "/a"),
    (ONE, obj(("a", "double", True)), None, "type", "/a"),
    (ONE, obj(("a", "integer", True)), "type", None, "/a"),
    (ONE, obj(("a", "string", True)), "type", "type", "/a"),
]  # fmt: skip


@pytest.mark.parametrize("nesting", NESTINGS)
@pytest.mark.parametrize(("old", "new", "of_inputs", "of_outputs", "member"), FIELDS)
def test_fields(
    old: Any, new: Any, of_inputs: str | None, of_outputs: str | None, member: str, nesting: str
) -> None:
    """Members may come, go and loosen as the table says, at every depth."""
    made, at = NESTINGS[nesting]
    found = [("inputs", at + member, of_inputs)] if of_inputs else []
    assert changes(inputs(made(old)), inputs(made(new))) == found
    found = [("outputs", at + member, of_outputs)] if of_outputs else []
    assert changes(outputs(made(old)), outputs(made(new))) == found


def test_columns() -> None:
    """Columns follow the same rows of the table as members of objects."""
    one, two = [column("long", "a")], [column("long", "a"), column("string", "b")]
    optional = [column("long", "a"), column("string", "b", required=False)]
    assert changes(inputs(*one), inputs(*two)) == [("inputs", "/b", "added")]
    assert changes(inputs(*one), inputs(*optional)) == []
    assert changes(inputs(*two), inputs(*one)) == []
    assert changes(outputs(*two), outputs(*one)) == [("outputs", "/b", "removed")]
    assert changes(outputs(*optional), outputs(*one)) == []


KINDS = ["boolean", "integer", "long", "float", "double", "string", "binary", "datetime"]
WIDER = {("integer", "long"), ("integer", "double"), ("long", "double"), ("float", "double")}


@pytest.mark.parametrize("new", [*KINDS, "any"])
@pytest.mark.parametrize("old", [*KINDS, "any"])
def test_scalars(old: str, new: str) -> None:
    """Inputs may become wider and outputs narrower; anything is wider than all."""
    before, after = (column(AnyType() if t == "any" else t, "x") for t in (old, new))
    wider = old == new or (old, new) in WIDER or new == "any"
    narrower = old == new or (new, old) in WIDER or old == "any"
    assert (changes(inputs(before), inputs(after)) == []) == wider
    assert (changes(outputs(before), outputs(after)) == []) == narrower


@pytest.mark.parametrize("other", [Array("long"), Map("long"), ONE, "long"])
@pytest.mark.parametrize("type_", [Array("long"), Map("long"), ONE, "long"])
def test_sorts_of_types(type_: Any, other: Any) -> None:
    """A list, an object, a map and a scalar never stand for each other."""
    found = changes(inputs(column(type_, "x")), inputs(column(other, "x")))
    assert found == ([] if type_ == other else [("inputs", "/x", "type")])


@pytest.mark.parametrize(
    ("old", "new", "of_inputs", "of_outputs"),
    [
        (("int32", (-1, 2)), ("int64", (-1, 2)), [], ["type"]),
        (("uint8", (-1, 2)), ("float32", (-1, 2)), [], ["type"]),
        (("float64", (-1, 2)), ("float32", (-1, 2)), ["type"], []),
        (("bool", (-1, 2)), ("int8", (-1, 2)), ["type"], ["type"]),
        (("float32", (-1, 2)), ("object", (-1, 2)), ["type"], ["type"]),
        (("float32", (-1, 2)), ("float32", (-1, -1)), [], ["shape"]),
        (("float32", (-1, -1)), ("float32", (-1, 2)), ["shape"], []),
        (("float32", (-1, 2)), ("float32", (-1, 2, 1)), ["shape"], ["shape"]),
        (("float32", (4, 2)), ("float32", (-1, 2)), [], ["shape"]),
        (("float32", (-1, 2)), ("float32", (1, 2)), [], []),
        (("float32", (-1, 2)), ("float32", (4, 2)), ["shape"], []),
        (("object", (-1, 2)), ("object", (-1, -1)), ["shape"], ["shape"]),
    ],
)  # fmt: skip
def test_tensors(old: Any, new: Any, of_inputs: list[str], of_outputs: list[str]) -> None:
    """Tensors of inputs may become freer, those of outputs narrower."""
    for name in (None, "t"):
        before, after = tensor(*old, name), tensor(*new, name)
        assert [c for *_, c in changes(inputs(before), inputs(after))] == of_inputs
        assert [c for *_, c in changes(outputs(before), outputs(after))] == of_outputs


def test_names_and_counts() -> None:
    """Named and unnamed columns, other numbers of unnamed ones, and tensors never mix."""
    named, unnamed = inputs(column("long", "x")), inputs(column("long"))
    assert changes(named, unnamed) == [("inputs", "", "names")]
    assert changes(unnamed, named) == [("inputs", "", "names")]
    assert changes(unnamed, inputs(column("long"), column("long"))) == [("inputs", "", "count")]
    assert changes(unnamed, inputs(tensor("int64", (-1,)))) == [("inputs", "", "type")]
    assert changes(outputs(column("long", "x")), outputs(column("long"))) == [
        ("outputs", "", "names")
    ]


def test_missing_outputs_are_anything() -> None:
    """No output signature promises anything: all may follow it, and it may follow none."""
    assert changes(contract([X]), outputs(column("long", "x"))) == []
    assert changes(outputs(column("long", "x")), contract([X])) == [("outputs", "", "type")]
    assert changes(contract([X]), contract([X]), exact=True) == []
    assert changes(contract([X]), outputs(column("long", "x")), exact=True) == [
        ("outputs", "", "type")
    ]


P = ParamSpec("p", "long", 1)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ([P], [ParamSpec("p", "double", 1.0)], []),
        ([P], [ParamSpec("p", "integer", 1)], ["type"]),
        ([P], [ParamSpec("p", "long", 2)], []),
        ([P], [P, ParamSpec("q", "long", 2)], []),
        ([P], None, []),
        ([P], [ParamSpec("p", "long", None)], []),
        ([ParamSpec("p", "long", None)], [P], ["now_required"]),
        ([P], [ParamSpec("p", "long", [1], shape=(-1,))], ["shape"]),
        ([ParamSpec("p", ONE, {"a": 1})], [ParamSpec("p", TWO_OPTIONAL, {"a": 1})], []),
        ([ParamSpec("p", ONE, {"a": 1})], [ParamSpec("p", TWO_REQUIRED, {"a": 1, "b": ""})],
         ["added"]),
    ],
)  # fmt: skip
def test_params(old: Any, new: Any, found: list[str]) -> None:
    """Params may be added, dropped and loosened; a null that was allowed stays so."""
    assert [c for *_, c in changes(inputs(X, params=old), inputs(X, params=new))] == found


def test_bodies_keep_their_meaning() -> None:
    """What was a wrapper or one input must not become something else in the same body."""
    column_called = inputs(X, column("long", "inputs", required=False))
    assert changes(inputs(X), column_called) == [("inputs", "", "reading")]
    assert changes(column_called, inputs(X)) == []
    wrapper = inputs(column(Object([Property("inputs", "long")])))
    assert changes(wrapper, inputs(column(AnyType()))) == [("inputs", "", "reading")]
    assert changes(inputs(column(Array("long"))), inputs(column(AnyType()))) == [
        ("inputs", "", "reading")
    ]
    assert changes(inputs(column(Array("long"))), inputs(column(Array(AnyType())))) == []
    assert changes(inputs(column("long")), inputs(column(AnyType()))) == []


def test_type_hints_are_no_difference() -> None:
    """Whether a signature came from type hints is nothing that callers see."""
    assert changes(inputs(column("long")), contract([column("long")], hints=True), exact=True) == []


@pytest.mark.parametrize(
    ("new", "found"),
    [
        ([X, column("string", "s", required=False)], [("inputs", "/s", "added")]),
        ([column("double", "x")], [("inputs", "/x", "type")]),
        ([column("long", "x", required=False), column("double", "d")],
         [("inputs", "/x", "now_optional"), ("inputs", "/d", "added")]),
    ],
)  # fmt: skip
def test_exact(new: Any, found: Any) -> None:
    """Exactly, what would be fine is a difference too."""
    assert changes(inputs(X), inputs(*new), exact=True) == found


def test_exact_params_and_order() -> None:
    """Exactly, defaults and the order of the columns count."""
    old, new = inputs(X, params=[P]), inputs(X, params=[ParamSpec("p", "long", 2)])
    assert changes(old, new, exact=True) == [("params", "/p", "default")]
    assert changes(old, inputs(X), exact=True) == [("params", "/p", "removed")]
    a, b = column("long", "a"), column("long", "b")
    assert changes(inputs(a, b), inputs(b, a), exact=True) == [("inputs", "", "signature")]
    assert changes(inputs(a, b), inputs(b, a)) == []


def test_a_difference_tells_itself() -> None:
    """A difference says what was and what is, for people and as JSON."""
    (found,) = differences(inputs(X), inputs(X, column("string", "a/b")))
    assert found.as_dict() == {
        "section": "inputs", "pointer": "/a~1b", "change": "added", "contract": None,
        "candidate": "string (required)",
        "message": "Inputs /a~1b is new (contract: nothing; candidate: string (required)).",
    }  # fmt: skip


# --- answering for a contract -----------------------------------------------------------------


def test_dropped_fields_are_taken_and_left_out() -> None:
    """What the version dropped is still validated, and kept from the model at every depth."""
    old = inputs(column(Array(TWO_REQUIRED), "o"), column("long", "gone"), params=[P])
    new = inputs(column(Array(ONE), "o"))
    extended = new.extended_by(old)
    sent = {"inputs": {"o": [{"a": 1, "b": "x"}], "gone": 3}, "params": {"p": 1}}
    request = extended.parse(body(sent))
    ((_, frame),) = request.frames
    assert frame.names == ("o",)
    assert frame.columns[0] == [[{"a": 1}]]
    assert request.params == {}
    with pytest.raises(InvalidInput) as caught:
        extended.parse(
            body({"inputs": {"o": [{"a": 1, "b": 1}], "gone": "x"}, "params": {"p": "x"}})
        )
    pointers = [violation.pointer for violation in caught.value.violations]
    assert pointers == ["/inputs/o/0/b", "/inputs/gone", "/params/p"]
    assert extended.parse(body({"o": [{"a": 1}]})).rows == 1
    assert "gone" in extended.record_schema()["properties"]
    assert "p" in (extended.params_schema() or {})["properties"]


def test_answers_are_those_of_the_contract() -> None:
    """What the contract doesn't declare is dropped at every depth, and found by the own names."""
    old = outputs(column(ONE, "o"), column("double", "y"))
    new = contract([X], [column("long", "z"), column("long", "y"), column(TWO_REQUIRED, "o")])
    assert differences(old, new) == ()
    extended = new.extended_by(old)
    values = ("values", [[7, 8, {"a": 1, "b": "x"}]])
    assert json.loads(extended.render([(range(1), values)], 1)) == [{"o": {"a": 1}, "y": 8}]
    assert extended.response_schema() == old.response_schema()


def test_promise_of_anything_keeps_bare_values() -> None:
    """Where nothing was promised, answers stay as the model says them."""
    extended = outputs(column("long", "y")).extended_by(contract([X]))
    assert extended.render([(range(1), ("values", [5]))], 1) == b"[5]"


def test_extensions_do_not_pile_up() -> None:
    """A version extended by a contract may answer for it, and extending again changes nothing."""
    old, new = inputs(X, column("long", "gone")), inputs(X)
    extended = new.extended_by(old)
    assert extended.extended_by(old) is extended
    assert new.extended_by(new) is new
    assert new.extended_by(inputs(X)) is new
