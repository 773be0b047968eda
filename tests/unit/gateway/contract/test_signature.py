"""MLflow's signatures -> contracts: what is read, and what can't be served and why."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from mlflow.types.schema import Array, ParamSpec, SparkMLVector

from gateway.contract import Contract, UntypableSignature
from gateway.contract.types import describe
from tests.unit.gateway.contract.signatures import column, contract, tensor


def tensor_json(dtype: str, shape: list[Any]) -> str:
    return json.dumps([{"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}])


def deep(levels: int) -> str:
    inner = '{"type": "array", "items": ' * levels + '{"type": "long"}' + "}" * levels
    return f"[{inner}]"


@pytest.mark.parametrize(
    "signature", [None, {}, {"inputs": None}, {"inputs": None, "outputs": "[]"}]
)
def test_unsigned_models(signature: Any) -> None:
    """A model without inputs in its signature is told how to get them."""
    with pytest.raises(UntypableSignature) as caught:
        Contract.from_signature(signature)
    assert "infer_signature" in caught.value.reason
    assert "signature=" in caught.value.reason


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (tensor_json("complex64", [-1, 2]), "complex64"),
        (tensor_json("timedelta64[s]", [-1]), "dtype"),
        (tensor_json("datetime64", [-1]), "dtype"), (tensor_json("void", [-1]), "dtype"),
        (tensor_json("longdouble", [-1]), "dtype"), (tensor_json("float32", []), "no dimension"),
        (tensor_json("float32", [-1, 0]), "positive"), (tensor_json("float32", [-2]), "positive"),
        (tensor_json("nonsense", [-1]), "cannot read"), ("[", "cannot read"), ("[]", "cannot read"),
        ("{}", "cannot read"), ('[{"type": "unheard_of"}]', "cannot read"),
        ('[{"type": "long", "name": ""}]', "empty name"),
        ('[{"type": "long", "name": "a"}, {"type": "long", "name": "a"}]', "same name"),
        ('[{"type": "long", "name": "a", "required": false}]', "optional integers"),
        ('[{"type": "long", "name": ["a", 1]}]', "no text"),
        (deep(70), "deeper"), (deep(2000), "cannot read"),
    ],
)  # fmt: skip
def test_untypable_inputs(inputs: str, words: str) -> None:
    """What can't be typed has a reason in words."""
    with pytest.raises(UntypableSignature, match=words) as caught:
        Contract.from_signature({"inputs": inputs})
    assert caught.value.reason.endswith(".")


def test_other_untypable_signatures() -> None:
    """Outputs, params and tensors that contradict each other are looked at as well."""
    with pytest.raises(UntypableSignature, match="complex128"):
        contract([column("long")], [tensor("complex128", (-1,))])
    with pytest.raises(UntypableSignature, match="first dimensions"):
        contract([tensor("int64", (2, 1), "a"), tensor("int64", (3, 1), "b")])
    with pytest.raises(UntypableSignature, match="params"):
        Contract.from_signature({"inputs": '[{"type": "long"}]', "params": '[{"name": "a"}]'})


def test_type_hint_flag() -> None:
    """The flag is read from the mapping and from the argument."""
    inputs = '[{"type": "long", "required": true}]'
    inside = {"inputs": inputs, "is_signature_from_type_hint": True}
    assert Contract.from_signature(inside).from_type_hints
    assert Contract.from_signature({"inputs": inputs}, from_type_hints=True).from_type_hints
    assert not Contract.from_signature({"inputs": inputs}).from_type_hints


def test_spark_vectors_are_arrays_of_doubles() -> None:
    """A Spark ML vector is an array of doubles to callers."""
    made = contract([column(SparkMLVector(), "v")])
    assert describe(made.inputs.row) == "{v: Array(double)}"


# Integer columns are among what is tested, and MLflow advises against them.
@pytest.mark.filterwarnings("ignore:Hint. Inferred schema contains integer:UserWarning")
def test_inferred_signatures() -> None:
    """What MLflow infers from a DataFrame and an array is read."""
    frame = pd.DataFrame({"a": [1, 2], "s": ["x", None], "l": [[1.0], [2.0]]})
    signature = infer_signature(frame, np.zeros((2, 3)), params={"t": 0.5})
    made = Contract.from_signature(signature.to_dict())
    assert describe(made.inputs.row) == "{a: long, s: string (optional), l: Array(double)}"
    assert made.outputs is not None
    assert describe(made.outputs.row) == "Tensor(float64, (-1, 3))"
    assert made.params[0].default == 0.5


def test_defaults_are_published_as_json() -> None:
    """Defaults are in the schema as a caller would write them."""
    params = [
        ParamSpec("when", "datetime", "2020-01-01T00:00:00"), ParamSpec("none", "long", None),
        ParamSpec("nan", "double", float("nan")), ParamSpec("many", "string", ["a"], shape=(-1,)),
    ]  # fmt: skip
    schema = contract([column("long")], params=params).params_schema()
    assert schema is not None
    defaults = {name: member["default"] for name, member in schema["properties"].items()}
    assert defaults == {"when": "2020-01-01T00:00:00", "none": None, "nan": "nan", "many": ["a"]}
    json.dumps(schema, allow_nan=False)
    assert contract([column("long")]).params_schema() is None


def test_contracts_are_values() -> None:
    """Contracts are equal by what they say, and travel by pickle after they were used."""
    made, other = (contract([column(Array("long"), "x")]) for _ in range(2))
    made.parse(b'{"x": [1]}')
    assert made == other
    assert pickle.loads(pickle.dumps(made)) == made
