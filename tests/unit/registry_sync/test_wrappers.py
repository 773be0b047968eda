"""What MLflow's wrappers take and give, where the signature says another thing."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import yaml

from gateway.catalog import contract_of
from gateway.contract.types import TensorOf, TextOrTexts
from registry_sync.mlmodel import read_mlmodel

_TEXT = '[{"type": "string", "name": "input", "required": true}]'
_NUMBERS = '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1]}}]'
_MATRIX = '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 8]}}]'


def _contract(flavors: dict[str, Any], *, task: str | None = None, outputs: str = _NUMBERS) -> Any:
    document = {
        "flavors": {"python_function": {"loader_module": "x"}, **flavors},
        "metadata": None if task is None else {"task": task},
        "signature": {"inputs": _TEXT, "outputs": outputs, "params": None},
    }
    facts = read_mlmodel(yaml.safe_dump(document))
    assert facts.problem is None
    return contract_of(facts.signature or "")


@pytest.mark.parametrize(
    ("flavors", "task", "takes_lists", "row_by_row"),
    [
        ({"transformers": {"task": "zero-shot-classification"}}, None, True, True),
        ({"transformers": {"task": "feature-extraction"}}, None, False, True),
        ({"transformers": {"task": "text-classification"}}, None, False, False),
        ({"transformers": {"task": "feature-extraction"}}, "llm/v1/embeddings", True, True),
        ({"sentence_transformers": {}}, None, True, False),
        ({"sentence_transformers": {}}, "llm/v1/embeddings", True, True),
        ({}, "llm/v1/embeddings", True, True),
        ({}, "llm/v1/completions", True, True),
        ({"transformers": {"task": "text-generation"}}, "llm/v1/completions", False, True),
        ({"transformers": {"task": "audio-classification"}}, None, False, True),
        ({}, "llm/v1/chat", False, True),
        ({"dspy": {}}, None, False, True),
        ({"transformers": None}, None, False, False),
        ({"openai": {}}, None, False, False),
        ({"sklearn": {}}, "mine", False, False),
    ],
)
def test_flavor_and_task_decide(
    flavors: dict[str, Any], task: str | None, takes_lists: bool, row_by_row: bool
) -> None:
    """Which wrappers unpack a list in a column of strings, and which are called for each row."""
    contract = _contract(flavors, task=task)
    (field,) = contract.inputs.fields
    assert isinstance(field.type, TextOrTexts) == takes_lists
    assert contract.row_by_row == row_by_row


@pytest.mark.parametrize(
    ("flavors", "outputs", "shape"),
    [
        ({"sentence_transformers": {}}, _NUMBERS, (-1, -1)),
        ({"transformers": {"task": "feature-extraction"}}, _NUMBERS, (-1, -1)),
        ({"sentence_transformers": {}}, _MATRIX, (-1, 8)),
        ({"openai": {}}, _NUMBERS, (-1, -1)),
        ({"sklearn": {}}, _NUMBERS, (-1,)),
    ],
)
def test_vectors_are_declared_as_vectors(flavors: Any, outputs: str, shape: Any) -> None:
    """MLflow's default signatures say that an embedding is a number."""
    (field,) = _contract(flavors, outputs=outputs).outputs.fields
    assert isinstance(field.type, TensorOf)
    assert field.type.shape == shape


_LABEL = (
    '[{"type": "string", "name": "label", "required": true}, '
    '{"type": "double", "name": "score", "required": true}]'
)
_PYFUNC = {"loader_module": "x"}


@pytest.mark.parametrize(
    ("flavors", "outputs", "is_declared"),
    [
        ({"transformers": {"task": "image-classification"}}, _LABEL, False),
        ({"transformers": {"task": "image-classification"}}, _MATRIX, True),
        ({"transformers": {"task": "text-classification"}}, _LABEL, True),
        ({"transformers": {"task": "text-classification"},
          "python_function": {**_PYFUNC, "config": {"top_k": None}}}, _LABEL, False),
        ({"transformers": {"task": "text-classification"},
          "python_function": {**_PYFUNC, "config": {"batch_size": 2}}}, _LABEL, True),
    ],
)  # fmt: skip
def test_ranked_labels_are_not_declared_as_one(
    flavors: Any, outputs: str, is_declared: bool
) -> None:
    """MLflow's default signature has the first label alone; the wrapper gives them all."""
    assert (_contract(flavors, outputs=outputs).outputs is not None) == is_declared


def test_other_columns_stay() -> None:
    """Only tensors of one dimension are amended."""
    outputs = orjson.dumps([{"type": "string", "name": "a", "required": True}]).decode()
    contract = _contract({"sentence_transformers": {}}, outputs=outputs)
    assert [field.name for field in contract.outputs.fields] == ["a"]


@pytest.mark.parametrize(
    ("asked", "outputs", "is_declared"),
    [
        ("predict_proba", _NUMBERS.replace("float64", "int64"), False),
        ("predict_proba", _NUMBERS, False),
        ("predict_log_proba", '[{"type": "string", "required": true}]', False),
        ("predict_proba", _MATRIX.replace("float32", "int64"), False),
        ("predict_proba", _MATRIX, True),
        ("predict_proba", '[{"type": "double", "name": "p", "required": true}]', True),
        ("predict", _NUMBERS.replace("float64", "int64"), True),
    ],
)
def test_labels_are_no_probabilities(asked: str, outputs: str, is_declared: bool) -> None:
    """What MLflow infers of `predict` isn't declared of a model that is asked for probabilities."""
    pyfunc = {"loader_module": "mlflow.sklearn", "predict_fn": asked}
    contract = _contract({"python_function": pyfunc, "sklearn": {}}, outputs=outputs)
    assert (contract.promised is not None) == is_declared
