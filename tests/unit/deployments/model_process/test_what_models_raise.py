"""What a model's own code raises: it is the model's failure, and nothing of it stays."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pydantic
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types.schema import ColSpec, Schema

from deployments.model_process import job
from gateway.errors import ModelFailed
from tests.support.saved_models import SavedModel

# What MLflow says of hints, and of their absence, is no fault of these models.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

RAISED: dict[str, BaseException] = {
    "key": KeyError("zz"),
    "attribute": AttributeError("zz"),
    "type": TypeError("zz"),
    "exit": SystemExit(1),
}


class Checked(pydantic.BaseModel):
    """Its author's check raises what pydantic doesn't take for a refusal."""

    k: str

    @pydantic.field_validator("k")
    @classmethod
    def _known(cls, value: str) -> str:
        if value in RAISED:
            raise RAISED[value]
        return value


class OfChecked(PythonModel):  # type: ignore[misc]
    def predict(self, model_input: list[Checked]) -> list[str]:
        return [each.k for each in model_input]

    def predict_stream(self, model_input: Any) -> Iterator[str]:
        yield model_input["k"]


class Large:
    """Stands for gigabytes."""


class Rows(list[Any]):
    """A list that can be referred to weakly."""


held: list[weakref.ref[Any]] = []


class OutOfMemory(PythonModel):  # type: ignore[misc]
    """Fails while it holds much; streams well."""

    def predict(self, model_input: list[str]) -> list[str]:
        large = Large()
        held.append(weakref.ref(large))
        raise MemoryError

    def predict_stream(self, model_input: Any) -> Iterator[str]:
        yield "all"


class Interrupted(PythonModel):  # type: ignore[misc]
    """What its lists mean is asked by a second call, which is interrupted."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        if len(model_input) == 1:
            raise KeyboardInterrupt
        return [np.array([0.9, 0.1]), np.array([0.1, 0.9])]


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., SavedModel]:
    def saved(model: PythonModel, **more: Any) -> SavedModel:
        folder = tmp_path / "model"
        mlflow.pyfunc.save_model(path=str(folder), python_model=model, pip_requirements=[], **more)
        return SavedModel(folder)

    return saved


@pytest.fixture
def without_collector() -> Iterator[None]:
    """What is freed is freed at once, or not at all."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("value", RAISED)
def test_what_a_check_raises_is_the_models_failure(
    save: Callable[..., SavedModel], value: str
) -> None:
    """Whatever it is, for a call and for a stream; the process goes on."""
    model = save(OfChecked())
    for ask in (model.answer, model.streamed):
        with pytest.raises(ModelFailed):
            ask([{"k": value}])
        assert ask([{"k": "good"}]) == ["good"]
    assert [each["what"] for each in model.events] == ["model_failed"] * 2


@pytest.mark.usefixtures("without_collector")
def test_what_a_failed_call_held_is_free_when_it_is_told(save: Callable[..., SavedModel]) -> None:
    """The next call of who was out of memory needs it."""
    model = save(OutOfMemory())
    with pytest.raises(ModelFailed):
        model.answer("x")
    assert held[-1]() is None


@pytest.mark.usefixtures("without_collector")
def test_what_a_stream_was_asked_is_free_when_it_has_ended(
    save: Callable[..., SavedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is told by an exception, too."""
    unpacked = job.unpacked_call

    def held_call(message: Any) -> Any:
        call = unpacked(message)
        layout, names, columns = call.frame
        rows = tuple(map(Rows, columns))
        held.append(weakref.ref(rows[0]))
        return call._replace(frame=(layout, names, rows))

    model = save(OutOfMemory())
    monkeypatch.setattr(job, "unpacked_call", held_call)
    assert model.streamed("x") == ["all"]
    assert held[-1]() is None


def test_who_is_interrupted_does_not_guess(save: Callable[..., SavedModel]) -> None:
    """An interrupt of the second call isn't the model's answer to those rows."""
    numbers = Schema([ColSpec("double", "a")])
    model = save(Interrupted(), signature=ModelSignature(numbers, Schema([ColSpec("double")])))
    with pytest.raises(ModelFailed):
        model.answer([{"a": 0.1}, {"a": 0.9}])
