"""What serving needs from a version's MLmodel file: signature, flavor, code, input example.

Pure: text in, values out. The file's format is MLflow's
(https://mlflow.org/docs/latest/ml/model/#mlmodel-file-format).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.catalog import UntypableSignature, contract_of
from gateway.contract import Contract
from gateway.contract.agents import TASKS
from gateway.contract.signature import UNSIGNED_EXAMPLE
from gateway.errors import GatewayError
from registry_sync.wrappers import amended
from registry_sync.yaml_text import parsed

# What a file makes YAML, JSON and those who read them raise that isn't what it should be; deeply
# nested JSON ends in RecursionError.
_BROKEN = (ValueError, TypeError, KeyError, RecursionError)

# These make a dict of each row of a table before the model sees it.
_DICT_FLAVORS = frozenset(
    {
        "mlflow.dspy",
        "mlflow.langchain",
        "mlflow.llama_index",
        "mlflow.openai",
        "mlflow.promptflow",
        "mlflow.transformers",
    }
)

_NOTHING_TO_CALL = "It has no python_function flavor, so there is nothing to call."
_MAX_EXAMPLE_BYTES = 16 * 1024
_MAX_EXAMPLE_ROWS = 2
_MAX_SEARCHED_ROWS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What an MLmodel file says; `problem` is why the version can't be served, else None.

    `unsigned` is the same where it is for want of a signature that can be served: then the version
    can still be, without types or by those of its input example. `example_path` is the serving
    input example's path beside the file, None where there is none; `logged_example` is what the
    file says of the example itself; `task` and `streamable` are as in `ModelVersion`.
    """

    signature: str | None = None
    problem: str | None = None
    unsigned: str | None = None
    logged_example: Mapping[str, Any] | None = None
    flavor: str | None = None
    ships_code: bool = False
    example_path: str | None = None
    task: str | None = None
    streamable: bool = False


def read_mlmodel(text: str) -> ModelFacts:
    """The facts in an MLmodel file; one that can't be read yields only a problem."""
    try:
        document = parsed(text)
        if isinstance(document, dict) and isinstance(document.get("flavors"), dict):
            return _facts(document)
    except _BROKEN:
        pass
    return ModelFacts(problem="Its MLmodel file is broken.")


def _facts(document: Mapping[str, Any]) -> ModelFacts:
    flavors: Mapping[str, Any] = document["flavors"]
    pyfunc = flavors.get("python_function")
    signature = _signature(document)
    example = document.get("saved_input_example_info")
    callable_ = isinstance(pyfunc, dict)
    unsigned = _unsigned(signature, has_example=bool(example)) if callable_ else None
    return ModelFacts(
        signature=None if unsigned else signature,
        problem=unsigned if callable_ else _NOTHING_TO_CALL,
        unsigned=unsigned,
        logged_example=example if isinstance(example, dict) else None,
        flavor=_loader_module(document),
        ships_code=any(isinstance(f, dict) and f.get("code") for f in flavors.values()),
        example_path=_example_path(document),
        task=_task(document),
        streamable=isinstance(pyfunc, dict) and pyfunc.get("streamable") is True,
    )


def _unsigned(signature: str | None, *, has_example: bool) -> str | None:
    """Why there is no signature that can be served; None where there is one."""
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
    elif _makes_dicts(document):
        kept["rows_are_dicts"] = True
    kept.update(amended(document, kept))
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


def _makes_dicts(document: Mapping[str, Any]) -> bool:
    """Whether MLflow makes a dict of each row for the model: by its flavor, or since it takes what
    its input example is, which is no table."""
    if _loader_module(document) in _DICT_FLAVORS:
        return True
    example = document.get("saved_input_example_info")
    is_table = isinstance(example, dict) and example.get("type") == "dataframe"
    return bool(document.get("type_hint_from_example")) and not is_table


def _loader_module(document: Mapping[str, Any]) -> str | None:
    pyfunc = document["flavors"].get("python_function")
    return _text(pyfunc.get("loader_module")) if isinstance(pyfunc, dict) else None


def _example_path(document: Mapping[str, Any]) -> str | None:
    info = document.get("saved_input_example_info")
    return _text(info.get("serving_input_path")) if isinstance(info, dict) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def read_example(text: str, signature: str) -> Any:
    """A serving input example as a request body of ours; None where it doesn't fit the contract.

    MLflow writes a gap of a table as a bare NaN, which JSON has no word for: it is null here, and a
    row with one where there may be none is left out.
    """
    try:
        contract = contract_of(signature)
        for body in _bodies(json.loads(text)):
            sendable = _sendable(body, contract)
            if sendable is not None:
                return sendable
    except _BROKEN:
        pass
    return None


def _sendable(body: Any, contract: Contract) -> Any:
    """The body without what JSON has no word for; None where the contract refuses it."""
    try:
        sendable = _without_gaps(body)
        encoded = orjson.dumps(sendable)
        if len(encoded) > _MAX_EXAMPLE_BYTES:
            return None
        contract.parse(encoded)
    except (*_BROKEN, GatewayError):
        return None
    return sendable


def _without_gaps(value: Any) -> Any:
    """With null for NaN. Raises ValueError for the infinities, which no request can send."""
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return None
        raise ValueError
    if isinstance(value, list):
        return [_without_gaps(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_gaps(each) for key, each in value.items()}
    return value


def _bodies(example: Any) -> Iterator[Any]:
    """What the example may mean, the likeliest first: its first rows, or the first that can be
    sent."""
    if not isinstance(example, dict):
        yield example
        return
    params = example.get("params")
    for rows in _readings(example):
        few = rows[:_MAX_EXAMPLE_ROWS] if isinstance(rows, list) else rows
        singles = rows[:_MAX_SEARCHED_ROWS] if isinstance(rows, list) else []
        for inputs in (few, *([row] for row in singles)):
            one = isinstance(inputs, list) and len(inputs) == 1 and isinstance(inputs[0], dict)
            inputs = inputs[0] if one else inputs
            yield {"inputs": inputs, "params": params} if params else inputs


def _readings(example: dict[str, Any]) -> Iterator[Any]:
    """The rows in one of the scoring protocol's forms (MLflow: "Serve a model", input formats)."""
    if "dataframe_split" in example:
        split = example["dataframe_split"]
        if "columns" not in split:
            yield split["data"]
        else:
            yield [dict(zip(split["columns"], row, strict=True)) for row in split["data"]]
        return
    for form in ("dataframe_records", "instances", "inputs"):
        if form in example:
            yield from _by_row(example[form])
            return
    yield example


def _by_row(inputs: Any) -> Iterator[Any]:
    """Named tensors come as columns, which are turned into records; a record of lists looks the
    same."""
    columns = inputs.values() if isinstance(inputs, dict) else ()
    if columns and all(isinstance(column, list) for column in columns):
        with suppress(ValueError):
            yield [dict(zip(inputs, row, strict=True)) for row in zip(*columns, strict=True)]
    yield inputs
