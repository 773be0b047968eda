"""A `Supervisor` with real processes, over models that were saved here: no Ray, no registry."""

from __future__ import annotations

import asyncio
import textwrap
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.cluster.zygote import zygote
from deployments.environments.planner import EnvironmentSettings
from deployments.model_process.artifacts import artifacts_folder
from deployments.model_process.framing import Message
from deployments.model_process.messages import Call, Outcome, packed_call, unpacked_outcome
from deployments.model_replica import processes
from deployments.model_replica.host_settings import HostSettings
from deployments.model_replica.processes import Processes
from deployments.model_replica.residents import Keep, Resident
from deployments.model_replica.supervisor import Supervisor
from deployments.model_replica.version_process import VersionId

MODEL = "m"
_LOADER = "loader_of_the_model"
_LOAD = """

class Model:
    def predict(self, rows):
        return predict(rows)

def _load_pyfunc(path):
    return Model()
"""


@contextmanager
def zygote_of_a_replica() -> Iterator[str]:
    """A machine's zygote as replicas have one, with the variable that Ray sets there."""
    with pytest.MonkeyPatch.context() as patching:
        patching.setenv("OMP_NUM_THREADS", "1")
        # Else it refuses the next test's: pytest has another value there.
        patching.setattr(processes, "_OF_WORKERS", processes._OF_WORKERS | {"PYTEST_CURRENT_TEST"})
        with zygote() as address:
            yield address


async def until(is_so: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for what comes beside this task; fails where it doesn't."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it didn't come to that"
        await asyncio.sleep(0.02)


def save_code(
    folder: Path, fingerprint: str, code: str, *, modules: Mapping[str, str] | None = None
) -> VersionId:
    """A version whose model is of that code: the body of a module that has `predict(rows)`, rows
    being a DataFrame, and may do more when it is loaded. It ships the `modules`, by their names."""
    import mlflow

    folder.mkdir(parents=True, exist_ok=True)
    target = artifacts_folder(folder, fingerprint)

    class Nothing(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return model_input

    # What the code does when it is loaded is for its own process, so it isn't saved as it is.
    mlflow.pyfunc.save_model(target, python_model=Nothing(), pip_requirements=[])
    _replace_by_code(target, {**(modules or {}), _LOADER: textwrap.dedent(code) + _LOAD})
    return version(fingerprint)


def _replace_by_code(target: Path, modules: Mapping[str, str]) -> None:
    """Make a saved model one that a module of its own loads, which every MLflow knows."""
    import yaml

    document = yaml.safe_load((target / "MLmodel").read_text())
    flavor = document["flavors"]["python_function"]
    flavor.pop("python_model", None)
    flavor |= {"loader_module": _LOADER, "code": "code"}
    (target / "MLmodel").write_text(yaml.safe_dump(document))
    (target / "code").mkdir(exist_ok=True)
    for name, text in modules.items():
        (target / "code" / f"{name}.py").write_text(text)


def version(fingerprint: str, flavor: str | None = None) -> VersionId:
    """The version of that fingerprint."""
    return VersionId(model=MODEL, number=1, fingerprint=fingerprint, flavor=flavor)


def kept_by_use(size: int) -> Callable[[Callable[[str], Awaitable[Resident]]], Keep]:
    """An LRU of so many versions, as Ray's is."""

    def keep(take: Callable[[str], Awaitable[Resident]]) -> Keep:
        kept: OrderedDict[str, Resident] = OrderedDict()

        async def resident(key: str) -> Resident:
            if key not in kept:
                kept[key] = await take(key)
            kept.move_to_end(key)
            while len(kept) > size:
                kept.popitem(last=False)
            return kept[key]

        return resident

    return keep


@asynccontextmanager
async def supervised(
    folder: Path,
    *,
    most_versions: int = 8,
    interpreter: str | None = None,
    environments: EnvironmentSettings | None = None,
    **settings: Any,
) -> AsyncIterator[Supervisor]:
    """A supervisor over the versions that were saved in `folder`."""
    running = Supervisor(
        HostSettings(
            tracking_uri=f"sqlite:///{folder}/none.db",
            registry_uri=f"sqlite:///{folder}/none.db",
            artifact_folder=str(folder),
            max_loaded_versions=most_versions,
            environments=environments or EnvironmentSettings(folder=str(folder / "environments")),
            **settings,
        ),
        keep=kept_by_use(most_versions),
        processes=None if interpreter is None else Processes(interpreter),
    )
    try:
        yield running
    finally:
        await running.close()


async def asked(
    supervisor: Supervisor,
    wanted: VersionId,
    values: list[float],
    *,
    patience_s: float = 60.0,
    load_timeout_s: float = 60.0,
) -> tuple[str, Any]:
    """What comes of one call with a column `x`: `("ok", answer)`, or the outcome that it is."""
    frame = ("table", ("x",), (np.array(values),))
    message = packed_call(Call(frame, {}, 0.0, patience_s))
    kind, value = await supervisor.call(
        wanted,
        message,
        load_timeout_s=load_timeout_s,
        give_up_at=time.monotonic() + 60.0,
    )
    if kind != "answered":
        return kind, value
    outcome: Outcome = unpacked_outcome(Message(value[0], value[1]))
    if outcome.kind != "ok":
        return outcome.kind, None
    kind, *rest = outcome.value
    answer = rest[1][0] if kind == "columns" else rest[0]  # a Series has one column
    return "ok", answer.tolist() if isinstance(answer, np.ndarray) else answer
