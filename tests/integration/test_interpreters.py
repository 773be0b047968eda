"""A model's process in interpreters of other ages: other Pythons, MLflow, NumPy and pandas.

Environments are made by uv on the spot, of small packages, for each Python that is here.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from deployments.model_process.framing import Message
from deployments.model_process.messages import Call, packed_call, unpacked_outcome
from tests.support.pythons import python_of
from tests.support.supervised import asked, save_code, supervised

AGES = {
    "3.8": ("mlflow-skinny==2.0.1", "numpy==1.24.4", "pandas==1.5.3", "setuptools<70"),
}
"""The oldest."""

CODE = """
import sys
import numpy as np
import pandas as pd

def predict(rows):
    return pd.DataFrame({
        "python": ["%d.%d" % sys.version_info[:2]] * len(rows),
        "sum": rows["x"] + rows["n"],
        "text": [None if t is None else t + "!" for t in rows["t"]],
        "when": rows["w"],
        "nested": [{"a": [1, np.float32(0.1), b"x"], "b": None}] * len(rows),
        "lists": [np.arange(i) for i in range(len(rows))],
        "is": rows["x"] > 1,
    })
"""


@pytest.fixture(params=AGES, scope="module")
def interpreter(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    """The version, and a Python of it that has MLflow, NumPy and pandas of its age."""
    age: str = request.param
    base = python_of(age)
    if base is None:
        pytest.skip(f"Python {age} isn't here")
    folder = tmp_path_factory.mktemp(f"python-{age}")
    python = str(folder / "bin" / "python")
    uv = [sys.executable, "-m", "uv", "--quiet"]
    subprocess.run([*uv, "venv", "--python", base, str(folder)], check=True)
    subprocess.run([*uv, "pip", "install", "--python", python, *AGES[age]], check=True)
    return age, python


async def test_a_model_answers_the_same_in_an_interpreter_of_any_age(
    interpreter: tuple[str, str], tmp_path: Path
) -> None:
    """Every kind of column goes there and comes back equal, forked from a template there."""
    age, python = interpreter
    version = save_code(tmp_path, "old", CODE)
    columns = (
        np.array([0.5, float("nan"), 2.5]),
        np.array([1, 2, 3]),
        ["a", None, "ü\ud800"],
        np.array(["2026-11-29", "NaT", "1999-01-01"], "M8[ns]"),
    )
    call = Call(("table", ("x", "n", "t", "w"), columns), {}, 0.0, 60.0)
    async with supervised(tmp_path, interpreter=python) as supervisor:
        kind, value = await supervisor.call(
            version,
            packed_call(call),
            load_timeout_s=120.0,
            give_up_at=time.monotonic() + 60.0,
        )
    assert kind == "answered", value
    outcome = unpacked_outcome(Message(value[0], value[1]))
    assert outcome.kind == "ok"
    _, names, answer = outcome.value
    by_name = dict(zip(names, answer, strict=True))
    assert by_name["python"] == [age] * 3
    np.testing.assert_equal(by_name["sum"], np.array([1.5, np.nan, 5.5]))
    assert by_name["text"] == ["a!", None, "ü\ud800!"]
    assert by_name["when"].dtype.kind == "M"
    assert by_name["when"].astype("M8[D]").astype(str).tolist() == [
        "2026-11-29",
        "NaT",
        "1999-01-01",
    ]
    assert by_name["nested"] == [{"a": [1, np.float32(0.1), b"x"], "b": None}] * 3
    assert [each.tolist() for each in by_name["lists"]] == [[], [0], [0, 1]]
    assert by_name["is"].tolist() == [False, False, True]


async def test_versions_of_two_ages_are_loaded_side_by_side(
    interpreter: tuple[str, str], tmp_path: Path
) -> None:
    """One in the gateway's own interpreter, one in another: each answers from its own."""
    age, python = interpreter
    tells = "import sys\ndef predict(rows): return ['%d.%d' % sys.version_info[:2]] * len(rows)\n"
    version = save_code(tmp_path, "tells", tells)
    async with (
        supervised(tmp_path, interpreter=python) as other,
        supervised(tmp_path) as own,
    ):
        (_, theirs), (_, ours) = await asyncio.gather(
            asked(other, version, [1.0]), asked(own, version, [1.0])
        )
    assert ours == ["{}.{}".format(*sys.version_info[:2])]
    assert theirs == [age]
