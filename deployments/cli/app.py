"""The command line: `modelmux up | down | demo | models | predict | check | openapi | webhook |
environments list | environments build | environments prune | keys new`.

Owns arguments, printing and exit codes (0 good, 1 no, 2 can't). Imports Ray only inside `up` and
`demo`, within the fast path's environment; the other commands are quick and need none of it.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Annotated

import httpx
import typer

from deployments.api_key_source import is_loopback, keys_of
from deployments.cli import client as client_commands
from deployments.cli import registry as registry_commands
from deployments.cli import rollout as rollout_commands
from deployments.cli.environments import environments_app
from deployments.cli.folder_lock import FolderTaken, folder_of_one_gateway
from deployments.cli.log_receiver import log_receiver
from deployments.cli.ray_output import ray_output_file, ray_output_to
from deployments.cli.registry import settings_of
from deployments.cli.terminal import NO, StatusLine, counted, err, fail, out, status_line
from deployments.cluster.front_door import FrontDoor, open_front_door
from deployments.cluster.join_rules import CannotJoin
from deployments.cluster.ray_environment import fast_path, has_haproxy
from deployments.cluster.readiness import GatewayFailed, wait_until_ready
from deployments.logs import PACKAGES, LogOptions, configure_logging
from deployments.mlflow_environment import set_registry_defaults
from deployments.settings import Settings, is_writable
from gateway.capture.files import CaptureUnusable, require_usable
from gateway.security.api_keys import BadKeys, entry_of, new_secret

app = typer.Typer(
    help="Every model of an MLflow registry behind one typed, versioned HTTP API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

keys_app = typer.Typer(help="Keys of those who may call the gateway.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
app.add_typer(environments_app, name="environments")

Insecure = Annotated[
    bool | None,
    typer.Option("--insecure", help="Listen beyond the loopback though no keys are set."),
]
SPAN_EXPORTER = "opentelemetry-exporter-otlp-proto-http"

Say = Callable[[str], None]
"""Tells people a line: on stdout, or in the log where that is JSON."""

OnReady = Callable[[Settings, Say], None]

Lost = Callable[[], str | None]
"""Why the gateway isn't this process's any more, in one line; None where it is."""

_LOOK_AT_RAY_S = 1.0
_PORT = "--port or MODELMUX_PORT"

_logger = logging.getLogger(__name__)


def main() -> None:
    """The entry point of the `modelmux` command."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"modelmux {distribution_version('modelmux')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say which it is."),
    ] = False,
) -> None:
    """Every model of an MLflow registry behind one typed, versioned HTTP API."""


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
    root_path: Annotated[
        str | None, typer.Option(help="The path that a proxy has the gateway below, e.g. /ml.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="Log lines as text or json. [text]")
    ] = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Replace the gateway that a joined cluster has.")
    ] = False,
) -> None:
    """Serve every model of a registry until SIGINT or SIGTERM."""
    settings = settings_of(
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
        root_path=root_path,
        log_format=log_format,
    )
    serve_until_stopped(settings, stop=stop_on_signals(), on_ready=_say_ready, take_over=take_over)


def serve_until_stopped(
    settings: Settings, *, stop: Event, on_ready: OnReady, take_over: bool = False
) -> None:
    """Bring the gateway up, call `on_ready` once it is, and take it down when `stop` is set.

    `take_over` puts it in the place of another one that the cluster may have.
    """
    _require_free_port(settings)
    _require_guard(settings)
    _require_exporter(settings)
    _require_capture(settings)
    as_json = settings.log_format == "json"
    configure_logging(LogOptions(as_json=as_json), *PACKAGES)
    say = _logger.info if as_json else out.print
    if not is_writable(settings.state_dir):
        say(f"The state folder {settings.state_dir} can't be written: no snapshot is kept.")
    _require_usable_registry(settings)
    with _own_folder(settings):
        _serve_on_ray(settings, say, stop=stop, on_ready=on_ready, take_over=take_over)
    say("Stopped.")


def _serve_on_ray(
    settings: Settings, say: Say, *, stop: Event, on_ready: OnReady, take_over: bool
) -> None:
    ray_output = ray_output_file(settings.state_dir)
    say(f"What Ray itself says is in {ray_output}.")
    with (
        ray_output_to(ray_output) as stderr,
        status_line(say, live=settings.log_format != "json") as status,
        _front_door(settings) as door,
        _ray_environment(settings, status, stderr) as logs,
    ):
        status.tell("Starting Ray …" if settings.ray_address is None else "Joining Ray …")
        from deployments.cluster import launch  # reads the environment that fast_path has set

        try:
            with launch.ray_runtime(settings):
                stop_on_signals(stop)
                if settings.ray_address is not None:
                    settings = launch.settings_on_cluster(settings)
                    _require_guard(settings, listener="Serve on this cluster listens on")
                deployed = partial(launch.deployed, settings, logs, door=door, take_over=take_over)
                _serve(launch, deployed, settings, status, stop=stop, on_ready=on_ready, say=say)
        except (CannotJoin, GatewayFailed) as error:
            raise fail(str(error)) from error


@contextmanager
def _front_door(settings: Settings) -> Iterator[FrontDoor | None]:
    if not settings.is_door_ours:
        yield None
        return
    try:
        door = open_front_door(settings.host, settings.port)
    except OSError as error:
        raise _cannot_listen(settings.host, settings.port, _PORT, error) from error
    try:
        yield door
    finally:
        door.end()


@contextmanager
def _own_folder(settings: Settings) -> Iterator[None]:
    try:
        with folder_of_one_gateway(settings.state_dir, url=settings.url):
            yield
    except FolderTaken as taken:
        raise fail(str(taken)) from taken


@contextmanager
def _ray_environment(settings: Settings, status: StatusLine, stderr: int) -> Iterator[LogOptions]:
    """The log lines of this process brought to the user's standard error; the fast path where Ray
    is ours to start, with its processes' lines brought there likewise. A cluster that runs has its
    own environment and keeps its processes' lines."""
    as_json = settings.log_format == "json"
    with tempfile.TemporaryDirectory(prefix="modelmux-") as name:
        channel = Path(name) / "log.sock"
        here = LogOptions(as_json=as_json, channel=str(channel))
        with log_receiver(channel, descriptor=stderr, before=status.clear):
            configure_logging(here, *PACKAGES)
            if settings.ray_address is not None:
                yield LogOptions(as_json=as_json)
                return
            proxied = not settings.is_door_ours
            if proxied and not has_haproxy():
                err.print("No HAProxy here: falling back to Ray's own proxy, which is much slower.")
            with fast_path(Path(name), host=settings.host, port=settings.port, proxied=proxied):
                yield here


def _serve(
    launch: ModuleType,
    deployed: Callable[[], AbstractContextManager[Lost]],
    settings: Settings,
    status: StatusLine,
    *,
    stop: Event,
    on_ready: OnReady,
    say: Say,
) -> None:
    started = time.perf_counter()
    if not stop.is_set():
        status.show("Deploying the gateway …")
        with deployed() as lost:
            status.show("Waiting for the catalog …")
            failure = launch.deployment_failure
            for problem in wait_until_ready(settings, stop=stop, failure=failure):
                say(f"{problem} Trying again.")
            status.end()
            if not stop.is_set():
                on_ready(settings, say)
                took = time.perf_counter() - started
                say(f"(up after {took:.1f} s; Ctrl-C stops it)")
                _show_loading(launch, status, stop=stop)
            status.end()
            _wait_for_the_end(launch, stop, lost)
            status.tell("Stopping …")


def _wait_for_the_end(launch: ModuleType, stop: Event, lost: Lost) -> None:
    """Until `stop` is set, or raises an exit where there is nothing to wait for any more: said at
    once, because Ray ends this process in its own time, and who has the gateway now never would."""
    while not stop.wait(_LOOK_AT_RAY_S):
        ended = launch.ended_ray_process()
        if ended is not None:
            raise fail(f"Ray's {ended} has ended, and nothing can be served without it")
        reason = lost()
        if reason is not None:
            raise fail(reason)


def _show_loading(launch: ModuleType, status: StatusLine, *, stop: Event) -> None:
    """While models that are to be there from the start are loaded; the gateway answers already."""
    if not status.is_live:
        return
    for loaded, wanted in launch.models_loading(stop=stop):
        status.show(f"Loading models: {loaded} of {wanted} …")


def stop_on_signals(stop: Event | None = None) -> Event:
    """Have SIGINT and SIGTERM set `stop` (a new event if None is given), however often they come.

    To be called again once Ray runs: `ray.init` puts handlers of its own in their place.
    """
    event = stop or Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: event.set())
    return event


@app.command()
def down(
    ray_address: Annotated[
        str,
        typer.Option(envvar="MODELMUX_RAY_ADDRESS", help="The Ray cluster that the gateway is on."),
    ] = "auto",
) -> None:
    """Take the gateway and its models off a Ray cluster; other applications stay."""
    from deployments.cluster import launch
    from deployments.cluster.join import joined_ray

    try:
        with joined_ray(ray_address):
            taken = launch.take_down_ours()
    except CannotJoin as error:
        raise fail(str(error)) from error
    for name in taken.gone:
        out.print(name)
    out.print(f"{counted(len(taken.gone), 'application')} taken down.")
    if taken.left:
        raise fail(f"still ending: {', '.join(taken.left)}", NO)


@app.command()
def demo(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [8000]")] = None,
    mlflow_port: Annotated[
        int | None, typer.Option(help="Port of the demo's MLflow server. [5000, or a free one]")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where the demo keeps its registry.")] = Path(
        ".demo"
    ),
    insecure: Insecure = None,
) -> None:
    """Start an MLflow server, register the demo models there, and serve them."""
    from deployments.cli.demo import DemoUnavailable, run_demo

    def settings_for(tracking_uri: str, state_dir: Path) -> Settings:
        settings = settings_of(
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
            say=out.print,
        )
    except DemoUnavailable as error:
        raise fail(str(error)) from error


app.command()(client_commands.models)
app.command()(client_commands.predict)


app.command()(registry_commands.check)
app.command()(client_commands.openapi)
app.command()(registry_commands.webhook)
app.command()(rollout_commands.promote)
app.command()(rollout_commands.rollback)
app.command()(rollout_commands.history)


@keys_app.command("new")
def new_key(
    name: Annotated[str, typer.Argument(help="What the key is called, in logs too.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="predict, predict:GLOB, read or admin; repeatable. [predict]"),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            help="The most requests a second, N or N/BURST: BURST of them at once.",
            metavar="N/BURST",
        ),
    ] = None,
) -> None:
    """Make a key: its line for the keys file on standard output, its secret on standard error."""
    secret = new_secret()
    try:
        entry = entry_of(name, secret, scope or ["predict"], rate=rate)
    except BadKeys as problem:
        raise fail(str(problem)) from problem
    err.print("The key, shown this once:", secret)
    sys.stdout.write(entry + "\n")


def _require_free_port(settings: Settings) -> None:
    """Find out before Ray starts, which would tell it late and in many lines."""
    if settings.ray_address is not None:
        return  # it is the cluster's machine that listens
    _require_free(settings.host, settings.port, _PORT)
    if settings.grpc_port is not None:
        host = settings.grpc_host or settings.host
        _require_free(host, settings.grpc_port, "MODELMUX_GRPC_PORT")


def _require_free(host: str, port: int, option: str) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise _cannot_listen(host, port, option, error) from error


def _cannot_listen(host: str, port: int, option: str, error: OSError) -> typer.Exit:
    return fail(
        f"can't listen on {host}:{port}: {error.strerror}; another port is given by {option}"
    )


def _require_usable_registry(settings: Settings) -> None:
    """What can't get better while Ray runs is told before it is started."""
    from registry_sync.records import RegistryUnusable
    from registry_sync.source import MlflowRegistry

    set_registry_defaults()
    registry = MlflowRegistry(
        tracking_uri=settings.tracking_uri, registry_uri=settings.registry_uri
    )
    try:
        registry.require_usable()
    except RegistryUnusable as problem:
        raise fail(str(problem)) from problem


def _require_exporter(settings: Settings) -> None:
    try:
        if settings.tracing:
            distribution_version(SPAN_EXPORTER)
    except PackageNotFoundError:
        raise fail(
            "tracing (MODELMUX_TRACING) needs more packages: pip install 'modelmux[tracing]'"
        ) from None


def _require_capture(settings: Settings) -> None:
    try:
        require_usable(settings.capture_url)
    except CaptureUnusable as problem:
        raise fail(f"capture_url (MODELMUX_CAPTURE_URL): {problem}") from problem


def _require_guard(settings: Settings, *, listener: str = "") -> None:
    """Keys that can be read, or nobody else who could come; `listener` begins the sentence where
    it isn't the user who said where to listen."""
    try:
        keys = keys_of(settings)
        if keys is not None:
            keys.read()
    except BadKeys as problem:
        names = "--keys-file, MODELMUX_KEYS_FILE" if settings.keys is None else "MODELMUX_KEYS"
        raise fail(f"keys ({names}): {problem}") from problem
    if keys is not None or settings.insecure:
        return
    addresses = [settings.published_host or settings.host]
    if settings.grpc_port is not None and settings.grpc_host is not None:
        addresses.append(settings.grpc_host)
    for reached_at in addresses:
        if is_loopback(reached_at):
            continue
        subject = f"{listener} {reached_at}, which" if listener else reached_at
        raise fail(
            f"{subject} can be reached from other machines: give --keys-file or set "
            "MODELMUX_KEYS_FILE (`modelmux keys new` makes keys), or let everybody in by "
            "--insecure or MODELMUX_INSECURE=true"
        )


def _say_ready(settings: Settings, say: Say) -> None:
    count = httpx.get(f"{settings.url}/readyz", timeout=30.0).json()["models"]
    url = settings.published_url
    say(f"Ready: {counted(count, 'model')} at {url}  ·  docs at {url}/docs")
    if not count and (settings.include or settings.exclude):
        say("Only models whose names pass --include and --exclude are served: none does yet.")
