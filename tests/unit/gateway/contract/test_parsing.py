"""What a request body may be: types, forms, pointers. The tables of the design page, section 3."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest
from mlflow.models.utils import _enforce_params_schema
from mlflow.types.schema import AnyType, Array, Map, Object, ParamSchema, ParamSpec, Property

from gateway.contract import Contract
from gateway.contract.body import MAX_DEPTH, read_json
from gateway.errors import InvalidInput, MalformedJson
from tests.unit.gateway.contract.signatures import ODD_NAMES, body, column, contract, tensor

FLOAT32_MAX = 3.4028234663852886e38

ACCEPTED = [
    ("boolean", True), ("boolean", False),
    ("integer", 1), ("integer", 1.0), ("integer", -(2**31)), ("integer", 2**31 - 1),
    ("long", 2**63 - 1), ("long", -(2**63)), ("long", 1e3), ("long", -0.0),
    ("float", 1), ("float", 0.1), ("float", FLOAT32_MAX), ("float", int(FLOAT32_MAX)),
    ("double", 1), ("double", 1.7976931348623157e308), ("double", 2**1000),
    ("string", ""), ("string", "é\u0000\U0001f600"),
    ("binary", ""), ("binary", "YQ=="), ("binary", "+/+/"),
    ("binary", "YQ==\n"), ("binary", "YWJj\r\nYQ=="),
    ("datetime", "2020-02-29"), ("datetime", "2000-02-29T23:59"), ("datetime", "1678-01-01 00:00"),
    ("datetime", "2261-12-31T23:59:59.999999999"), ("datetime", "2020-01-01T00:00:00Z"),
    ("datetime", "2020-01-01T00:00:00.5+02:00"),
]  # fmt: skip
REFUSED = [
    ("boolean", 0), ("boolean", 1), ("boolean", "true"), ("boolean", None),
    ("integer", 1.5), ("integer", "1"), ("integer", True), ("integer", 2**31), ("integer", 1e300),
    ("long", 2**63), ("long", -(2**63) - 1), ("long", 9223372036854775808.0), ("long", ["x"]),
    ("float", "1"), ("float", True), ("float", 3.5e38), ("float", int(FLOAT32_MAX) + 1),
    ("double", "1"), ("double", False), ("double", 10**400), ("double", None), ("double", {}),
    ("string", 1), ("string", True), ("string", {}), ("string", None),
    ("binary", "YQ="), ("binary", "YQ"), ("binary", "Y Q="), ("binary", "YWJj=="),
    ("binary", "é==="),
    ("binary", "YQ== "), ("binary", "===="), ("binary", 1), ("binary", "YQ-_"),
    ("datetime", "2021-02-29"), ("datetime", "1900-02-29"), ("datetime", "2020-04-31"),
    ("datetime", "1677-12-31"), ("datetime", "2262-01-01"), ("datetime", "2020-13-01"),
    ("datetime", "2020-01-01T24:00"), ("datetime", "2020-01-01T00:00:60"),
    ("datetime", "2020-01-01\n"),
    ("datetime", "2020-01-01T00:00:00.0000000001"), ("datetime", "2020-1-1"), ("datetime", 0),
    ("datetime", "2020-01-01Z"), ("datetime", "２０２０-01-01"),
    ("datetime", "2020-01-01T00:00+24:00"),
]  # fmt: skip

WRAPPINGS: dict[str, tuple[Any, Any]] = {
    "column": (lambda t: column(t, "x"), lambda v: {"x": v}),
    "array": (lambda t: column(Array(t), "x"), lambda v: {"x": [v]}),
    "property": (lambda t: column(Object([Property("p", t)]), "x"), lambda v: {"x": {"p": v}}),
    "map": (lambda t: column(Map(t), "x"), lambda v: {"x": {"k": v}}),
    "unnamed": (lambda t: column(t), lambda v: v),
}
POINTERS = {"column": "/x", "array": "/x/0", "property": "/x/p", "map": "/x/k", "unnamed": ""}


def refused(model: Contract, value: Any) -> list[str]:
    """The pointers of the violations."""
    with pytest.raises(InvalidInput) as caught:
        model.parse(body(value))
    return [violation.pointer for violation in caught.value.violations]


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize(("kind", "value"), ACCEPTED)
def test_accepted_values(kind: str, value: Any, wrapping: str) -> None:
    """Each type takes its JSON values, at the top and nested."""
    column_of, value_of = WRAPPINGS[wrapping]
    assert contract([column_of(kind)]).parse(body(value_of(value))).rows == 1


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize(("kind", "value"), REFUSED)
def test_refused_values(kind: str, value: Any, wrapping: str) -> None:
    """Nothing is guessed: a value of another type is refused where it is, at the top and nested."""
    column_of, value_of = WRAPPINGS[wrapping]
    model = contract([column_of(kind)])
    at = "/0" if wrapping == "unnamed" and isinstance(value, list) else POINTERS[wrapping]
    assert refused(model, value_of(value)) == [at]


def test_messages_never_repeat_values() -> None:
    """A violation says what is expected, not what was sent."""
    model = contract([column("long", "n"), column("string", "s"), column("datetime", "d")])
    with pytest.raises(InvalidInput) as caught:
        model.parse(body({"n": "s3cret", "s": 7771777, "d": "s3cret", "s3cret": 1}))
    assert not any("s3cret" in v.message or "777" in v.message for v in caught.value.violations)
    assert caught.value.violations[0].message.startswith("Expected a whole number from -92")


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[1]x", b"NaN", b"[Infinity]", b"-Infinity", b'"\\ud800"', b"\xff", b"[1,]", b"01",
     b"9" * 5000, b"[" * 100_000, b'{"a":' * 5000, b"'a'", b'"\x00"'],
)  # fmt: skip
def test_malformed_bodies(text: bytes) -> None:
    """What is no JSON text, or nested beyond reason, is malformed and nothing else."""
    with pytest.raises(MalformedJson):
        contract([column("double", "x")]).parse(text)


NAMED = [column("string", "prompt"), column("long", "n", required=False)]
MAX_LEN = [ParamSpec("max_len", "long", 10)]


@pytest.mark.parametrize(
    ("value", "rows"),
    [
        ({"prompt": "a"}, 1), ([], 0), ([{"prompt": "a"}, {"prompt": "b", "n": None}], 2),
        ({"inputs": {"prompt": "a"}}, 1), ({"inputs": []}, 0),
        ({"inputs": [{"prompt": "a"}], "params": {"max_len": 3}}, 1),
        ({"inputs": [{"prompt": "a"}], "params": {}}, 1),
    ],
)  # fmt: skip
def test_forms_of_named_inputs(value: Any, rows: int) -> None:
    """A record, a list of records, or either of them wrapped."""
    assert contract(NAMED, params=MAX_LEN).parse(body(value)).rows == rows


@pytest.mark.parametrize(
    ("value", "pointers"),
    [
        ({"prompt": 1}, ["/prompt"]), ([{"prompt": 1}], ["/0/prompt"]), ({}, ["/prompt"]),
        ({"inputs": {"prompt": 1}}, ["/inputs/prompt"]),
        ({"inputs": [{}]}, ["/inputs/0/prompt"]), ([3], ["/0"]), (3, [""]), ("a", [""]),
        ({"inputs": 3}, ["/inputs"]), ({"prompt": "a", "x/y~z": 1}, ["/x~1y~0z"]),
        ({"prompt": "a", "params": {}}, ["/params"]),
        ({"inputs": [], "params": {"x": 1}}, ["/params/x"]),
        ({"inputs": [], "params": {"max_len": "x"}}, ["/params/max_len"]),
        ({"inputs": [], "params": {"max_len": None}}, ["/params/max_len"]),
        ({"inputs": [], "params": None}, ["/params"]), ({"inputs": [], "parms": {}}, ["/parms"]),
        ({"inputs": [{"prompt": "a"}, {"prompt": 1}], "w": 1, "params": {"y": 0}},
         ["/inputs/1/prompt", "/params/y", "/w"]),
    ],
)  # fmt: skip
def test_pointers_into_the_body(value: Any, pointers: list[str]) -> None:
    """Each violation points at the member of the body that is wrong, missing or unknown."""
    assert refused(contract(NAMED, params=MAX_LEN), value) == pointers


def test_rows_far_down_are_pointed_at() -> None:
    """Pointers count rows in the whole list, though rows are validated in pieces."""
    rows = [{"prompt": "a"}] * 2500 + [{"prompt": 1}]
    assert refused(contract(NAMED), rows) == ["/2500/prompt"]


def test_violations_are_bounded() -> None:
    """A body that is wrong everywhere costs few violations."""
    model = contract([column(Array("long"), "xs"), column(Map("long"), "m", required=False)])
    assert len(refused(model, {"xs": ["a"] * 50_000})) == 1
    assert len(refused(model, [{"xs": 1}] * 50_000)) == InvalidInput.MAX_VIOLATIONS
    assert refused(model, {str(i): 0 for i in range(20_000)}) == [""]


def test_column_called_inputs() -> None:
    """A model with a column called inputs takes records and lists of them, and no wrapper."""
    model = contract([column("long", "inputs")], params=MAX_LEN)
    assert model.parse(body({"inputs": 3})).rows == 1
    assert refused(model, {"inputs": {"inputs": 3}}) == ["/inputs"]
    assert refused(model, {"inputs": 3, "params": {}}) == ["/params"]


@pytest.mark.parametrize(
    ("type_", "value", "rows"),
    [
        ("string", "a", 1), ("string", ["a", "b"], 2), ("string", {"inputs": ["a"]}, 1),
        (Array("double"), [1, 2, 3], 1), (Array("double"), [[1], [2]], 2), (Array("double"), [], 0),
        (Array("double"), [[], []], 2), (Array("double"), {"inputs": [1, 2]}, 1),
        (Array(Array("long")), [[1], [2]], 1), (Array(Array("long")), [[[1]], [[2]]], 2),
        (Map("long"), {"a": 1}, 1), (Map("long"), [{"a": 1}, {}], 2),
        (Map("long"), {"inputs": {"inputs": 1}}, 1),
        (AnyType(), 5, 1), (AnyType(), [1, 2], 2), (AnyType(), [1, None], 2),
        (AnyType(), None, 1), (AnyType(), {"inputs": None}, 1),
        (AnyType(), {"inputs": [1, 2, 3]}, 3), (AnyType(), {"input": 3}, 1),
        (Object([Property("inputs", "long")]), {"inputs": 1}, 1),
        (Object([Property("a", "long")]), {"inputs": [{"a": 1}, {"a": 2}]}, 2),
    ],
)  # fmt: skip
def test_forms_of_one_unnamed_input(type_: Any, value: Any, rows: int) -> None:
    """The bare value or a list of them; a list is one input where it is no list of inputs."""
    assert contract([column(type_)]).parse(body(value)).rows == rows


@pytest.mark.parametrize(
    ("type_", "value", "pointers"),
    [
        ("string", ["a", 1], ["/1"]), ("string", [["a"]], ["/0"]),
        (Array("double"), [[1], ["a"]], ["/1/0"]), (Array("double"), [1, "a"], ["/1"]),
        (Array("double"), 1, [""]),
        (Map("long"), {"inputs": 5}, ["/inputs"]),
        (Object([Property("inputs", "long")]), {"inputs": 1, "params": {}}, ["/params"]),
    ],
)  # fmt: skip
def test_pointers_of_one_unnamed_input(type_: Any, value: Any, pointers: list[str]) -> None:
    """Where no reading fits, the one that the value resembles is reported."""
    assert refused(contract([column(type_)]), value) == pointers


@pytest.mark.parametrize(
    ("inner", "value", "rows"),
    [
        ((1,), [0.5, 1.5], 2), ((1,), [[0.5], [1.5]], 2), ((1,), [0.5], 1), ((1,), 0.5, 1),
        ((1,), [0.5, [1.5]], 2), ((1, 1), [0.5, 1.5], 2), ((1, 1), [[0.5]], 1),
        ((1, 1), [[[0.5]], [[1.5]]], 2),
    ],
)  # fmt: skip
def test_one_column_of_a_tensor_may_come_bare(
    inner: tuple[int, ...], value: Any, rows: int
) -> None:
    """The one value of a row says the same without its lists."""
    ((_, frame),) = contract([tensor("float32", (-1, *inner))]).parse(body(value)).frames
    assert frame.columns[0].tolist() == np.reshape([0.5, 1.5][:rows], (-1, *inner)).tolist()


@pytest.mark.parametrize(
    ("value", "pointer"),
    [(["a"], "/0"), ([["a"]], "/0/0"), ([[[0.5]]], "/0/0"), ([[0.5, 1.5]], "/0"), ([None], "/0")],
)
def test_what_is_no_value_of_a_tensor_is_refused(value: Any, pointer: str) -> None:
    """A text, a list too deep or too long, null: where it is."""
    assert refused(contract([tensor("float32", (-1, 1))]), value) == [pointer]


def test_several_unnamed_inputs() -> None:
    """A row of several unnamed columns is a list of exactly as many values."""
    model = contract([column("long"), column("string")])
    assert model.parse(body([1, "a"])).rows == 1
    assert model.parse(body([[1, "a"], [2, "b"]])).rows == 2
    assert refused(model, [[1]]) == ["/0/1"]
    assert refused(model, [[1, "a", 2]]) == ["/0"]
    assert refused(model, [1, 2]) == ["/1"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(name: str) -> None:
    """Any text may be the name of a column, of a property and of a param."""
    param = ParamSpec(name, "string", "a")
    nested = Object([Property(name, "long"), Property("", "long", required=False)])
    model = contract([column("long", name), column(nested, "outer")], params=[param])
    value = {"inputs": [{name: 1, "outer": {name: 2}}], "params": {name: "b"}}
    request = model.parse(body(value))
    assert request.params == {name: "b"}
    assert set(request.frames[0][1].names) == {name, "outer"}
    escaped = name.replace("~", "~0").replace("/", "~1")
    assert refused(model, {name: "a", "outer": {name: 2}}) == [f"/{escaped}"]


def test_names_that_are_numbers() -> None:
    """A DataFrame's numbered columns are called by digits in JSON and by numbers in frames."""
    model = Contract.from_signature({"inputs": '[{"type": "long", "name": 0, "required": true}]'})
    ((_, frame),) = model.parse(body({"0": 5})).frames
    assert frame.names == (0,)


PARAMS = [
    ParamSpec("d", "double", 1.0), ParamSpec("when", "datetime", "2020-01-01"),
    ParamSpec("stop", "string", ["a"], shape=(-1,)), ParamSpec("maybe", "long", None),
    ParamSpec("o", Object([Property("i", "long"), Property("s", "string", required=False)]),
              {"i": 1}),
]  # fmt: skip


def test_params_pass_mlflow() -> None:
    """Params are plain Python values that MLflow's check takes; absent ones are left to MLflow."""
    sent = {"d": 2, "when": "2021-01-01T01:00+01:00", "stop": ["x"], "maybe": None, "o": {"i": 3}}
    got = contract(NAMED, params=PARAMS).parse(body({"inputs": [], "params": sent})).params
    want = {"d": 2.0, "when": dt.datetime(2021, 1, 1), "stop": ["x"], "maybe": None, "o": {"i": 3}}
    assert got == want
    assert type(got["d"]) is float
    assert _enforce_params_schema(dict(got), ParamSchema(PARAMS)) == want
    absent = contract(NAMED, params=PARAMS).parse(body({"inputs": []}))
    assert absent.params == {}


@pytest.mark.parametrize(
    ("params", "pointers"),
    [
        ({"d": None}, ["/params/d"]), ({"stop": "x"}, ["/params/stop"]),
        ({"stop": [None]}, ["/params/stop/0"]), ({"o": {}}, ["/params/o/i"]),
        ({"o": {"i": 1, "z": 1}}, ["/params/o/z"]), ({"maybe": "1"}, ["/params/maybe"]),
    ],
)  # fmt: skip
def test_params_refused(params: Any, pointers: list[str]) -> None:
    """Params are as strict as inputs; null is taken only where the default is null."""
    assert refused(contract(NAMED, params=PARAMS), {"inputs": [], "params": params}) == pointers


def test_params_of_a_model_without() -> None:
    """A model without params takes an empty object and no member in it."""
    assert contract(NAMED).parse(body({"inputs": [], "params": {}})).params == {}
    assert refused(contract(NAMED), {"inputs": [], "params": {"a": 1}}) == ["/params/a"]


@pytest.mark.parametrize(
    ("shape", "value", "rows"),
    [
        ((-1,), 5, 1), ((-1,), [1, 2], 2), ((-1, 3), [1, 2, 3], 1), ((-1, 3), [[1, 2, 3]] * 2, 2),
        ((-1, -1), [1, 2], 1), ((-1, 2, 2), [[1, 2], [3, 4]], 1), ((-1, 2), [], 0),
        ((2, 1), [[1], [2], [3], [4]], 4), ((-1, 2), {"inputs": [1, 2]}, 1),
    ],
)  # fmt: skip
def test_forms_of_tensors(shape: tuple[int, ...], value: Any, rows: int) -> None:
    """A row of a tensor is the nested list of its shape without the first dimension."""
    assert contract([tensor("float64", shape)]).parse(body(value)).rows == rows


@pytest.mark.parametrize(
    ("dtype", "shape", "value", "pointers"),
    [
        ("float32", (-1, 2), [[1, 2], [3]], ["/1"]), ("float32", (-1, 2), [[1, 2, 3]], ["/0"]),
        ("float32", (-1, 2), [[1, "a"]], ["/0/1"]), ("int8", (-1, 1), [[128]], ["/0/0"]),
        ("float16", (-1, 1), [[65505]], ["/0/0"]), ("bool", (-1,), [0], ["/0"]),
        ("float64", (-1, -1, -1), [[[1, 2], [3]]], ["/0"]), ("float64", (-1, -1), [[]], ["/0"]),
        ("float64", (-1, -1, -1), {"inputs": [[1, 2], [3]]}, ["/inputs"]),
        ("float64", (2, 1), [[1]], [""]), ("float64", (2, 1), {"inputs": [[1]] * 3}, ["/inputs"]),
        ("str", (-1,), [1], ["/0"]), ("uint64", (-1,), [-1], ["/0"]),
    ],
)  # fmt: skip
def test_tensors_refused(dtype: str, shape: Any, value: Any, pointers: list[str]) -> None:
    """Ragged lists, other shapes and other dtypes are refused where they are."""
    assert refused(contract([tensor(dtype, shape)]), value) == pointers


def test_named_tensors() -> None:
    """Several tensors are a record of nested lists."""
    model = contract([tensor("int32", (-1, 2), "ids"), tensor("float32", (-1,), "w")])
    ((_, frame),) = model.parse(body([{"ids": [1, 2], "w": 0.5}, {"ids": [3, 4], "w": 1}])).frames
    assert frame.layout == "tensors"
    assert [c.dtype for c in frame.columns] == [np.dtype("int32"), np.dtype("float32")]
    assert refused(model, {"ids": [1, 2]}) == ["/w"]


@pytest.mark.parametrize("pattern", [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_nesting_is_bounded_exactly(pattern: tuple[str, str]) -> None:
    """As many lists and objects within each other as documented are read, one more is malformed."""
    opening, closing = pattern
    count = MAX_DEPTH // (len(pattern[1]))
    within = opening * count + "1" + closing * count
    assert read_json(within.encode()) is not None
    for beyond in (f"[{within}]", f'{{"a":{within}}}'):
        with pytest.raises(MalformedJson):
            read_json(beyond.encode())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"x": 1,\n "y": }', "line 2, column 7"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b'{"x": "\xff"}', "UTF-8 at byte 7"),
        (b'{"x": NaN}', "NaN"),
    ],
)
def test_malformed_json_says_where(body: bytes, words: str) -> None:
    """The place is told where there is one, and none of what stands there."""
    with pytest.raises(MalformedJson, match=words):
        contract([column("double", "x")]).parse(body)
