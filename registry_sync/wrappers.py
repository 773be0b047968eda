"""What MLflow's wrappers of some flavors take and give, where the signature that MLflow writes for
them says another thing. Pure. Read in MLflow 3.17: `mlflow/transformers/__init__.py`,
`mlflow/sentence_transformers/__init__.py` and `mlflow/openai/model.py`.

* A wrapper that has several texts in one input takes a list where the signature says `string`:
  texts to embed, the labels of a zero-shot classifier. MLflow passes anything in such a column.
* A wrapper that looks at the first row alone, merges the rows, or refuses more than one (DSPy's) is
  called for each row: else two callers' rows, or two of a list, would change each other's answers.
* Vectors of texts and of their tokens are declared as numbers.
* A classifier that ranks its labels is declared as one that gives the first of them; its answer has
  a column for each rank. What it is called like depends on the model: nothing is declared.
* Of a scikit-learn model that is logged with an example MLflow declares what `predict` gives,
  also where `pyfunc_predict_fn` says that it is asked for probabilities: nothing is declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.contract.signature import ROW_BY_ROW, TEXTS_IN_STRINGS

_ZERO_SHOT, _FEATURES = "zero-shot-classification", "feature-extraction"
_ALONE = frozenset({_ZERO_SHOT, _FEATURES, "table-question-answering", "audio-classification"})
"""Tasks of pipelines of transformers."""
_PROBABILITIES = frozenset({"predict_proba", "predict_log_proba"})
_FRACTIONS = frozenset({"float16", "float32", "float64"})
_NO_FRACTIONS = frozenset({"boolean", "integer", "long", "string"})

_LLM = "llm/v1/"
_COMPLETIONS, _EMBEDDINGS = "llm/v1/completions", "llm/v1/embeddings"


def amended(document: Mapping[str, Any], signature: Mapping[str, Any]) -> dict[str, Any]:
    """The members of the signature mapping of an MLmodel file that are other than it says."""
    flavors = document["flavors"]
    pipeline = _text(flavors.get("transformers"), "task")
    task = _text(document.get("metadata"), "task")
    found: dict[str, Any] = {}
    if _takes_lists(flavors, pipeline, task):
        found[TEXTS_IN_STRINGS] = True
    if pipeline in _ALONE or task.startswith(_LLM) or "dspy" in flavors:
        found[ROW_BY_ROW] = True
    outputs = signature.get("outputs")
    if isinstance(outputs, str):
        columns = orjson.loads(outputs)
        # Of OpenAI's tasks, which aren't told here, none gives numbers.
        if pipeline == _FEATURES or flavors.keys() & {"sentence_transformers", "openai"}:
            found["outputs"] = orjson.dumps(_vectors(columns)).decode()
        elif _is_declared_wrongly(flavors, pipeline, columns):
            found["outputs"] = None
    return found


def _takes_lists(flavors: Mapping[str, Any], pipeline: str, task: str) -> bool:
    if task == _COMPLETIONS:  # of which MLflow's wrapper of transformers takes one
        return "transformers" not in flavors
    return task == _EMBEDDINGS or pipeline == _ZERO_SHOT or "sentence_transformers" in flavors


def _is_declared_wrongly(flavors: Mapping[str, Any], pipeline: str, columns: Any) -> bool:
    if _ranks_labels(flavors, pipeline):
        return _are_of_one_label(columns)
    return _gives_probabilities(flavors) and any(map(_is_no_probabilities, columns))


def _ranks_labels(flavors: Mapping[str, Any], pipeline: str) -> bool:
    """Whether a classifier answers with as many labels as it has, or as it is told to."""
    pyfunc = flavors.get("python_function")
    config = pyfunc.get("config") if isinstance(pyfunc, dict) else None
    is_told = isinstance(config, dict) and "top_k" in config
    return pipeline == "image-classification" or (pipeline == "text-classification" and is_told)


def _are_of_one_label(columns: Any) -> bool:
    return [_text(column, "name") for column in columns] == ["label", "score"]


def _gives_probabilities(flavors: Mapping[str, Any]) -> bool:
    asked = _text(flavors.get("python_function"), "predict_fn")
    return "sklearn" in flavors and asked in _PROBABILITIES


def _is_no_probabilities(column: dict[str, Any]) -> bool:
    """Whether it is of labels: probabilities are fractions, and several of them for a row."""
    if column["type"] != "tensor":
        return column["type"] in _NO_FRACTIONS
    spec = column["tensor-spec"]
    return spec["dtype"] not in _FRACTIONS or len(spec["shape"]) == 1


def _vectors(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The columns, with tensors of vectors for those of numbers."""
    return [
        {**column, "tensor-spec": {**column["tensor-spec"], "shape": [-1, -1]}}
        if column["type"] == "tensor" and column["tensor-spec"]["shape"] == [-1]
        else column
        for column in outputs
    ]


def _text(mapping: Any, name: str) -> str:
    value = mapping.get(name) if isinstance(mapping, dict) else None
    return value if isinstance(value, str) else ""
