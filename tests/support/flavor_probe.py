"""The loader module of a model that is asked about its own process: it travels with the model.

It loads the flavor's model, and answers with that; asked for a table with the one column `probe` it
says what it is told to find out, as JSON. Runs in the model's interpreter, so it imports nothing of
ours.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROBE = "probe"
LOADER_FILE = "loader.txt"


def _load_pyfunc(path: str, model_config: Any = None) -> Any:
    root = next(each for each in (Path(path), *Path(path).parents) if (each / "MLmodel").exists())
    module = importlib.import_module((root / LOADER_FILE).read_text())
    return _Probed(
        module._load_pyfunc(path, model_config) if model_config else module._load_pyfunc(path)
    )


class _Probed:
    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, data: Any, params: Any = None) -> Any:
        if list(getattr(data, "columns", [])) != [PROBE]:
            return self._model.predict(data)
        probe, *arguments = data[PROBE].tolist()
        return [json.dumps(globals()[probe](*arguments))]


def state() -> dict[str, Any]:
    """What a forked process might have of its template."""
    return {
        "python_threads": threading.active_count(),
        "native_threads": sorted(_native_threads()),
        "handlers": {
            name: str(signal.getsignal(getattr(signal, name)))
            for name in ("SIGINT", "SIGTERM", "SIGCHLD", "SIGUSR1", "SIGABRT")
        },
        "wakeup_fd": signal.set_wakeup_fd(-1),
        "log_handlers": {
            name: len(logging.getLogger(name).handlers)
            for name in ("", *sorted(logging.Logger.manager.loggerDict))
            if logging.getLogger(name).handlers
        },
        "atexit": atexit._ncallbacks(),
        "cwd": os.getcwd(),
        "excepthook": str(sys.excepthook).split(" at ")[0],
        "environ": sorted(os.environ),
    }


def chance() -> dict[str, Any]:
    """The next random numbers of all generators that were imported."""
    drawn: dict[str, Any] = {"random": random.random()}
    modules = sys.modules
    if "numpy" in modules:
        import numpy as np

        drawn["numpy"] = np.random.rand()
        drawn["numpy default_rng"] = np.random.default_rng().random()
    if "torch" in modules:
        import torch

        drawn["torch seed"], drawn["torch"] = torch.initial_seed(), torch.rand(1).item()
    if "tensorflow" in modules:
        import tensorflow as tf

        drawn["tensorflow"] = float(tf.random.uniform([1])[0])
        drawn["tensorflow generator"] = float(tf.random.get_global_generator().uniform([1])[0])
    if "keras" in modules:
        import keras

        drawn["keras"] = float(keras.random.uniform([1])[0])
    if "onnxruntime" in modules:
        drawn["onnxruntime"] = _onnx_draw()
    if "scipy.stats" in modules:
        import scipy.stats

        drawn["scipy"] = float(scipy.stats.norm.rvs())
    return drawn


def _onnx_draw() -> float:
    import onnx
    import onnxruntime

    node = onnx.helper.make_node("RandomUniform", [], ["y"], shape=[1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "g", [], [out])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 15)])
    model.ir_version = 8
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return float(session.run(None, {})[0][0])


def blas() -> float:
    """Compute by all threads that the linear algebra of NumPy, SciPy and torch has."""
    import numpy as np

    began = time.monotonic()
    a = np.ones((1500, 1500))
    assert (a @ a)[0, 0] == 1500
    if "scipy" in sys.modules:
        import scipy.linalg

        scipy.linalg.lu(np.random.rand(600, 600))
    if "torch" in sys.modules:
        import torch

        b = torch.ones(1500, 1500)
        assert (b @ b)[0, 0] == 1500
        assert torch.ones(10**7).sum().item() == 10**7
    return time.monotonic() - began


def pools() -> dict[str, Any]:
    """Processes and threads of the model's own."""
    import concurrent.futures

    made: dict[str, Any] = {}
    for method in ("fork", "spawn", "forkserver"):
        began = time.monotonic()
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(_square, range(4)) == [0, 1, 4, 9]
        made[method] = time.monotonic() - began
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        assert list(threads.map(_square, range(4))) == [0, 1, 4, 9]
    if "joblib" in sys.modules:
        import joblib

        for backend in ("loky", "threading", "multiprocessing"):
            began = time.monotonic()
            work = [joblib.delayed(_square)(i) for i in range(4)]
            assert joblib.Parallel(2, backend=backend)(work) == [0, 1, 4, 9]
            made[backend] = time.monotonic() - began
    if "torch" in sys.modules:
        import torch

        sums = torch.utils.data.DataLoader(list(range(8)), batch_size=4, num_workers=2)
        assert [int(each.sum()) for each in sums] == [6, 22]
    return made


def _square(x: int) -> int:
    return x * x


def traced() -> int:
    """How many spans MLflow stored of a trace."""
    import mlflow

    mlflow.set_experiment("traced")
    with mlflow.start_span("outer"), mlflow.start_span("inner"):
        pass
    mlflow.flush_trace_async_logging()
    trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
    return 0 if trace is None else len(trace.data.spans)


def at_exit(path: str) -> int:
    """Write a file when the process ends as Python ends programs."""
    atexit.register(lambda: Path(path).write_text("ended"))
    return os.getpid()


def _native_threads() -> Iterator[str]:
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            yield Path(f"/proc/self/task/{task}/comm").read_text().strip()
