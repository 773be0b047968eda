"""The command line: `modelmux up | demo | models | predict | check | openapi | keys new`.

Owns arguments, printing and exit codes (0 good, 1 no, 2 can't). Imports Ray only inside `up` and
`demo`, within the fast path's environment; the other commands are quick and need none of it.
"""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Annotated, Any

import httpx
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from deployments.fast_path import fast_path, has_haproxy
from deployments.keys import is_loopback, keys_of
from deployments.log_receiver import log_receiver
from deployments.logs import PACKAGES, LogOptions, configure_logging
from deployments.registry_environment import set_registry_defaults
from deployments.settings import Settings, UnknownSetting, is_writable, refuse_unknown_variables
from gateway.access import BadKeys, entry_of, new_secret

app = typer.Typer(
    help="Every model of an MLflow registry behind one typed, versioned HTTP API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

keys_app = typer.Typer(help="Keys of those who may call the gateway.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

CANNOT = 2
NO = 1

Url = Annotated[
    str, typer.Option("--url", envvar="MODELMUX_URL", help="Where the gateway listens.")
]
ClientKey = Annotated[
    str | None,
    typer.Option("--key", envvar="MODELMUX_KEY", help="The key to ask with, where keys are on."),
]
Insecure = Annotated[
    bool | None,
    typer.Option("--insecure", help="Listen beyond the loopback though no keys are set."),
]
_DEFAULT_URL = "http://127.0.0.1:8000"
_SPAN_EXPORTER = "opentelemetry-exporter-otlp-proto-http"

Say = Callable[[str], None]
"""Tells people a line: on stdout, or in the log where that is JSON."""

OnReady = Callable[[Settings, Say], None]

_logger = logging.getLogger(__name__)

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def main() -> None:
    """The entry point of the `modelmux` command."""
    app()


def _fail(message: str, code: int = CANNOT) -> typer.Exit:
    _err.print(f"modelmux: {message}", markup=False)
    return typer.Exit(code)


@app.command()
def up(
    tracking_uri: Annotated[
        str | None, typer.Option(help="The MLflow server whose registry is served.")
    ] = None,
    registry_uri: Annotated[
        str | None, typer.Option(help="The registry, where it isn't the tracking server's.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [8000]")] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Folder for snapshot and artifacts. [.modelmux]")
    ] = None,
    poll_interval_s: Annotated[
        float | None, typer.Option(help="Seconds between looks at the registry. [10]")
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="Glob of model names to serve; repeatable.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Glob of model names not to serve; repeatable.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="A running Ray cluster to join, e.g. auto.")
    ] = None,
    keys_file: Annotated[
        Path | None, typer.Option(help="A file with the keys that are good.")
    ] = None,
    insecure: Insecure = None,
    log_format: Annotated[
        str | None, typer.Option(help="Log lines as text or json. [text]")
    ] = None,
) -> None:
    """Serve every model of a registry until SIGINT or SIGTERM."""
    settings = _settings(
        tracking_uri=tracking_uri,
        registry_uri=registry_uri,
        host=host,
        port=port,
        state_dir=state_dir,
        poll_interval_s=poll_interval_s,
        include=tuple(include) if include else None,
        exclude=tuple(exclude) if exclude else None,
        ray_address=ray_address,
        keys_file=keys_file,
        insecure=insecure,
        log_format=log_format,
    )
    serve_until_stopped(settings, stop=stop_on_signals(), on_ready=_say_ready)


def serve_until_stopped(settings: Settings, *, stop: Event, on_ready: OnReady) -> None:
    """Bring the gateway up, call `on_ready` once it is, and take it down when `stop` is set."""
    _require_free_port(settings)
    _require_guard(settings)
    _require_exporter(settings)
    as_json = settings.log_format == "json"
    configure_logging(LogOptions(as_json=as_json), *PACKAGES)
    say = _logger.info if as_json else partial(_out.print, markup=False)
    if not is_writable(settings.state_dir):
        say(f"The state folder {settings.state_dir} can't be written: no snapshot is kept.")
    with _ray_environment(settings) as logs:
        from deployments import launch  # reads the environment that fast_path has set

        say("Starting Ray …" if settings.ray_address is None else "Joining Ray …")
        try:
            with launch.ray_runtime(settings):
                stop_on_signals(stop)
                _serve(launch, settings, logs, stop=stop, on_ready=on_ready, say=say)
        except launch.RayUnreachable as error:
            raise _fail(str(error)) from error
    say("Stopped.")


@contextmanager
def _ray_environment(settings: Settings) -> Iterator[LogOptions]:
    """The fast path where Ray is ours to start, and its processes' lines brought here; a cluster
    that runs has its own environment and keeps its processes' lines."""
    as_json = settings.log_format == "json"
    if settings.ray_address is not None:
        yield LogOptions(as_json=as_json)
        return
    if not has_haproxy():
        _err.print("No HAProxy here: falling back to Ray's own proxy, which is much slower.")
    with (
        tempfile.TemporaryDirectory(prefix="modelmux-") as name,
        fast_path(Path(name), host=settings.host, port=settings.port),
    ):
        channel = Path(name) / "log.sock"
        with log_receiver(channel):
            yield LogOptions(as_json=as_json, channel=str(channel))


def _serve(
    launch: ModuleType,
    settings: Settings,
    logs: LogOptions,
    *,
    stop: Event,
    on_ready: OnReady,
    say: Say,
) -> None:
    started = time.perf_counter()
    if not stop.is_set():
        with launch.deployed(settings, logs):
            for problem in launch.wait_until_ready(settings, stop=stop):
                say(f"{problem} Trying again until it does.")
            if not stop.is_set():
                on_ready(settings, say)
                took = time.perf_counter() - started
                say(f"(up after {took:.1f} s; Ctrl-C stops it)")
            stop.wait()
            say("Stopping …")


def stop_on_signals(stop: Event | None = None) -> Event:
    """Have SIGINT and SIGTERM set `stop` (a new event if None is given), however often they come.

    To be called again once Ray runs: `ray.init` puts handlers of its own in their place.
    """
    event = stop or Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: event.set())
    return event


@app.command()
def demo(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    mlflow_port: Annotated[
        int | None, typer.Option(help="Port of the demo's MLflow server. [5000, or a free one]")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where the demo keeps its registry.")] = Path(
        ".demo"
    ),
    insecure: Insecure = None,
) -> None:
    """Start an MLflow server, register the demo models there, and serve them."""
    from deployments.demo import DemoUnavailable, run_demo

    def settings_for(tracking_uri: str, state_dir: Path) -> Settings:
        settings = _settings(
            tracking_uri=tracking_uri,
            host=host,
            port=port,
            state_dir=state_dir,
            insecure=insecure,
        )
        _require_free_port(settings)
        _require_guard(settings)
        return settings

    try:
        run_demo(
            mlflow_port=mlflow_port,
            folder=folder.absolute(),
            stop=stop_on_signals(),
            settings_for=settings_for,
            serve=serve_until_stopped,
            say=lambda line: _out.print(line, markup=False),
        )
    except DemoUnavailable as error:
        raise _fail(str(error)) from error


@app.command()
def models(url: Url = _DEFAULT_URL, key: ClientKey = None) -> None:
    """List what a running gateway serves."""
    listing = _get(url, "/models", key).json()
    if not _out.is_terminal:
        for model in listing["models"]:
            sys.stdout.write("\t".join(_model_cells(model)) + "\n")
        return
    table = Table(title=f"{len(listing['models'])} model(s)")
    for heading in ("Model", "Status", "Default", "Versions", "Aliases", "Held"):
        table.add_column(heading)
    for model in listing["models"]:
        table.add_row(*_model_cells(model))
    _out.print(table)


def _model_cells(model: dict[str, Any]) -> tuple[str, ...]:
    held = model["held"]
    return (
        model["name"],
        model["status"] if model["reason"] is None else f"{model['status']}: {model['reason']}",
        str(model["default_version"] or "-"),
        ",".join(map(str, model["versions"])),
        ",".join(f"{alias}={number}" for alias, number in model["aliases"].items()),
        "" if held is None else f"{held['version']}: {held['reason']}",
    )


@app.command()
def predict(
    name: str,
    body: Annotated[str, typer.Argument(metavar="JSON|-", help="The request, or - for stdin.")],
    version: Annotated[str | None, typer.Option(help="Number, alias or latest.")] = None,
    url: Url = _DEFAULT_URL,
    key: ClientKey = None,
) -> None:
    """Ask a model of a running gateway."""
    content = sys.stdin.read() if body == "-" else body
    headers = {"Content-Type": "application/json"}
    if version is not None:
        headers["X-Model-Version"] = version
    with _client(url, key) as client:
        try:
            response = client.post(_predict_path(name), content=content.encode(), headers=headers)
        except httpx.HTTPError as error:
            raise _fail(f"no answer from {url}: {error}") from error
    if response.is_success:
        sys.stdout.write(response.text + "\n")
        return
    raise _fail(_problem_text(response), NO)


@app.command()
def check(
    name: str,
    candidate: Annotated[str, typer.Argument(help="Version number, alias or latest.")],
    tracking_uri: Annotated[str | None, typer.Option(help="The MLflow server.")] = None,
    registry_uri: Annotated[str | None, typer.Option(help="Where it isn't the server's.")] = None,
    against: Annotated[
        str | None, typer.Option(help="Version or alias to compare with; the default's if absent.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Would this version keep the contract? Exit code 0 yes, 1 no, 2 couldn't tell."""
    from registry_sync.contract_check import CannotTell, check_contract
    from registry_sync.reading import RegistryUnreachable
    from registry_sync.source import MlflowRegistry

    settings = _settings(tracking_uri=tracking_uri, registry_uri=registry_uri)
    set_registry_defaults()
    registry = MlflowRegistry(
        tracking_uri=settings.tracking_uri, registry_uri=settings.registry_uri
    )
    try:
        result = check_contract(
            registry,
            name,
            candidate,
            against=against,
            champion_alias=settings.champion_alias,
            compatibility=settings.compatibility,
        )
    except (CannotTell, RegistryUnreachable) as error:
        raise _fail(str(error)) from error
    if as_json:
        _print_json(
            {
                "model": result.model,
                "candidate": result.candidate,
                "against": result.against,
                "compatible": result.is_compatible,
                "differences": list(result.differences),
            }
        )
    else:
        _print_differences(result.model, result.candidate, result.against, result.differences)
    if not result.is_compatible:
        raise typer.Exit(NO)


def _print_differences(
    name: str, candidate: int, against: int, differences: tuple[dict[str, Any], ...]
) -> None:
    if not differences:
        _out.print(f"{name} version {candidate} keeps the contract of version {against}.")
        return
    table = Table(title=f"{name}: version {candidate} breaks the contract of version {against}")
    for heading in ("Where", "Field", "Change", f"Version {against}", f"Version {candidate}"):
        table.add_column(heading, overflow="fold")
    for found in differences:
        table.add_row(
            found["section"],
            found["pointer"] or "/",
            found["change"],
            found["contract"] or "-",
            found["candidate"] or "-",
        )
    _out.print(table)


@app.command()
def openapi(
    url: Url = _DEFAULT_URL,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A file.")] = None,
    key: ClientKey = None,
) -> None:
    """Print (or save) the OpenAPI document of all models."""
    document = _get(url, "/openapi.json", key)
    if output is None:
        sys.stdout.write(document.text + "\n")
        return
    try:
        output.write_bytes(document.content)
    except OSError as error:
        raise _fail(f"{output} can't be written: {error.strerror}") from error


@keys_app.command("new")
def new_key(
    name: Annotated[str, typer.Argument(help="What the key is called, in logs too.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="predict, predict:GLOB, read or admin; repeatable. [predict]"),
    ] = None,
) -> None:
    """Make a key: its line for the keys file on standard output, its secret on standard error."""
    secret = new_secret()
    try:
        entry = entry_of(name, secret, scope or ["predict"])
    except BadKeys as problem:
        raise _fail(str(problem)) from problem
    _err.print("The key, shown this once:", secret, markup=False)
    sys.stdout.write(entry + "\n")


def _settings(**given: Any) -> Settings:
    """The settings from the command line and the environment, or one clear line and exit 2."""
    try:
        refuse_unknown_variables()
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except UnknownSetting as error:
        raise _fail(str(error)) from error
    except ValidationError as error:
        reasons = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise _fail(reasons) from error


def _require_free_port(settings: Settings) -> None:
    """Find out before Ray starts, which would tell it late and in many lines."""
    if settings.ray_address is not None:
        return  # it is the cluster's machine that listens
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise _fail(f"can't listen on {settings.host}:{settings.port}: {error.strerror}") from error


def _require_exporter(settings: Settings) -> None:
    try:
        if settings.tracing:
            distribution_version(_SPAN_EXPORTER)
    except PackageNotFoundError:
        raise _fail("tracing needs more packages: pip install 'modelmux[tracing]'") from None


def _require_guard(settings: Settings) -> None:
    """Keys that can be read, or nobody else who could come."""
    try:
        keys = keys_of(settings)
        if keys is not None:
            keys.read()
    except BadKeys as problem:
        raise _fail(f"keys: {problem}") from problem
    if keys is None and not settings.insecure and not is_loopback(settings.host):
        raise _fail(
            f"{settings.host} can be reached from other machines: give --keys-file (`modelmux keys "
            "new` makes keys), or --insecure to let everybody in"
        )


def _say_ready(settings: Settings, say: Say) -> None:
    count = httpx.get(f"{settings.url}/readyz", timeout=30.0).json()["models"]
    say(f"Ready: {count} model(s) at {settings.url}  ·  docs at {settings.url}/docs")


def _predict_path(name: str) -> str:
    from gateway.http.views import predict_path

    return predict_path(name)


def _client(url: str, key: str | None) -> httpx.Client:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=url, timeout=120.0, headers=headers)


def _get(url: str, path: str, key: str | None) -> httpx.Response:
    with _client(url, key) as client:
        try:
            response = client.get(path)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _fail(f"no answer from {url}: {error}") from error
    if not response.is_success:
        raise _fail(_problem_text(response), NO)
    return response


def _problem_text(response: httpx.Response) -> str:
    """A problem document in a few lines; whatever else it is, its status."""
    if "json" not in response.headers.get("content-type", ""):
        return f"the answer was {response.status_code}"
    problem = response.json()
    lines = [f"{problem['status']} {problem['code']}: {problem['detail']}"]
    lines += [f"  {e['pointer'] or '/'}: {e['message']}" for e in problem.get("errors", [])]
    lines += [f"  {d['section']}{d['pointer']}: {d['message']}" for d in problem.get(
        "differences", [])]  # fmt: skip
    return "\n".join(lines)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
