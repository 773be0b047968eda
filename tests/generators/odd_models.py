"""Models whose names and signatures are hard on generators of clients, and their document."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.catalog import Catalog, ServedModel
from tests.support.catalogs import catalog, served, signature, version
from tests.support.page_catalog import shown

CALLED = "doubles"
"""The model that clients call: answers `{"y": 2 * x}` for `{"x": x}`."""

ALIKE = ("a-b", "a.b", "a_b", "A_B", "ab", "Ab", "AB")
WORDS = (
    "class", "import", "list", "object", "self", "model", "None", "null", "true", "Größe", "日本",
    "churn model", "problem", "1st", "x_input", "x", "model_v2", "variant_a", "predict_ab",
)  # fmt: skip

_COLUMNS = (
    "sepal length (cm)", "a.b", 'quo"te', "straße", "_x", "model_config", "schema",
    "json", "params", "0", "class", "self", "type", "from", "None", "$ref", "Input",
)  # fmt: skip
_KINDS = ("boolean", "integer", "long", "float", "double", "string", "binary", "datetime")
_DTYPES = ("float16", "float32", "float64", "int64", "uint64", "int8", "bool", "str", "object")


def odd_catalog() -> Catalog:
    """Models of every kind of signature, and one for each name that is hard to write."""
    of_pages = [model for name, model in shown().models.items() if "%" not in name]
    named = [served(version(1), name=name) for name in (CALLED, *ALIKE, *WORDS)]
    return catalog(*of_pages, *named, *_signed())


def _signed() -> list[ServedModel]:
    def model(name: str, inputs: Any, outputs: Any = None, params: Any = None) -> ServedModel:
        texts = {"inputs": inputs, "outputs": outputs, "params": params}
        written = {k: None if v is None else orjson.dumps(v).decode() for k, v in texts.items()}
        return served(version(1, orjson.dumps(written).decode()), name=name)

    nested = {"type": "object", "properties": {
        "id": {"type": "integer", "required": True},
        "x-y": {"type": "array", "required": False, "items": {
            "type": "object", "properties": {"q": {"type": "double", "required": True}}}},
    }}  # fmt: skip
    objects = [{"name": n, **nested, "required": True} for n in ("a-b", "input")]
    doubles = {"type": "map", "values": {"type": "double"}, "required": True}
    pair = [{"type": "double", "required": True}, {"type": "string", "required": True}]
    texts = {"type": "array", "items": {"type": "string"}, "required": True}
    return [
        model(
            "odd_columns",
            [{"name": n, "type": "double", "required": i % 2 == 0} for i, n in enumerate(_COLUMNS)],
            [{"name": n, "type": "double", "required": True} for n in _COLUMNS],
            [{"name": "p-q", "type": "double", "default": 0.5, "shape": None},
             {"name": "r", "type": "string", "default": None, "shape": None},
             {"name": "class", "type": "long", "default": [1, 2], "shape": [-1]}],
        ),
        model("objects", objects, objects),
        model("references", [{"name": "$ref", "type": "string", "required": True}]),
        model("maps", [doubles], [doubles]),
        model("anything", [{"type": "any", "required": True}]),
        model("tuples", pair, pair),
        model("lists", [texts], [{**texts, "items": texts}]),
        *(model(f"tensor_of_{d}", [_tensor(d, -1, 2, -1)], [_tensor(d, -1)]) for d in _DTYPES),
        model("named_tensors", [_tensor("uint64", -1, name="a"), _tensor("str", -1, 3, name="b")]),
        model(
            "scalars",
            [{"name": kind, "type": kind, "required": True} for kind in _KINDS],
            [{"name": kind, "type": kind, "required": False} for kind in _KINDS],
        ),
        served(version(1, signature(("inputs", "string"))), name="takes_inputs"),
    ]  # fmt: skip


def _tensor(dtype: str, *shape: int, name: str | None = None) -> dict[str, Any]:
    spec = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(shape)}}
    return spec if name is None else {**spec, "name": name}
