"""The table of start methods: real models of each flavor that is installed, no Ray."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from deployments.model_replica.start_methods import start_method
from tests.support.flavor_models import PACKAGES
from tests.support.flavor_processes import saved_model, starting, with_probe

FLAVORS = [
    pytest.param(
        flavor,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(package) is None, reason=f"{package} isn't installed"
        ),
    )
    for flavor, package in PACKAGES.items()
]
TRACED = "mlflow.sklearn"
"""Where a trace is stored, which takes long and is MLflow's own doing for each of them."""


@pytest.mark.parametrize("flavor", FLAVORS)
async def test_a_started_process_is_as_good_as_a_fresh_interpreter(
    flavor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes of one template answer as a fresh interpreter does, are forked where the table
    says so, which a template with a second thread would not do, share no random numbers, compute
    by all their threads, have worker processes of their own, and end as programs of Python do."""
    monkeypatch.chdir(tmp_path)  # where traces are kept by MLflow, wherever their store is
    model = saved_model(flavor, tmp_path / "model", sys.executable, at_once=True)
    probed = with_probe(model, tmp_path / "probed")
    method = start_method(flavor)
    async with starting(method, sys.executable) as starter:
        processes = [await starter.start(each) for each in (model, probed, probed)]
        assert [each.was_forked for each in processes] == [method.forks] * 3
        _, first, second = processes
        ours, theirs = await first.probed("chance"), await second.probed("chance")
        assert not [name for name, drawn in ours.items() if drawn == theirs[name]]
        await first.probed("blas")
        await second.probed("pools")
        if flavor == TRACED:
            assert await second.probed("traced") == 2
        await second.probed("at_exit", str(tmp_path / "ended"))
        await second.end()
        assert (tmp_path / "ended").exists()
