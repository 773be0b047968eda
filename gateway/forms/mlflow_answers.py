"""A model's answer as MLflow's scoring server writes it (MLflow 3.17,
`scoring_server.predictions_to_json`): a DataFrame and a Series as records, columns of a dict by
name, an array and a list as lists, and whatever else as it is; numbers of 32 bits with the digits
that they have as doubles. But null is written where MLflow writes NaN, and the output signature
says which columns there are and what is in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gateway.contract import Contract, Joint, Output, Outputs, Request, Written
from gateway.contract.answer_text import dumped
from gateway.contract.outputs import is_row_by_row, mark_of, with_columns
from gateway.contract.types import ObjectOf, Scalar
from gateway.errors import InvalidModelOutput

_AGENTS = ({"choices"}, {"messages"})
_NONE_IS_NULL = ("string", "binary", "datetime")
_NARROW = (np.float32, np.float16)


def write(contract: Contract, request: Request, outputs: Outputs) -> Written:
    """`{"predictions": ...}`, and to language models' bodies the answer alone.

    Raises `InvalidModelOutput`.
    """
    try:
        outputs = [(places, _widened_output(output)) for places, output in outputs]
    except RecursionError:
        raise InvalidModelOutput("The model's answer is nothing that JSON can say.") from None
    try:
        predictions = _predictions(contract, request, outputs)
    except InvalidModelOutput:
        # MLflow checks no answer; a text that is null is one that its callers know.
        predictions = _predictions(contract.derived(_with_nulls), request, outputs)
    if request.echo is True:
        return Written(body=predictions)
    return Written(body=b'{"predictions":' + predictions + b"}")


def write_together(contract: Contract, joint: Joint, output: Output) -> Sequence[bytes] | None:
    """`write` of the answers to several requests; None where they have to be written one by one."""
    if not is_row_by_row(output):
        return None
    output, whole = _widened_output(output), joint.whole
    outputs = [(range(whole.rows), output)]
    promised, names = contract.promised, _own_names(outputs)
    if promised is not None and promised.named:
        # Without names, optional columns that no row of a request has aren't in its answer.
        may_lack = not all(field.required for field in promised.fields)
        if promised.tensors if names else may_lack:
            return None
    try:
        rows = _row_values(contract, whole, outputs, names)
    except InvalidModelOutput:
        return None
    if rows is None:
        each = contract.render_each(output, joint.sizes)
    else:
        each = [dumped(part) for part in joint.parts(rows)]
    return None if each is None else [b'{"predictions":' + body + b"}" for body in each]


def _with_nulls(contract: Contract) -> Contract:
    """The same contract, but that texts, bytes and moments may be null in answers."""
    promised = contract.promised
    if promised is None:
        return contract
    fields = tuple(
        replace(field, required=False)
        if isinstance(field.type, Scalar) and field.type.kind in _NONE_IS_NULL
        else field
        for field in promised.fields
    )
    return replace(contract, promised=replace(promised, fields=fields))


def _predictions(contract: Contract, request: Request, outputs: Outputs) -> bytes:
    promised = contract.promised
    marks = {tuple(mark_of(output)) for _, output in outputs}
    mark = marks.pop() if len(marks) == 1 else ()
    kind = mark[0] if mark else ""
    is_named = promised is not None and promised.named
    names = _own_names(outputs)
    if kind == "dict" and not is_named:
        if not names:
            raise InvalidModelOutput("Two columns of the model's answer have the same name.")
        if promised is not None and len(promised.fields) != len(names):
            return contract.render(outputs, request.rows)
    if kind == "dict" or (names and promised is not None and is_named and promised.tensors):
        return dumped(dict(_named(contract, request, outputs, None if is_named else names)))
    values = None if kind and not names else _row_values(contract, request, outputs, names)
    if values is not None:
        return dumped(values)
    rendered = contract.render(outputs, request.rows)
    is_object = request.echo is True and request.rows == 1 and _is_of_an_agent(contract)
    return rendered[1:-1] if is_object or (kind == "alone" and len(outputs) == 1) else rendered


def _row_values(
    contract: Contract, request: Request, outputs: Outputs, names: Sequence[str]
) -> list[Any] | None:
    """What is written for each row, where that isn't what the typed route has."""
    is_named = contract.promised is not None and contract.promised.named
    if is_named and all(map(_has_no_names, outputs)):
        # By their positions all are there, also one that is null in each row.
        columns = [column.values for column in contract.columns(outputs, request.rows)]
        return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
    if names and not is_named:
        by_name = dict(_named(contract, request, outputs, names))
        if len(by_name) == len(names):
            rows = zip(*by_name.values(), strict=True)
            return [dict(zip(names, row, strict=True)) for row in rows]
    return None


def _named(
    contract: Contract, request: Request, outputs: Outputs, names: Sequence[str] | None = None
) -> Iterator[tuple[str, list[Any]]]:
    """The columns that there are, by their names or, where there are as many, by those of the
    answer itself."""
    columns = contract.columns(outputs, request.rows)
    own = names if names is not None and len(names) == len(columns) else None
    for i, column in enumerate(columns):
        if column.is_there:
            yield (column.name if own is None else own[i]), column.values


def _own_names(outputs: Outputs) -> Sequence[str]:
    """What the answer itself calls its columns; nothing where it has none, or two of one name."""
    found = {tuple(output[1]) if output[0] == "columns" else () for _, output in outputs}
    names = found.pop() if len(found) == 1 else ()
    return names if len(set(names)) == len(names) else ()


def _has_no_names(placed: tuple[Sequence[int], Output]) -> bool:
    """Whether an answer is values that don't say what they are called."""
    _, output = placed
    if output[0] == "columns":
        return False
    values = output[1]
    return isinstance(values, np.ndarray) or dict not in set(map(type, values))


def _is_of_an_agent(contract: Contract) -> bool:
    promised = contract.promised
    return promised is not None and (
        (not promised.named and isinstance(promised.row, ObjectOf))
        or any(each <= {field.name for field in promised.fields} for each in _AGENTS)
    )


def _widened_output(output: Output) -> Output:
    columns = (output[1],) if output[0] == "values" else output[2]
    return with_columns(output, [_widened(column) for column in columns])


def _widened(value: Any) -> Any:
    """The same with doubles for narrower fractions, whose shortest text has other digits."""
    if isinstance(value, np.ndarray):
        is_narrow = value.dtype.kind == "f" and value.dtype.itemsize < np.dtype(float).itemsize
        return value.astype(np.float64) if is_narrow else value
    if isinstance(value, _NARROW):
        return float(value)
    if isinstance(value, list):
        plain = set(map(type, value)) <= {float, int, str, bool, type(None)}
        return value if plain else list(map(_widened, value))
    if isinstance(value, dict):
        return {name: _widened(each) for name, each in value.items()}
    return value
