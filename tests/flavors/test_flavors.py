"""Each of MLflow's flavors, in an environment of its own, asked through a gateway.

What comes back is what MLflow's own `predict` answers in that environment. `make flavors` tries all
of them, `make test` those that cost little.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from deployments.model_replica.start_methods import start_method
from gateway.catalog import contract_of
from tests.flavors.recipes import FLAVORS, Flavor
from tests.flavors.serving import NAME, serving, version_of
from tests.support.flavor_processes import SavedModel, saved_model

ALL = os.environ.get("FLAVORS") == "all"
TRIED = [pytest.param(each, id=each.name) for each in FLAVORS if ALL or each.cheap]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("flavor", TRIED)
async def test_a_flavor_answers_as_mlflow_does(
    flavor: Flavor,
    interpreter_of: Callable[[Flavor], Awaitable[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Alone and in company, a list and one by one; forked where the table says so."""
    monkeypatch.chdir(tmp_path)
    interpreter = await interpreter_of(flavor)
    model = await asyncio.to_thread(
        saved_model, flavor.name, tmp_path / "model", interpreter, answers="predictions"
    )
    want = _rows(model)
    async with serving(model, interpreter) as served:
        assert served.version.problem is None
        assert served.version.flavor == flavor.loader
        assert served.started.was_forked == start_method(flavor.loader).forks
        inputs = _inputs(model)

        async def asked(body: Any) -> list[Any]:
            response = await served.client.post(f"/models/{NAME}/predict", json=body)
            assert response.status_code == 200, response.text
            return list(response.json())

        _compare(await asked(inputs), want)
        _compare(await asked({"inputs": inputs}), want)
        if len(want) == len(inputs):
            alone = await asyncio.gather(*(asked(each) for each in inputs))
            assert [len(each) for each in alone] == [1] * len(inputs)
            _compare([each for (each,) in alone], want)
        else:
            answers = await asyncio.gather(*(asked(inputs) for _ in range(4)))
            for answer in answers:
                _compare(answer, want)


def _rows(model: SavedModel) -> list[Any]:
    """What MLflow answers, by row: tensors are by output."""
    predicted = model.answer["predictions"]
    if isinstance(predicted, list):
        return predicted
    outputs = contract_of(version_of(model).signature or "").outputs
    if outputs is not None and outputs.tensors:
        rows = zip(*predicted.values(), strict=True)
        return [dict(zip(predicted, row, strict=True)) for row in rows]
    return [predicted]


def _inputs(model: SavedModel) -> list[Any]:
    """The model's rows as a list of inputs, by the form that its contract has."""
    if not isinstance(model.asked, dict):
        return list(model.asked)
    contract = contract_of(version_of(model).signature or "")
    if not contract.inputs.named:
        (column,) = model.asked.values()
        return list(column)
    rows = zip(*model.asked.values(), strict=True)
    return [dict(zip(model.asked, row, strict=True)) for row in rows]


def _compare(got: Any, want: Any) -> None:
    """Equal but for rounding, and for names that the signature gives to what has none, or pandas to
    what the signature has none for."""
    if isinstance(got, dict) and not isinstance(want, dict):
        (value,) = got.values()
        _compare(value, want)
    elif isinstance(want, list):
        assert isinstance(got, list)
        assert len(got) == len(want)
        for ours, theirs in zip(got, want, strict=True):
            _compare(ours, theirs)
    elif isinstance(want, dict) and not isinstance(got, dict):
        (value,) = want.values()
        _compare(got, value)
    elif isinstance(want, dict):
        assert got.keys() == want.keys()
        for name, value in want.items():
            _compare(got[name], value)
    elif isinstance(want, float):
        assert math.isnan(want) if got is None else got == pytest.approx(want, rel=1e-4, abs=1e-6)
    else:
        assert got == want
