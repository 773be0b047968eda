"""`modelmux environments list | build | prune`: the packages that versions run with, here.

Asks the registry what versions need, and the state folder what is there; no gateway has to run, and
one that does isn't disturbed. Needs no Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli import terminal
from deployments.cli.registry import settings_of
from deployments.cli.terminal import NO, counted, fail, out, status_line, write_json, write_row
from deployments.mlflow_environment import set_registry_defaults
from deployments.settings import Settings

environments_app = typer.Typer(
    help="Packages that versions run with, on this machine.", no_args_is_help=True
)

TrackingUri = Annotated[str | None, typer.Option(help="The MLflow server.")]
RegistryUri = Annotated[str | None, typer.Option(help="Where it isn't the server's.")]
StateDir = Annotated[
    Path | None, typer.Option(help="The gateway's folder, which environments are in. [.modelmux]")
]


@environments_app.command("list")
def list_environments(
    tracking_uri: TrackingUri = None,
    registry_uri: RegistryUri = None,
    state_dir: StateDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Which environment each version runs in, why, and whether it is there. Exit code 1 where one
    has failed."""
    from deployments.cli.environment_builds import listed

    settings = _settings(tracking_uri, registry_uri, state_dir)
    with _answered(), status_line(out.print, live=not as_json) as status:
        rows = asyncio.run(listed(settings, status))
    if as_json:
        write_json(json.dumps({"environments": rows}, indent=2, ensure_ascii=False))
    elif out.is_terminal:
        terminal.show(terminal.environments_table(rows))
    else:
        for row in rows:
            write_row(*terminal.environment_cells(row))
    if any(row["state"] == "failed" for row in rows):
        raise typer.Exit(NO)


@environments_app.command("build")
def build_environments(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME[:VERSION]", help="A model, or a version by number or alias."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every version, not only defaults and aliased ones.")
    ] = False,
    tracking_uri: TrackingUri = None,
    registry_uri: RegistryUri = None,
    state_dir: StateDir = None,
) -> None:
    """Build environments before a gateway needs them: those of the versions that are asked for
    first. Exit code 1 where one can't be built."""
    settings = _settings(tracking_uri, registry_uri, state_dir)
    if settings.environment == "shared":
        raise fail("nothing is built: MODELMUX_ENVIRONMENT is shared")
    model, _, selector = (name or "").partition(":")
    if every and selector:
        raise fail("give a version, or --all")
    from deployments.cli.environment_builds import built

    with _answered(), status_line(out.print, live=True) as status:
        is_good = asyncio.run(built(settings, status, model or None, selector or None, every))
    if not is_good:
        raise typer.Exit(NO)


@environments_app.command("prune")
def prune_environments(
    max_bytes: Annotated[
        int | None, typer.Option(min=0, help="What all may take. [max_environments_bytes]")
    ] = None,
    state_dir: StateDir = None,
) -> None:
    """Remove what is left over, and the least recently used environments while all take more than
    they may; never one in use."""
    from deployments.cli.environment_builds import pruned

    # No registry is asked, but settings have one.
    settings = settings_of(tracking_uri="file:none", state_dir=state_dir)
    most = settings.max_environments_bytes if max_bytes is None else max_bytes
    try:
        removed, left = asyncio.run(pruned(settings, most))
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise fail(f"{settings.environments_folder} can't be cleared: {why}") from error
    for environment in removed:
        out.print(f"{environment.digest}: removed, {terminal.megabytes(environment.size_bytes)}")
    out.print(
        f"{counted(len(removed), 'environment')} removed; {terminal.megabytes(left)} are left."
    )


def _settings(tracking_uri: str | None, registry_uri: str | None, folder: Path | None) -> Settings:
    settings = settings_of(tracking_uri=tracking_uri, registry_uri=registry_uri, state_dir=folder)
    set_registry_defaults()
    return settings


@contextlib.contextmanager
def _answered() -> Iterator[None]:
    """A registry that gives no answer, or none to what was asked, in one line and exit 2."""
    from registry_sync.contract_check import CannotTell
    from registry_sync.records import RegistryUnreachable

    try:
        yield
    except (CannotTell, RegistryUnreachable) as error:
        raise fail(str(error)) from error
