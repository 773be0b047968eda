"""What saved models see of a request and what callers get, beside what MLflow's own server does."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pydantic
import pytest
from mlflow.models import ModelSignature, infer_signature
from mlflow.pyfunc import PythonModel
from mlflow.types.schema import (
    AnyType,
    Array,
    ColSpec,
    DataType,
    Map,
    Object,
    ParamSchema,
    ParamSpec,
    Property,
    Schema,
    TensorSpec,
)
from mlflow.types.type_hints import TypeFromExample
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline

from deployments.model_process.answers import Reading
from gateway.contract.types import MapOf
from gateway.errors import InvalidInput, InvalidModelOutput
from tests.support.saved_models import SavedModel

# What MLflow says of hints, of their absence and of pickling is no fault of these models.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

Save = Callable[..., SavedModel]


class Answering(PythonModel):  # type: ignore[misc]
    """A custom model around a function of its input."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self._answer = answer

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        return self._answer(model_input)


def hinted(answer: Callable[[Any], Any], takes: Any, gives: Any) -> PythonModel:
    """A model with those type hints."""

    def predict(self, model_input):  # type: ignore[no-untyped-def]
        return answer(model_input)

    predict.__annotations__ = {"model_input": takes, "return": gives}
    return type("Hinted", (PythonModel,), {"predict": predict})()  # type: ignore[no-any-return]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves a function as a custom model, or a model by its flavor, and loads it."""

    def saved(
        model: Any, inputs: Any = None, outputs: Any = None, flavor: Any = None, **more: Any
    ) -> SavedModel:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        if inputs is not None:
            declared = None if outputs is None else Schema(outputs)
            more["signature"] = ModelSignature(Schema(inputs), declared)
        if flavor is None:
            flavor = mlflow.pyfunc
            made = model if isinstance(model, PythonModel) else Answering(model)
            more = {"python_model": made, **more}
        else:
            more = {flavor.__name__.split(".")[1][:2] + "_model": model, **more}
        flavor.save_model(path=str(folder), pip_requirements=[], **more)
        return SavedModel(folder)

    return saved


def told(table: Any) -> list[str]:
    """What a model sees of its table: of each row the columns, their types and the values."""
    return [
        repr([(name, str(table[name].dtype), _told(table[name].iloc[i])) for name in table])
        for i in range(len(table))
    ]


def _told(value: Any) -> Any:
    return value if isinstance(value, list | dict) or not pd.isna(value) else "missing"


TABLE = [
    ColSpec("string", "text"),
    ColSpec("string", "context", required=False),
    ColSpec("double", "weight", required=False),
    ColSpec("long", "count", required=False),
    ColSpec("datetime", "when", required=False),
    ColSpec(Array("string"), "tags", required=False),
    ColSpec("boolean", "flag", required=False),
    ColSpec("binary", "raw", required=False),
]
TEXT = [ColSpec("string")]
NUMBERS = [ColSpec("double", "a"), ColSpec("double", "b")]
IN_INDIA = dt.timezone(dt.timedelta(hours=5, minutes=30))
ROWS = [{"a": 0.1, "b": 0.9}, {"a": 0.9, "b": 0.1}]


def test_a_table_is_the_one_that_mlflow_makes(save: Save) -> None:
    """Columns, their types and values are those of MLflow's own server: text is pandas's own type
    of texts, a column that no row has isn't there, and one that some have has gaps."""
    model = save(told, TABLE, TEXT)
    for rows in (
        [{"text": "a"}],
        [{"text": "a"}, {"text": "b"}],
        [{"text": "a", "context": "c"}],
        [{"text": "a", "context": "c"}, {"text": "b"}],
        [{"text": "a", "weight": 0.5}, {"text": "b"}],
        [{"text": "a", "weight": None}],
        [{"text": "a", "count": 3}],
        [{"text": "a", "when": "2024-01-31T12:00:00"}, {"text": "b"}],
        [{"text": "a", "tags": ["x"]}],
        [{"text": "a", "flag": True}, {"text": "b", "flag": False}],
        [{"text": "a", "raw": "YQ==\n"}],
    ):
        assert model.answer(rows) == model.by_mlflow(dataframe_records=rows)


def test_a_model_can_ask_for_texts_by_their_type(save: Save) -> None:
    """A model that selects its columns by type finds its texts."""
    model = save(lambda table: [",".join(table.select_dtypes("str"))] * len(table), TABLE, TEXT)
    assert model.answer([{"text": "a", "context": "b"}, {"text": "c"}]) == ["text,context"] * 2


def test_a_dict_of_a_row_has_the_members_that_were_sent(save: Save) -> None:
    """Where MLflow makes dicts of a table, rows with other members are other calls."""

    class Dicts(PythonModel):  # type: ignore[misc]
        def predict(self, model_input: TypeFromExample):  # type: ignore[no-untyped-def]
            return [repr(sorted(row)) for row in model_input]

    signature = ModelSignature(
        Schema([ColSpec("string", "a"), ColSpec("double", "b", required=False)]), Schema(TEXT)
    )
    model = save(Dicts(), input_example=[{"a": "x", "b": 1.0}, {"a": "y"}])
    assert model.contract.inputs.fields[1].required is False, signature
    rows = [{"a": "x"}, {"a": "y", "b": 0.5}, {"a": "z", "b": None}]
    assert model.answer(rows) == ["['a']", "['a', 'b']", "['a']"]


def test_what_was_fitted_to_a_table_gets_all_of_its_columns(save: Save) -> None:
    """A scikit-learn pipeline answers a row that lacks an optional column as it answers that row
    beside others, where MLflow's own server fails."""
    table = pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [1.0, np.nan, 3.0]})
    pipeline = make_pipeline(SimpleImputer(), LinearRegression()).fit(table, [1.0, 2.0, 3.0])
    inputs = [ColSpec("double", "a"), ColSpec("double", "b", required=False)]
    model = save(
        pipeline, inputs, [ColSpec("double")], mlflow.sklearn, serialization_format="cloudpickle"
    )
    full = {"a": 1.0, "b": 2.0}
    (_, beside) = model.answer([full, {"a": 2.0}])
    assert [beside] == model.answer({"a": 2.0}) == model.answer({"a": 2.0, "b": None})
    assert [beside] == model.by_mlflow(dataframe_records=[full, {"a": 2.0}])[1:]


@pytest.mark.parametrize("wrapped", [lambda t: t, Array, Map], ids=["object", "list", "map"])
def test_nested_objects_have_the_order_in_which_they_were_sent(save: Save, wrapped: Any) -> None:
    """As MLflow's own server hands them over, at every depth; params as well."""
    inner = Object([Property("z", DataType.long), Property("y", DataType.long)])
    place = Object([Property("b", DataType.long), Property("a", DataType.string, False),
                    Property("c", inner)])  # fmt: skip
    model = save(lambda t: list(map(repr, t["o"])), [ColSpec(wrapped(place), "o")], TEXT)
    sent = [{"c": {"y": 1, "z": 2}, "b": 5, "a": "x"}, {"b": 5, "c": {"z": 2, "y": 1}}]
    lists = {Array: lambda o: [o], Map: lambda o: {"q": o, "p": o}}
    rows = [{"o": lists.get(wrapped, lambda o: o)(each)} for each in sent]
    assert model.answer(rows) == model.by_mlflow(dataframe_records=rows)


def test_params_have_the_order_in_which_they_were_sent(save: Save) -> None:
    """As in MLflow, whose defaults come after them."""

    class Told(PythonModel):  # type: ignore[misc]
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            return [repr(params)]

    params = ParamSchema([ParamSpec(name, "long", 0) for name in "abc"])
    model = save(Told(), signature=ModelSignature(Schema(TEXT), Schema(TEXT), params))
    given = {"c": 3, "a": 1}
    assert model.answer({"inputs": "x", "params": given}) == model.by_mlflow(
        inputs=["x"], params=given
    )


# --- lists: of rows, or of outputs ----------------------------------------------------------------


def _forest() -> tuple[Any, pd.DataFrame]:
    table = pd.DataFrame({"a": [0.1, 0.9] * 5, "b": [0.9, 0.1] * 5})
    forest = RandomForestClassifier(n_estimators=3, random_state=0)
    return forest.fit(table, [[1, 0], [0, 1]] * 5), table


@pytest.mark.parametrize("custom", [False, True], ids=["scikit-learn", "custom"])
def test_probabilities_of_several_outputs_are_given_row_by_row(save: Save, custom: bool) -> None:
    """scikit-learn's list of an array per output becomes a list of outputs per row, also where
    there are as many rows as outputs, and where a custom model hands it on."""
    forest, table = _forest()
    signature = infer_signature(table, forest.predict_proba(table))
    if custom:
        model = save(lambda rows: forest.predict_proba(rows), signature=signature)
    else:
        model = save(
            forest, None, None, mlflow.sklearn, signature=signature,
            pyfunc_predict_fn="predict_proba", serialization_format="cloudpickle",
        )  # fmt: skip
    for count in (2, 1, 3, 5):
        rows = (ROWS * 3)[:count]
        expected = np.stack(forest.predict_proba(pd.DataFrame(rows)), axis=1)
        assert model.answer(rows) == expected.tolist()


@pytest.mark.parametrize(
    ("answer", "outputs", "expected"),
    [
        (lambda t: [np.array(row) for row in zip(t.a, t.b, strict=True)],
         [ColSpec(Array("double"))], [[0.1, 0.9], [0.9, 0.1]]),
        (lambda t: list(zip(t.a, t.b * 2, strict=True)),
         [ColSpec("double", "p"), ColSpec("double", "q")],
         [{"p": 0.1, "q": 1.8}, {"p": 0.9, "q": 0.2}]),
        (lambda t: (t.a.to_numpy(), t.b * 2), [ColSpec("double", "p"), ColSpec("double", "q")],
         [{"p": 0.1, "q": 1.8}, {"p": 0.9, "q": 0.2}]),
        (lambda t: [["x", 0.5]] * len(t), [ColSpec("string", "p"), ColSpec("double", "q")],
         [{"p": "x", "q": 0.5}] * 2),
        (lambda t: [["x"] * len(t), [0.5] * len(t)],
         [ColSpec("string", "p"), ColSpec("double", "q")], [{"p": "x", "q": 0.5}] * 2),
    ],
    ids=["rows", "tuples of rows", "outputs", "rows by type", "outputs by type"],
)  # fmt: skip
def test_as_many_lists_as_rows_are_what_one_row_shows(
    save: Save, answer: Any, outputs: Any, expected: Any
) -> None:
    """Two lists of two for two rows are rows or outputs, as the types say or else the answer to one
    row alone."""
    model = save(answer, NUMBERS, outputs)
    assert model.answer(ROWS) == expected
    assert model.answer(ROWS[:1]) == expected[:1]


class Pair(NamedTuple):
    q: Any
    p: Any


@pytest.mark.parametrize(
    "answer",
    [
        lambda t: [Pair(q=b, p=a) for a, b in zip(t.a, t.b, strict=True)],
        lambda t: list(t.rename(columns={"a": "p", "b": "q"})[["q", "p"]].itertuples()),
        lambda t: Pair(q=t.b.to_numpy(), p=t.a.tolist()),
        lambda t: np.array(list(zip(t.b, t.a, strict=True)), dtype=[("q", "f8"), ("p", "f8")]),
        lambda t: t.rename(columns={"a": "p", "b": "q"})[["q", "p"]].to_records(index=False),
    ],
    ids=["named tuples", "itertuples", "a named tuple of columns", "records", "recarray"],
)
def test_names_that_come_with_positions_count(save: Save, answer: Any) -> None:
    """Named tuples and records are read by their names, in whatever order they have them."""
    model = save(answer, NUMBERS, [ColSpec("double", "p"), ColSpec("double", "q")])
    for count in (1, 2):
        assert model.answer(ROWS[:count]) == [{"p": r["a"], "q": r["b"]} for r in ROWS[:count]]


def test_what_a_row_leaves_out_stays_out(save: Save) -> None:
    """An optional output that some rows have not is absent there, as it is where none has it."""
    outputs = [ColSpec("double", "p"), ColSpec("string", "why", required=False)]

    def some(table: Any) -> Any:
        return [{"p": a, "why": None} if a > 0.5 else {"p": a} for a in table.a]

    model = save(some, NUMBERS, outputs)
    assert model.answer(ROWS) == model.by_mlflow(dataframe_records=ROWS)
    assert model.answer(ROWS) == [*model.answer(ROWS[:1]), *model.answer(ROWS[1:])]


def test_what_a_list_means_is_not_guessed(save: Save) -> None:
    """Where the model can't be asked about one row, it is an error that says what to do."""

    def of_two(table: Any) -> Any:
        if len(table) < 2:
            raise ValueError
        return [table.a.to_numpy(), table.b.to_numpy()]

    model = save(of_two, NUMBERS, [ColSpec(Array("double"))])
    with pytest.raises(InvalidModelOutput, match="DataFrame"):
        model.answer(ROWS)


# --- dicts: of columns, or of one row -------------------------------------------------------------

LABELS = [ColSpec(Array("string"), "labels"), ColSpec(Array("double"), "scores")]
TWO = {"labels": ["cat", "dog"], "scores": [0.75, 0.25]}
ONE = {"labels": ["cat"], "scores": [0.75]}


@pytest.mark.parametrize(
    ("answer", "outputs"),
    [
        (TWO, LABELS), (ONE, LABELS), ({"labels": ["cat", "dog"]}, LABELS[:1]), (TWO, None),
        (ONE, None), ({"scores": [0.5]}, [ColSpec(AnyType())]), (TWO, [ColSpec(AnyType())]),
        ({"v": np.ones(3)}, [ColSpec(Array("double"), "v")]),
        ({"v": [[1.0]]}, [ColSpec(Array(Array("double")), "v")]),
        ({"a": [1], "b": "x"}, None), ({"a": []}, [ColSpec(Array("long"), "a")]), ({}, None),
    ],
)  # fmt: skip
def test_a_dict_of_lists_is_one_row_s_object(save: Save, answer: Any, outputs: Any) -> None:
    """What MLflow answers to one row, and infers as lists, is the row's object as it is."""
    model = save(lambda table: answer, NUMBERS, outputs)
    assert model.answer(ROWS[0]) == [model.by_mlflow(dataframe_records=ROWS[:1])]


def test_a_dict_of_a_model_of_one_row_is_never_in_doubt() -> None:
    """DSPy's wrapper takes one row and can't be asked about two: what it answers is the row's."""
    model = Reading("mlflow.dspy", None)
    assert model.read({"sources": ["a"]}, 1, lambda rows: None) == [{"sources": ["a"]}]


@pytest.mark.parametrize("hint", [dict[str, list[int]], dict[str, Any]])
@pytest.mark.parametrize("answer", [{"a": [1, 2]}, {"a": [1]}])
def test_a_hinted_dict_of_lists_is_one_row_s_object(save: Save, hint: Any, answer: Any) -> None:
    """A model may be hinted to answer a dict."""

    model = save(hinted(lambda rows: answer, list[str], hint))
    assert model.contract.outputs is not None
    assert isinstance(model.contract.outputs.row, MapOf)
    assert model.answer("x") == [answer]


@pytest.mark.parametrize(
    ("answer", "outputs"),
    [
        (lambda t: {"y": t.a.tolist()}, [ColSpec("double", "y")]),
        (lambda t: {"y": t.a.to_numpy()}, [TensorSpec(np.dtype("f8"), (-1,), "y")]),
        (lambda t: {"y": t.a}, None),
        (lambda t: {"y": pa.array(t.a)}, None),
        (lambda t: {"y": pa.chunked_array([pa.array(t.a)])}, [ColSpec("double", "y")]),
        (lambda t: {"y": t.a.tolist()}, None),
        (lambda t: {"y": t.a.tolist()}, [ColSpec(AnyType())]),
        (lambda t: t[["a"]].rename(columns={"a": "y"}), None),
    ],
)
def test_a_dict_of_columns_is_dealt_out(save: Save, answer: Any, outputs: Any) -> None:
    """Lists with an element per row are columns, for one row and for two."""
    model = save(answer, NUMBERS, outputs)
    assert model.answer(ROWS) == [{"y": 0.1}, {"y": 0.9}]
    assert model.answer(ROWS[0]) == [{"y": 0.1}]


def test_texts_of_arrow_in_a_dict_are_a_column(save: Save) -> None:
    """As those of a Series are, also where one is null."""
    model = save(
        lambda t: {"y": pa.array(["a", None][: len(t)]), "z": pa.array([[1, 2]] * len(t))}, NUMBERS
    )
    assert model.answer(ROWS) == [{"y": "a", "z": [1, 2]}, {"y": None, "z": [1, 2]}]
    assert model.answer(ROWS[0]) == [{"y": "a", "z": [1, 2]}]


def test_lists_of_one_row_s_object_are_never_dealt_out(save: Save) -> None:
    """A model that answers one object whatever it is asked isn't read as columns by chance: it is
    one answer, to two inputs, too."""
    model = save(lambda table: TWO, NUMBERS, None)
    assert model.answer(ROWS) == [TWO]
    assert model.answer(ROWS[0]) == [TWO]


@pytest.mark.parametrize(
    ("answer", "outputs"),
    [
        ([0.1, 0.2], [ColSpec(Array("double"))]),
        (np.array([0.5, 0.25], "f4"), [TensorSpec(np.dtype("f4"), (-1, 2))]),
        ([{"p": 0.5}, {"p": 0.25}], [ColSpec(Array(Map("double")))]),
    ],
)
def test_one_row_s_list_may_come_bare(save: Save, answer: Any, outputs: Any) -> None:
    """A list that is of the type of a row, and whose elements aren't, is one row's."""
    model = save(lambda table: answer, NUMBERS, outputs)
    assert model.answer(ROWS[0]) == [model.by_mlflow(dataframe_records=ROWS[:1])]


# --- one column, and values -----------------------------------------------------------------------

FLOAT32 = np.dtype("f4")


@pytest.mark.parametrize(
    ("answer", "outputs", "expected"),
    [
        (lambda t: pd.DataFrame({0: [0.5, 1.5]}), [TensorSpec(FLOAT32, (-1, 1))], [[0.5], [1.5]]),
        (lambda t: np.array([0.5, 1.5], "f4"), [TensorSpec(FLOAT32, (-1, 1))], [[0.5], [1.5]]),
        (lambda t: [0.5, 1.5], [TensorSpec(FLOAT32, (-1, 1, 1))], [[[0.5]], [[1.5]]]),
        (lambda t: pd.DataFrame({"y": [0.5, 1.5]}), [TensorSpec(FLOAT32, (-1, 1), "y")],
         [{"y": [0.5]}, {"y": [1.5]}]),
        (lambda t: np.array([[0.5], [1.5]]), [TensorSpec(FLOAT32, (-1,))], [0.5, 1.5]),
        (lambda t: [[0.5], [1.5]], [ColSpec("double")], [0.5, 1.5]),
        (lambda t: [[0.5], [1.5]], [ColSpec("double", "y")], [{"y": 0.5}, {"y": 1.5}]),
        (lambda t: np.array([[0.5], [1.5]]), [ColSpec("double", "y")], [{"y": 0.5}, {"y": 1.5}]),
    ],
)  # fmt: skip
def test_one_column_is_read_in_all_of_its_forms(
    save: Save, answer: Any, outputs: Any, expected: Any
) -> None:
    """A table of one column, flat values and lists of one value are the same."""
    assert save(answer, NUMBERS, outputs).answer(ROWS) == expected


@pytest.mark.parametrize(
    ("answer", "declared", "expected"),
    [
        ([bytearray(b"a")], "binary", ["YQ=="]),
        ([memoryview(b"a")], "binary", ["YQ=="]),
        ([pd.NA], "double", [None]),
        ([decimal.Decimal("0.1")], "double", [0.1]),
        ([decimal.Decimal("2")], "double", [2.0]),
        ([decimal.Decimal("9007199254740993")], "long", [9007199254740993]),
        ([decimal.Decimal("NaN")], "double", [None]),
        (pd.Series([decimal.Decimal("1.5")]), "double", [1.5]),
    ],
)
def test_values_of_other_classes_are_plain(
    save: Save, answer: Any, declared: str, expected: Any
) -> None:
    """What Python and pandas have for bytes, numbers and gaps is said in JSON."""
    assert save(lambda table: answer, NUMBERS, [ColSpec(declared)]).answer(ROWS[0]) == expected


def test_a_table_within_an_answer_is_its_records(save: Save) -> None:
    """As MLflow writes a table that is the whole answer."""
    model = save(lambda table: {"top": pd.DataFrame({"x": [1, 2]}), "n": 2}, NUMBERS)
    assert model.answer(ROWS[0]) == [{"top": [{"x": 1}, {"x": 2}], "n": 2}]


@pytest.mark.parametrize(
    "answer",
    [
        pd.DataFrame(index=range(2)),
        pd.DataFrame([[1, 2]] * 2, columns=[np.nan, True]),
        pd.DataFrame({"c": pd.array([1, None], dtype="Int64"), "d": pd.Categorical(["u", "v"])}),
        pd.DataFrame({"yhat": [0.5] * 3}, index=pd.date_range("2024-01-01", periods=3)),
    ],
)
def test_tables_and_lists_of_other_forms_are_as_mlflow_writes_them(save: Save, answer: Any) -> None:
    """Of a table without columns, of names that are no texts, and of answers of other lengths."""
    model = save(lambda table: answer, NUMBERS)
    assert model.answer(ROWS) == model.by_mlflow(dataframe_records=ROWS)


@pytest.mark.parametrize(
    "answer",
    [
        lambda t: pd.Series([0.5] * len(t)),
        lambda t: t["a"],
        lambda t: pd.Series(["x"] * len(t), index=list("uv")[: len(t)], name="label"),
        lambda t: [dt.date(2024, 1, 31)] * len(t),
        lambda t: [{"of": dt.date(2024, 1, 31), "at": dt.datetime(2024, 1, 31)}] * len(t),
        lambda t: pd.DataFrame({"d": [dt.date(2024, 1, 31)] * len(t)}),
        lambda t: np.array(["2024-01-31"] * len(t), "M8[D]"),
        lambda t: np.array(["2024-01"] * len(t), "M8[M]"),
        lambda t: np.array(["2024-01-31"] * len(t), "M8[s]"),
        lambda t: [dt.datetime(2024, 1, 31, 12, 0, 0, 500_000, IN_INDIA)] * len(t),
        lambda t: [pd.Timestamp("2024-01-31T12:00:00.123456789")] * len(t),
        lambda t: pd.DataFrame({"d": pd.to_datetime(["2024-01-31"] * len(t), utc=True)}),
        lambda t: pd.DataFrame({"d": [pd.Timestamp("2024-01-31", tz="Europe/Berlin")] * len(t)}),
    ],
)
def test_what_nobody_declared_is_as_mlflow_writes_it(save: Save, answer: Any) -> None:
    """A Series is a table of one column, a day has no time of day, and a moment its offset."""
    model = save(answer, NUMBERS)
    for rows in (ROWS, ROWS[:1]):
        assert model.answer(rows) == model.by_mlflow(dataframe_records=rows)


def test_null_in_each_row_is_an_answer_in_mlflow_s_protocol(save: Save) -> None:
    """Values without names are all there, also where an optional output is null in each row."""
    for outputs in ([ColSpec(Array("double"), "p", required=False)], None):
        model = save(lambda table: [None] * len(table), NUMBERS, outputs)
        want = model.by_mlflow(dataframe_records=ROWS)
        assert model.invoked(dataframe_records=ROWS) == want == [None, None]


def test_a_hinted_model_s_table_is_written_by_its_columns(save: Save) -> None:
    """Where no hint says what comes back, a table of several columns is one in each protocol."""
    example = {"input_example": ["u", "v"]}
    for hint in (pd.DataFrame, Any):
        made = hinted(lambda texts: pd.DataFrame({"x": texts, "n": 1}), list[str], hint)
        model = save(made, **example)
        want = model.by_mlflow(inputs=["u", "v"])
        assert model.answer(["u", "v"]) == want == model.invoked(inputs=["u", "v"])
        request = model.contract.parse(b'["u", "v"]')
        columns = model.contract.columns(model._outputs(request), request.rows)
        assert [(column.name, column.values) for column in columns] == [
            ("x", ["u", "v"]),
            ("n", [1, 1]),
        ]


# MLflow compares an example's columns with a range.
@pytest.mark.filterwarnings("ignore:Operation with range:DeprecationWarning")
@pytest.mark.parametrize("asked", ["predict_proba", "predict_log_proba"])
def test_probabilities_of_a_model_with_an_example_are_given(save: Save, asked: str) -> None:
    """MLflow declares of them what `predict` gives: of labels, which they aren't."""
    table = pd.DataFrame({"a": [0.1, 0.9, 0.2, 0.8], "b": [0.9, 0.1, 0.7, 0.3]})
    fitted = LogisticRegression().fit(table, ["no", "yes"] * 2)
    model = save(
        fitted,
        flavor=mlflow.sklearn,
        input_example=table.head(2),
        pyfunc_predict_fn=asked,
        serialization_format="cloudpickle",
    )
    for rows in (ROWS, ROWS[:1]):
        assert model.answer(rows) == model.by_mlflow(dataframe_records=rows)


def test_a_declared_moment_is_of_utc(save: Save) -> None:
    """Whatever offset the model gives it, as documents promise it."""
    for answer in (
        lambda t: pd.DataFrame({"d": [pd.Timestamp("2024-01-31T01", tz="Europe/Berlin")] * len(t)}),
        lambda t: [dt.datetime(2024, 1, 31, 5, 30, tzinfo=IN_INDIA)] * len(t),
        lambda t: [dt.datetime(2024, 1, 31, tzinfo=dt.UTC), dt.date(2024, 1, 31)],
    ):
        model = save(answer, NUMBERS, [ColSpec("datetime", "d")])
        assert model.answer(ROWS) == [{"d": "2024-01-31T00:00:00"}] * 2


def test_a_series_is_a_column_of_what_is_declared(save: Save) -> None:
    """By its values, whatever it is called: there is no other column that it could be."""
    for outputs, want in (
        ([ColSpec("double")], [0.1, 0.9]),
        ([ColSpec("double", "p")], [{"p": 0.1}, {"p": 0.9}]),
        ([TensorSpec(FLOAT32, (-1, 1))], [[0.1], [0.9]]),
    ):
        assert (
            save(lambda t: t["a"].astype("f4").rename("y"), NUMBERS, outputs).answer(ROWS) == want
        )


def test_columns_of_other_names_than_declared_are_an_error(save: Save) -> None:
    """MLflow answers with the model's names; by position their values would be somebody else's."""
    declared = [ColSpec("double", "low"), ColSpec("double", "high")]
    model = save(lambda t: pd.DataFrame({"upper": t.a, "lower": t.b}), NUMBERS, declared)
    with pytest.raises(InvalidModelOutput, match="'low', 'high'"):
        model.answer(ROWS)
    unnamed = save(lambda t: pd.DataFrame(t.to_numpy()), NUMBERS, declared)
    assert unnamed.answer(ROWS[:1]) == [{"low": 0.1, "high": 0.9}]


# --- type hints -----------------------------------------------------------------------------------


class Inner(pydantic.BaseModel):
    k: int = 3


class Order(pydantic.BaseModel):
    item: str
    lang: str = "en"
    count: int = pydantic.Field(1, gt=0)
    inner: Inner = Inner()


class Open(pydantic.BaseModel, extra="allow"):
    a: int


class Orders(PythonModel):  # type: ignore[misc]
    def predict(self, model_input: list[Order]) -> list[str]:
        return [repr(order) for order in model_input]


def test_a_default_of_a_class_holds_where_a_member_is_absent(save: Save) -> None:
    """MLflow's signature says that it is required; the class, which knows better, is asked."""
    model = save(Orders())
    rows = [{"item": "tea"}, {"item": "mate", "lang": "es", "inner": {}}]
    assert model.answer(rows) == model.by_mlflow(inputs=rows)
    assert model.answer({"inputs": rows[0]}) == model.by_mlflow(inputs=rows[:1])


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({"lang": "en"}, {"/item": "Required, and missing."}),
        ([{"item": "a"}, {"item": "b", "count": 0}],
         {"/1/count": "Input should be greater than 0."}),
        ({"inputs": [{"item": "a", "lang": None}]}, {"/inputs/0/lang": "valid string"}),
        ({"inputs": {"item": "a", "inner": {"k": None}}}, {"/inputs/inner/k": "valid integer"}),
    ],
)  # fmt: skip
def test_what_a_class_refuses_is_told_by_its_place(save: Save, body: Any, errors: Any) -> None:
    """What no signature can say, the class does, and the caller is told where."""
    with pytest.raises(InvalidInput) as refused:
        save(Orders()).answer(body)
    found = {each.pointer: each.message for each in refused.value.violations}
    assert found.keys() == errors.keys()
    assert all(word in found[place] for place, word in errors.items())


def test_what_a_class_allows_stays_in_the_answer(save: Save) -> None:
    """An open class's members that no signature declares aren't dropped."""

    class Opened(PythonModel):  # type: ignore[misc]
        def predict(self, model_input: list[str]) -> list[Open]:
            return [Open(a=1, b=[text]) for text in model_input]

    assert save(Opened()).answer("x") == [{"a": 1, "b": ["x"]}]


def test_null_among_anything_is_an_input(save: Save) -> None:
    """`list[Any]` has one answer for each element, null included."""

    class Anything(PythonModel):  # type: ignore[misc]
        def predict(self, model_input: list[Any]) -> list[str]:
            return [repr(each) for each in model_input]

    model = save(Anything())
    for body in ([1, None], [None], [None, [1], {"a": None}], ["a"]):
        assert model.answer(body) == model.by_mlflow(inputs=body)


class Mode(pydantic.BaseModel):
    text: str
    mode: Literal["a", "b"] = "a"


@dataclasses.dataclass
class Plain:
    text: str
    mode: str = "a"


@pytest.mark.parametrize("hint", [list[Mode], list[Plain]])
def test_what_mlflow_has_no_type_for_is_required_as_in_mlflow(save: Save, hint: Any) -> None:
    """Of a dataclass and a Literal MLflow writes what the input example has, and nothing of
    defaults: it refuses what lacks a member, and so does a gateway."""

    model = save(
        hinted(lambda table: list(table["text"]), hint, list[str]),
        input_example=[{"text": "a", "mode": "a"}],
    )
    assert model.answer({"text": "x", "mode": "b"}) == ["x"]
    with pytest.raises(InvalidInput):
        model.answer({"text": "x"})
    with pytest.raises(mlflow.MlflowException, match="missing inputs"):
        model.by_mlflow(dataframe_records=[{"text": "x"}])
