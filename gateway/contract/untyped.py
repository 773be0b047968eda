"""Inputs of a model without a signature -> what it is called with.

Records are a table, whose types are for pandas to find, in the model's own process. Nested lists of
numbers are an array, as MLflow's own server makes them of `dataframe_records` and `inputs` where a
model has no signature (3.17). All else is a list, as it was sent: of texts MLflow's server makes an
array, which its wrappers for text don't take.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gateway.contract.columns import Column, Table
from gateway.contract.frames import Frame, Placed
from gateway.contract.text_formats import pointer
from gateway.errors import Violation


def untyped_frames(rows: list[Any], *, single: bool) -> Placed:
    """One frame for all of the inputs, which shares a call with no other and is never sliced:
    what they are depends on all of them."""
    inputs = rows[0] if single and isinstance(rows[0], list) else rows
    if not inputs:
        return ()
    if all(isinstance(each, dict) for each in inputs):
        return ((range(len(inputs)), _frame("records", inputs, len(inputs))),)
    array = _array(inputs)
    column = inputs if array is None else array
    layout = "values" if array is None else "tensor"
    return ((range(len(inputs)), _frame(layout, column, len(inputs))),)


def untyped_rows(table: Table) -> tuple[list[Any], list[Violation]]:
    """The inputs that a table is: a record for each row, or the rows themselves of a bare one; and
    what is wrong with it."""
    columns = {name: _listed(column) for name, column in table.columns.items()}
    if table.bare:
        return next(iter(columns.values())), []
    if not columns:
        at = pointer(table.places.column(""))
        return [], [Violation(pointer=at, message="Expected at least one column.")]
    message = f"Expected {table.rows} values."
    found = [
        Violation(pointer=pointer(table.places.column(name)), message=message)
        for name, column in columns.items()
        if len(column) != table.rows
    ]
    cells = zip(*columns.values(), strict=not found)
    return [dict(zip(columns, row, strict=True)) for row in cells], found


def _listed(column: Column) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else column


def _frame(layout: Any, column: Any, rows: int) -> Frame:
    return Frame(layout=layout, names=(0,), columns=(column,), rows=rows, key=object(), whole=True)


def _array(values: list[Any]) -> np.ndarray | None:
    """Numbers in lists of equal length; None for anything else."""
    first: Any = values
    while isinstance(first, list) and first:
        first = first[0]
    if not isinstance(first, bool | int | float):
        return None
    try:
        array = np.array(values)
    except (ValueError, OverflowError):  # ragged
        return None
    return array if array.dtype.kind in "biuf" else None
