"""What models that were made from type hints take, beside what MLflow's own server hands them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pydantic
import pydantic.v1
import pytest
from mlflow.pyfunc import PythonModel

from deployments.model_process import hinted
from gateway.errors import InvalidInput, ModelFailed
from tests.support.saved_models import SavedModel

# What MLflow says of hints is no fault of these models.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

Save = Callable[..., SavedModel]


class Inner(pydantic.BaseModel):
    k: int = 3


class Open(pydantic.BaseModel, extra="allow"):
    a: int
    inner: Inner = Inner()


class OpenInside(pydantic.BaseModel):
    many: list[Open] = []
    by_name: dict[str, Inner] = {}


class Closed(pydantic.BaseModel, extra="forbid"):
    a: int


class Named(pydantic.BaseModel, populate_by_name=True):
    first_name: str = pydantic.Field(alias="firstName")
    last: str = pydantic.Field("?", validation_alias=pydantic.AliasChoices("last", "surname"))


class Ranged(pydantic.BaseModel):
    low: int
    high: int

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return (
            dict(zip(("low", "high"), value["range"], strict=True)) if "range" in value else value
        )


class Gaps(pydantic.BaseModel):
    numbers: list[int | None] = []
    either: int | str = 0
    named: dict[str, str | None] = {}


class Checked(pydantic.BaseModel):
    tags: list[str] = []
    count: int = 1
    day: dt.datetime | None = None
    inner: Inner | None = None

    @pydantic.field_validator("tags", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value

    @pydantic.field_validator("count", "inner", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value


class Mapping(pydantic.RootModel[dict[str, int]]):
    pass


class Order(pydantic.BaseModel):
    item: str = pydantic.Field(alias="article")
    lang: str = "en"
    count: int | None = pydantic.Field(None, gt=0)
    inner: Inner | None = None


def _told(rows: list[Any]) -> list[str]:
    return [repr(row) for row in rows]


def _hinted(takes: Any, *, gives: Any = list[str], answer: Any = _told) -> PythonModel:
    """A model with the hint; it streams what it was given."""

    def predict(self, model_input):  # type: ignore[no-untyped-def]
        return answer(model_input)

    def predict_stream(self, model_input) -> Iterator[Any]:  # type: ignore[no-untyped-def]
        yield repr(model_input)

    predict.__annotations__ = {"model_input": takes, "return": gives}
    members = {"predict": predict, "predict_stream": predict_stream}
    return type("Hinted", (PythonModel,), members)()  # type: ignore[no-any-return]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def saved(model: PythonModel) -> SavedModel:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        mlflow.pyfunc.save_model(path=str(folder), python_model=model, pip_requirements=[])
        return SavedModel(folder)

    return saved


@pytest.mark.parametrize(
    ("of", "row"),
    [
        (Open, {"z": [1, {"b": None}], "a": 1, "inner": {"k": 1, "unknown": 2}}),
        (OpenInside, {"many": [{"a": 1, "z": 5}], "by_name": {"y": {"q": 1}, "x": {}}}),
        (OpenInside, {"misspelled": 1}),
        (Named, {"firstName": "A", "surname": "B"}),
        (Named, {"first_name": "A"}),
        (Ranged, {"range": [1, 2]}),
        (Gaps, {"numbers": [1, None], "either": "x", "named": {"b": None, "a": "y"}}),
        (Mapping, {"b": 1, "a": 2}),
        (Checked, {"tags": "a,b", "count": "7", "inner": '{"k": 5}'}),
        (Checked, {"tags": ["a"], "inner": {"k": 5}, "day": None}),
        (list[Checked], [{"tags": "a"}, {"count": "2"}]),
        (dt.datetime, "2024-01-31T12:00:00"),
        (dt.datetime, "2024-01-31T12:00:00.5+02:00"),
        (dict[str, list[dt.datetime]], {"a": ["2024-01-31T12:00:00Z"]}),
        (bytes, "YWI="),
        (list[int | None], [1, None]),
        (dict[str, int | None], {"b": None, "a": 1}),
        (dict[str, Open], {"b": {"z": 1, "a": 2}}),
        (list[Inner], [{"k": 1}, {}]),
        (int | str, [1]),
    ],
)
def test_a_class_says_itself_what_it_takes(save: Save, of: Any, row: Any) -> None:
    """Further members, aliases, null in lists: what MLflow's server takes by the hint is taken."""
    model = save(_hinted(list[of]))
    assert model.answer({"inputs": [row]}) == model.by_mlflow(inputs=[row])
    assert model.invoked(inputs=[row]) == model.by_mlflow(inputs=[row])


@pytest.mark.parametrize(
    ("of", "row", "places"),
    [
        (Closed, {"a": 1, "b": 2}, ["/0/b"]),
        (Named, {"last": "x"}, ["/0/firstName"]),
        (Gaps, {"either": [1]}, ["/0/either"] * 2),
        (
            Checked,
            {"tags": 5, "inner": {"k": "x"}, "day": "no"},
            ["/0/tags", "/0/day", "/0/inner/k"],
        ),
        (OpenInside, {"many": [{"a": "x"}], "by_name": 1}, ["/0/many/0/a", "/0/by_name"]),
        (list[int], [1, None], ["/0/1"]),
        (dict[str, Inner], {"a": {"k": None}}, ["/0/a/k"]),
    ],
)
def test_what_a_class_does_not_take_has_its_place(
    save: Save, of: Any, row: Any, places: list[str]
) -> None:
    """Pointers are into the body, also where pydantic names a union's branches."""
    model = save(_hinted(list[of]))
    with pytest.raises(InvalidInput) as refused:
        model.answer([row])
    assert [each.pointer for each in refused.value.violations] == places
    with pytest.raises(InvalidInput) as refused:
        model.invoked(inputs=[row])
    assert [each.pointer for each in refused.value.violations] == [f"/inputs{p}" for p in places]


def test_what_a_hint_allows_to_be_none_may_be_none_in_an_answer(save: Save) -> None:
    """MLflow writes `list[int | None]` as a list of numbers."""
    hint = list[dict[str, list[int | None]]]
    model = save(_hinted(list[str], gives=hint, answer=lambda rows: [{"b": [1, None]}] * len(rows)))
    assert model.answer("x") == [{"b": [1, None]}] == model.by_mlflow(inputs=["x"])


def test_a_stream_takes_what_its_hint_takes(save: Save) -> None:
    """`predict_stream` gets what MLflow gives it, a dict and no object of the class: with what the
    class has defaults for, and without what nobody said."""
    model = save(_hinted(list[Order]))
    whole = {"article": "tea", "lang": "es", "count": 2, "inner": {"k": 1}}
    told = {"item": "tea", "lang": "es", "count": 2, "inner": {"k": 1}}
    assert model.streamed(whole) == [repr(told)]
    assert model.streamed({"article": "tea", "inner": {}}) == [
        repr({"item": "tea", "lang": "en", "inner": {"k": 3}})
    ]
    with pytest.raises(InvalidInput) as refused:
        model.streamed({"inputs": {"article": "tea", "count": 0}})
    assert [each.pointer for each in refused.value.violations] == ["/inputs/count"]


@pytest.mark.parametrize(
    ("of", "value"),
    [(str, "a"), (list[str], ["a"]), (dict[str, Any], {"b": [None], "a": 1}), (int, 1), (Any, [1])],
)
def test_a_stream_of_plain_values_gets_them(save: Save, of: Any, value: Any) -> None:
    """Also those that MLflow takes in two lists only, for it takes them for a table."""
    model = save(_hinted(list[of]))
    assert model.streamed({"inputs": [value]}) == [repr(value)]
    assert list(model.mlflow_stream([[value]])) == [repr(value)]


class OfPydantic1(pydantic.v1.BaseModel):
    a: int


def test_a_class_of_pydantic_1_is_asked_what_it_refuses() -> None:
    """Its account has the same form, but for some words."""
    hint = hinted.TypeHint(list[OfPydantic1])
    assert hint.refusals([[{"a": 1}], [{"a": "x"}, {}]]) == [
        [1, [0, "a"], "value is not a valid integer."],
        [1, [1, "a"], "Required, and missing."],
    ]


@pytest.mark.parametrize("of", [OfPydantic1, list[OfPydantic1], dict[str, OfPydantic1 | None]])
def test_a_stream_is_checked_also_where_the_class_can_not_be_asked(
    save: Save, monkeypatch: pytest.MonkeyPatch, of: Any
) -> None:
    """By the signature then, which MLflow enforces: of pydantic 1 no class says what is wrong."""
    monkeypatch.setattr(hinted, "_element_of", lambda _: of)
    model = save(_hinted(list[Closed]))
    assert model.streamed({"a": 1}) == [repr({"a": 1})]
    with pytest.raises((InvalidInput, ModelFailed)):
        model.streamed({})
