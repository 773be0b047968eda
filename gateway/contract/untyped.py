"""Inputs of a model without a signature -> what it is called with.

Records are a table, whose types are for pandas to find, in the model's own process. Nested lists of
numbers are an array, as MLflow's own server makes them of `dataframe_records` and `inputs` where a
model has no signature (3.17). All else is a list, as it was sent: of texts MLflow's server makes an
array, which its wrappers for text don't take.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gateway.contract.frames import Frame, Placed


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
