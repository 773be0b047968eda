"""`modelmux demo`: a real MLflow server on SQLite, the demo models in it, and the gateway.

Owns the demo's MLflow process: it is started in a group of its own and ended with everything it
started, whatever happens in between.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from deployments.api_key_source import keys_of
from deployments.settings import Settings

_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 15.0
_POLL_S = 0.2
_MLFLOW_PORT = 5000
_SHOWN_LINES = 3
_NEEDED = ("mlflow.server", "torch", "transformers", "sklearn", "flask")

Say = Callable[[str], None]


class DemoUnavailable(Exception):
    """The demo can't run here; the sentence says what to do about it."""


def run_demo(
    *,
    mlflow_port: int | None,
    folder: Path,
    stop: threading.Event,
    settings_for: Callable[[str, Path], Settings],
    serve: Callable[..., None],
    say: Say,
) -> None:
    """Run the whole demo until `stop` is set; raises DemoUnavailable.

    `settings_for` makes the gateway's settings for a registry's URL and a state folder, and refuses
    what can't work before anything is started.
    """
    registration = _registration()
    port = mlflow_port or _port_for_mlflow()
    settings = settings_for(f"http://127.0.0.1:{port}", folder / "state")
    with mlflow_server(folder, port=port, stop=stop, say=say):
        if not stop.is_set():
            _register(registration, settings.tracking_uri, folder / "cache", stop=stop, say=say)
        if not stop.is_set():
            serve(settings, stop=stop, on_ready=lambda ready, _: _say_tour(ready, say))


def _port_for_mlflow() -> int:
    """MLflow's usual port, or any free one where it is taken."""
    for wanted in (_MLFLOW_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoUnavailable("there is no free port for the MLflow server")


def _register(
    module: str, tracking_uri: str, cache: Path, *, stop: threading.Event, say: Say
) -> None:
    """Train and register in a process of its own, which can be stopped and leaves its memory."""
    say("Registering the demo models (the first time they are trained, about a minute) …")
    command = [sys.executable, "-u", "-m", module, "--tracking-uri", tracking_uri]
    process = subprocess.Popen(  # noqa: S603  # our own interpreter, our own arguments
        [*command, "--cache-dir", str(cache)], start_new_session=True
    )
    try:
        while process.poll() is None and not stop.is_set():
            stop.wait(_POLL_S)
    finally:
        _end_group(process)
    if process.returncode != 0 and not stop.is_set():
        raise DemoUnavailable("the demo models could not be registered; the reason is above")


@contextmanager
def mlflow_server(folder: Path, *, port: int, stop: threading.Event, say: Say) -> Iterator[str]:
    """A tracking server whose database and artifacts live in `folder`; yields its URL."""
    url = f"http://127.0.0.1:{port}"
    _require_no_server(url)
    folder.mkdir(parents=True, exist_ok=True)
    say(f"Starting an MLflow server at {url} …")
    with (folder / "mlflow.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603  # our own interpreter, our own arguments
            [
                sys.executable, "-m", "mlflow", "server",
                "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
                "--artifacts-destination", str(folder / "artifacts"),
                "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,
            # Without its job runner, which is half a dozen processes that nothing here needs.
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )  # fmt: skip
    try:
        _wait_until_healthy(url, process, folder / "mlflow.log", stop)
        yield url
    finally:
        _end_group(process)


def _registration() -> str:
    """The module that registers the demo models: in a wheel below `deployments`, in a checkout
    at the top."""
    missing = [name for name in _NEEDED if not _is_there(name)]
    if missing:
        raise DemoUnavailable(f"the demo needs {', '.join(missing)}: pip install 'modelmux[demo]'")
    packaged = "deployments.examples.registration"
    return packaged if _is_there(packaged) else "examples.registration"


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _require_no_server(url: str) -> None:
    try:
        httpx.get(f"{url}/health", timeout=2.0)
    except httpx.HTTPError:
        return
    raise DemoUnavailable(f"something listens at {url} already; choose another --mlflow-port")


def _wait_until_healthy(
    url: str, process: subprocess.Popen[bytes], log: Path, stop: threading.Event
) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and not stop.is_set():
        if process.poll() is not None:
            raise DemoUnavailable(f"the MLflow server ended at once; see {log}")
        try:
            if httpx.get(f"{url}/health", timeout=2.0).is_success:
                return
        except httpx.HTTPError:
            pass
        stop.wait(_POLL_S)
    if not stop.is_set():
        raise DemoUnavailable(f"the MLflow server did not come up; see {log}")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started: SIGTERM to the group, SIGKILL to what stays."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, signal_number)
            process.wait(_STOP_TIMEOUT_S)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.poll()


def _say_tour(settings: Settings, say: Say) -> None:
    url = settings.url
    say(f"Ready: the demo is at {url}")
    say("")
    listing = httpx.get(f"{url}/models", timeout=30.0).json()
    for model in listing.get("models", ()):  # none where keys are on
        versions = ", ".join(map(str, sorted(model["versions"])))
        say(f"  {model['name']}: versions {versions}, default {model['default_version']}")
        for line in _of_its_packages(model):
            say(f"    {line}")
    say("")
    key = ""
    if keys_of(settings) is not None:
        key = ' -H "Authorization: Bearer $MODELMUX_KEY"'
        say("Keys are on; the secret of one is to be in the variable MODELMUX_KEY.")
    say("Try (in another terminal):")
    for path, headers, body in _TOUR:
        options = key + "".join(f" -H '{header}'" for header in headers)
        say(f"  curl {url}{path} -H 'Content-Type: application/json'{options} \\\n    -d '{body}'")
    say(f"  curl {url}/models{key}")
    say(f"  open {url}/ (every model, to look at and to try) or {url}/docs (for clients)")
    say("")


def _of_its_packages(model: Mapping[str, Any]) -> Iterator[str]:
    """What is to be known of a model that doesn't run with the gateway's packages."""
    environment = model["environment"]
    if environment is None or environment["kind"] != "own":
        return
    yield f"Packages: {environment['why']}."
    if environment["state"] == "failed":
        yield environment["reason"]
        yield from environment["lines"][-_SHOWN_LINES:]
    elif environment["state"] != "ready":
        yield "They are being installed, which may take some seconds; until then it answers 503."


_TRANSLATION = "/models/translation_model/predict"
_SENTENCE = '{"prompt": "The weather is lovely today"}'
_QUESTION = '{"question": "Where does Ray Serve run the models?"}'
_ORDER = '{"zone": "harbour", "items": 3, "distance_km": 4.2, "express": false}'
_TOUR: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (_TRANSLATION, (), _SENTENCE),
    (_TRANSLATION, ("X-Model-Version: 1",), _SENTENCE),
    (_TRANSLATION, ("X-Model-Version: 3",), _SENTENCE),
    (
        "/models/question_answerer/predict",
        (),
        f'{{"inputs": [{_QUESTION}], "params": {{"max_answer_len": 3}}}}',
    ),
    ("/models/delivery_time/predict", (), f'[{_ORDER[:-1]}, "rain_mm": 12.5}}, {_ORDER}]'),
    ("/models/domain_name/predict", (), '{"name": "bücher.example"}'),
    (
        "/models/registry_guide/predict",
        (),
        '{"input": [{"role": "user", "content": "What is an alias?"}]}',
    ),
)
