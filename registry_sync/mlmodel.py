"""What serving needs from a version's MLmodel file: signature, flavor, code, input example.

Pure: text in, values out. The file's format is MLflow's
(https://mlflow.org/docs/latest/ml/model/#mlmodel-file-format).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import yaml

from gateway.catalog import UntypableSignature, contract_of
from gateway.contract.agents import TASKS
from gateway.contract.signature import UNSIGNED_EXAMPLE
from gateway.errors import GatewayError

# What a file makes YAML, JSON and those who read them raise that isn't what it should be; a deeply
# nested one ends in RecursionError.
_BROKEN = (yaml.YAMLError, ValueError, TypeError, KeyError, RecursionError)

# libyaml's loader is ten times as fast as PyYAML's own, but not every platform has it, and on a
# file nested some 100,000 levels deep it takes the process down, where PyYAML's own only raises.
_FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_OPENINGS = ("[", "{", ":", "- ")
_MAX_OPENINGS = 5_000

_MAX_EXAMPLE_BYTES = 16 * 1024
_MAX_EXAMPLE_ROWS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What an MLmodel file says; `problem` is why the version can't be served, else None.

    `example_path` is the serving input example's path beside the file, None where there is none;
    `task` and `streamable` are as in `ModelVersion`.
    """

    signature: str | None = None
    problem: str | None = None
    flavor: str | None = None
    ships_code: bool = False
    example_path: str | None = None
    task: str | None = None
    streamable: bool = False


def read_mlmodel(text: str) -> ModelFacts:
    """The facts in an MLmodel file; one that can't be read yields only a problem."""
    try:
        document = yaml.load(text, _loader(text))  # noqa: S506 - both loaders are safe ones
        if isinstance(document, dict) and isinstance(document.get("flavors"), dict):
            return _facts(document)
    except _BROKEN:
        pass
    return ModelFacts(problem="Its MLmodel file is broken.")


def _loader(text: str) -> type[yaml.SafeLoader]:
    """The fast one for what can't be nested deep: a level takes at least one opening."""
    openings = sum(text.count(opening) for opening in _OPENINGS)
    return _FAST_LOADER if openings <= _MAX_OPENINGS else yaml.SafeLoader


def _facts(document: Mapping[str, Any]) -> ModelFacts:
    flavors: Mapping[str, Any] = document["flavors"]
    pyfunc = flavors.get("python_function")
    signature = _signature(document)
    has_example = bool(document.get("saved_input_example_info"))
    return ModelFacts(
        signature=signature,
        problem=_problem(pyfunc, signature, has_example=has_example),
        flavor=_text(pyfunc.get("loader_module")) if isinstance(pyfunc, dict) else None,
        ships_code=any(isinstance(f, dict) and f.get("code") for f in flavors.values()),
        example_path=_example_path(document),
        task=_task(document),
        streamable=isinstance(pyfunc, dict) and pyfunc.get("streamable") is True,
    )


def _problem(pyfunc: object, signature: str | None, *, has_example: bool) -> str | None:
    if not isinstance(pyfunc, dict):
        return "It has no python_function flavor, so there is nothing to call."
    if signature is None and has_example:
        return UNSIGNED_EXAMPLE
    try:
        contract_of(signature or "")
    except UntypableSignature as error:
        return error.reason
    return None


def _signature(document: Mapping[str, Any]) -> str | None:
    """The signature as canonical JSON text, with the flag that tells how its inputs are passed."""
    signature = document.get("signature")
    if not isinstance(signature, dict):
        return None
    kept = {key: signature.get(key) for key in ("inputs", "outputs", "params")}
    if not any(kept.values()):
        return None
    if document.get("is_signature_from_type_hint"):
        kept["is_signature_from_type_hint"] = True
    task = _task(document)
    if task is not None:
        kept["task"] = task
    return orjson.dumps(kept, option=orjson.OPT_SORT_KEYS).decode()


def _task(document: Mapping[str, Any]) -> str | None:
    """What an agent or a chat model speaks, as MLflow has it (`metadata.task`); None for all else
    that teams write there."""
    metadata = document.get("metadata")
    task = metadata.get("task") if isinstance(metadata, dict) else None
    return task if isinstance(task, str) and task in TASKS else None


def _example_path(document: Mapping[str, Any]) -> str | None:
    info = document.get("saved_input_example_info")
    return _text(info.get("serving_input_path")) if isinstance(info, dict) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def read_example(text: str, signature: str) -> Any:
    """A serving input example as a request body of ours; None where it doesn't fit the contract."""
    try:
        body = _as_body(orjson.loads(text))
        encoded = orjson.dumps(body)
        if len(encoded) > _MAX_EXAMPLE_BYTES:
            return None
        contract_of(signature).parse(encoded)
    except (*_BROKEN, GatewayError):
        return None
    return body


def _as_body(example: Any) -> Any:
    if not isinstance(example, dict):
        return example
    rows = _rows(example)
    if isinstance(rows, list):
        rows = rows[:_MAX_EXAMPLE_ROWS]
        rows = rows[0] if len(rows) == 1 and isinstance(rows[0], dict) else rows
    params = example.get("params")
    return {"inputs": rows, "params": params} if params else rows


def _rows(example: dict[str, Any]) -> Any:
    """The rows in one of the scoring protocol's forms (MLflow: "Serve a model", input formats)."""
    if "dataframe_split" in example:
        split = example["dataframe_split"]
        if "columns" not in split:
            return split["data"]
        return [dict(zip(split["columns"], row, strict=True)) for row in split["data"]]
    for form in ("dataframe_records", "instances", "inputs"):
        if form in example:
            return _by_row(example[form])
    return example


def _by_row(tensors: Any) -> Any:
    """Named tensors come as columns: turn them into records."""
    if not isinstance(tensors, dict) or not all(isinstance(v, list) for v in tensors.values()):
        return tensors
    return [dict(zip(tensors, row, strict=True)) for row in zip(*tensors.values(), strict=True)]
