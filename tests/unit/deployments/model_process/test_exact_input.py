"""Tables that are exactly what a signature asks for: the model sees what MLflow would give it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.type_hints import TypeFromExample

from deployments.model_process.exact_input import ExactInput
from deployments.model_process.input import model_input

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

COLUMNS: dict[str, Any] = {
    "boolean": np.array([True, False, True]),
    "integer": np.array([1, -2, 3], np.int32),
    "long": np.array([1, -(2**53) - 1, 3]),
    "float": np.array([0.1, np.nan, 3], np.float32),
    "double": np.array([0.1, np.nan, np.inf]),
    "string": ["a", "", "ü"],
}
"""A column of each type that MLflow takes as it is, as a call has it."""

GAPS = ["a", float("nan"), "b"]


class Describing(PythonModel):  # type: ignore[misc]
    """Answers with all that a model can see of a table, also how it lies in memory."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        table = model_input
        blocks = [
            (block.shape, getattr(block.values, "strides", None), str(block.dtype))
            for block in table._mgr.blocks
        ]
        cells = [[repr(value) for value in table[name]] for name in table]
        return [repr((blocks, cells, table.columns, table.index, [*table.dtypes]))]


def loaded(folder: Path, inputs: Any, params: ParamSchema | None = None) -> Any:
    """A model that MLflow has saved and loaded."""
    signature = ModelSignature(inputs, params=params)
    mlflow.pyfunc.save_model(
        str(folder / "m"), python_model=Describing(), signature=signature, pip_requirements=[]
    )
    return mlflow.pyfunc.load_model(str(folder / "m"))


@pytest.mark.parametrize("kinds", [*((kind,) for kind in COLUMNS), (*COLUMNS,), ("double",) * 3])
@pytest.mark.parametrize("rows", [1, 3])
def test_the_model_sees_what_it_would_see(
    tmp_path: Path, kinds: tuple[str, ...], rows: int
) -> None:
    """Types, values, index, names, and how they lie in memory: sums of floats come out the same."""
    names = tuple(f"c{i}" for i in range(len(kinds)))
    model = loaded(tmp_path, Schema([ColSpec(k, n) for k, n in zip(kinds, names, strict=True)]))
    columns = tuple(COLUMNS[kind][:rows] for kind in kinds)
    exact = ExactInput.of(model)
    assert exact is not None
    assert exact.is_made_of("table", names, columns)
    table = model_input("table", names, columns)
    assert exact.predict(table) == model.predict(table)


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        pytest.param(("x",), (np.array([1.0]),), id="a column is absent"),
        pytest.param(("s", "x"), (["a"], np.array([1.0])), id="another order"),
        pytest.param(("x", "s", "y"), (np.array([1.0]), ["a"], ["b"]), id="one more"),
        pytest.param(("x", "s"), ([1.0, None], ["a", "b"]), id="a gap"),
        pytest.param(("x", "s"), (np.array([1]), ["a"]), id="another type"),
        pytest.param(("x", "s"), (np.array([1], np.float32), ["a"]), id="a narrower type"),
    ],
)
def test_what_is_not_exact_is_mlflow_s_to_convert(
    tmp_path: Path, names: tuple[str, ...], columns: tuple[Any, ...]
) -> None:
    """Whatever of a call differs from the signature."""
    model = loaded(tmp_path, Schema([ColSpec("double", "x"), ColSpec("string", "s", False)]))
    exact = ExactInput.of(model)
    assert exact is not None
    assert not exact.is_made_of("table", names, columns)
    assert exact.is_made_of("table", ("x", "s"), (np.array([1.0, 2.0, 3.0]), GAPS))
    assert not exact.is_made_of("records", ("x", "s"), (np.array([1.0]), ["a"]))


@pytest.mark.parametrize(
    ("inputs", "params"),
    [
        pytest.param(Schema([ColSpec("datetime", "t")]), None, id="a type that is converted"),
        pytest.param(Schema([ColSpec("double")]), None, id="no names"),
        pytest.param(Schema([TensorSpec(np.dtype("f8"), (-1, 2))]), None, id="a tensor"),
        pytest.param(
            Schema([ColSpec("double", "x")]),
            ParamSchema([ParamSpec("p", "double", 1.0)]),
            id="params, whose defaults MLflow fills in",
        ),
    ],
)
def test_signatures_of_more_are_enforced(
    tmp_path: Path, inputs: Schema, params: ParamSchema | None
) -> None:
    """Only named columns of plain types are left to themselves."""
    assert ExactInput.of(loaded(tmp_path, inputs, params)) is None


def test_the_model_itself_keeps_its_signature(tmp_path: Path) -> None:
    """What isn't exact is enforced as before: the one without a signature is beside it."""
    model = loaded(tmp_path, Schema([ColSpec("double", "x")]))
    assert ExactInput.of(model) is not None
    with pytest.raises(mlflow.exceptions.MlflowException, match="missing inputs"):
        model.predict(model_input("table", ("y",), (np.array([1.0]),)))


def test_models_with_hints_get_what_their_hints_say(tmp_path: Path) -> None:
    """MLflow makes that of a table where the signature says so."""

    class Hinted(PythonModel):  # type: ignore[misc]
        def predict(self, model_input: TypeFromExample):  # type: ignore[no-untyped-def]
            return [type(model_input).__name__]

    mlflow.pyfunc.save_model(
        str(tmp_path / "m"),
        python_model=Hinted(),
        input_example=[{"x": 1.0}],
        pip_requirements=[],
    )
    model = mlflow.pyfunc.load_model(str(tmp_path / "m"))
    assert ExactInput.of(model) is None
