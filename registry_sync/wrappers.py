"""What MLflow's wrappers of some flavors take and give, where the signature that MLflow writes for
them says another thing. Pure. Read in MLflow 3.17: `mlflow/transformers/__init__.py` and
`mlflow/sentence_transformers/__init__.py`.

* A wrapper that has several texts in one input takes a list where the signature says `string`:
  texts to embed, the labels of a zero-shot classifier. MLflow passes anything in such a column.
* A wrapper that looks at the first row alone, merges the rows, or refuses more than one (DSPy's) is
  called for each row: else two callers' rows, or two of a list, would change each other's answers.
* Vectors of texts and of their tokens are declared as numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.contract.signature import ROW_BY_ROW, TEXTS_IN_STRINGS

_ZERO_SHOT, _FEATURES = "zero-shot-classification", "feature-extraction"
_ALONE = frozenset({_ZERO_SHOT, _FEATURES, "table-question-answering"})
"""Tasks of pipelines of transformers."""

_LLM = "llm/v1/"
_TEXTS = frozenset({"llm/v1/embeddings", "llm/v1/completions"})


def amended(document: Mapping[str, Any], signature: Mapping[str, Any]) -> dict[str, Any]:
    """The members of the signature mapping of an MLmodel file that are other than it says."""
    flavors = document["flavors"]
    pipeline = _text(flavors.get("transformers"), "task")
    task = _text(document.get("metadata"), "task")
    embeds = "sentence_transformers" in flavors
    found: dict[str, Any] = {}
    if embeds or pipeline == _ZERO_SHOT or task in _TEXTS:
        found[TEXTS_IN_STRINGS] = True
    if pipeline in _ALONE or task.startswith(_LLM) or "dspy" in flavors:
        found[ROW_BY_ROW] = True
    if (embeds or pipeline == _FEATURES) and isinstance(signature.get("outputs"), str):
        found["outputs"] = orjson.dumps(_vectors(orjson.loads(signature["outputs"]))).decode()
    return found


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
