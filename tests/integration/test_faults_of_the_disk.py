"""What callers see when the state folder can't be written any more, by a real full disk."""

from __future__ import annotations

import errno
import logging
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Gateway, gateway, poll
from tests.support.registering import columns, register
from tests.support.steady_load import Ask, steady_load

_logger = logging.getLogger(__name__)

NUMBER = columns(("x", "double"))
STEADY = "steady on any disk"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of 4 MB, where one can be mounted here; else a folder."""
    folder = tmp_path_factory.mktemp("disk")
    mounting = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mounting, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    yield folder
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def state(disk: Path) -> Path:
    return disk / "state"


@pytest.fixture(scope="module")
def served(
    mlflow_uri: str, state: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway that keeps its state on that disk."""
    register(mlflow_uri, STEADY, lambda rows, params: rows * 2, NUMBER, NUMBER)
    options = ("--poll-interval-s", "0.5", "--include", "* any disk", "--state-dir", str(state))
    soon = {"MODELMUX_LOAD_RETRY_S": "1"}
    folder = tmp_path_factory.mktemp("gateway")
    with gateway(mlflow_uri, folder, *options, environment=soon) as running:
        yield running


@contextmanager
def full_disk(state: Path) -> Iterator[None]:
    """Nothing more can be written to the disk of the state folder."""
    filler = state.parent / "filler"
    if not state.parent.is_mount():
        pytest.skip("no disk can be mounted here")
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - the only way to fill a disk
    yield
    filler.unlink()


@contextmanager
def folder_in_the_way(state: Path) -> Iterator[None]:
    """The state folder is gone, and can't be made because a file has its name."""
    aside = state.rename(state.with_name("aside"))
    state.write_text("in the way")
    yield
    state.unlink()
    aside.rename(state)


def snapshot_problems(served: Gateway) -> set[Any]:
    """What `/models` and `/readyz` tell, one after the other: for a moment that may be two."""
    registry = served.client.get("/models").json()["registry"]
    return {registry["snapshot_problem"], served.client.get("/readyz").json()["snapshot_problem"]}


def is_told(served: Gateway) -> bool:
    return all("can't be saved" in (problem or "") for problem in snapshot_problems(served))


@pytest.mark.parametrize("harm", [folder_in_the_way, full_disk])
def test_serving_goes_on_without_snapshot_and_says_so(
    harm: Callable[[Path], AbstractContextManager[None]],
    mlflow_uri: str,
    served: Gateway,
    state: Path,
) -> None:
    """What is loaded answers on; what can't be fetched is 503 for that version alone; `/models`
    and the log tell; when there is room again, snapshot and version come by themselves."""
    name = f"{harm.__name__} any disk"
    ask = Ask(model=STEADY, version=1, answer=lambda n: [{"x": float(n * 2)}])
    with steady_load(served.url, ask) as load:
        load.wait_for_answers(20)
        with harm(state):
            register(mlflow_uri, name, lambda rows, params: rows * 3, NUMBER, NUMBER)
            served.sync()
            poll(lambda: is_told(served), what="the word")
            assert "can't be saved" in served.log.read_text()
            refused = served.predict(name, {"x": 1})
            assert (refused.status_code, refused.json()["code"]) == (503, "model_unavailable")
            assert int(refused.headers["Retry-After"]) >= 1
            load.wait_for_answers(20)
            assert served.client.get("/readyz").status_code == 200
        poll(lambda: snapshot_problems(served) == {None}, what="the snapshot")
        assert name in (state / "catalog.json").read_text()
        poll(lambda: served.predict(name, {"x": 1}).status_code == 200, what="the new model")
    _logger.info("%s: %s", harm.__name__, load.figures)
    assert (load.figures.failed, load.figures.wrong, load.figures.hung) == (0, [], 0)
