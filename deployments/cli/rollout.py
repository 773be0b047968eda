"""`modelmux promote`, `rollback` and `history`: which version is the default, and was.

The alias in the registry is what decides; a gateway takes it over at its next look. These commands
need no Ray.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from deployments.cli import terminal
from deployments.cli.client import DEFAULT_URL, ClientKey, Url, ask, have_looked
from deployments.cli.registry import compared, print_result, settings_of
from deployments.cli.terminal import CANNOT, NO, fail, out
from deployments.mlflow_environment import set_registry_defaults
from deployments.settings import Settings
from gateway.http.predict.path import model_path

TrackingUri = Annotated[str | None, typer.Option(help="The MLflow server.")]
RegistryUri = Annotated[str | None, typer.Option(help="Where it isn't the server's.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")]


def promote(
    name: str,
    version: Annotated[str, typer.Argument(help="Version number, alias or latest.")],
    tracking_uri: TrackingUri = None,
    registry_uri: RegistryUri = None,
    url: Annotated[
        str | None,
        typer.Option("--url", envvar="MODELMUX_URL", help="The gateway that has the contract."),
    ] = None,
    key: ClientKey = None,
    agreement: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Which share of a shadow's answers must be equal."),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Make a version the default, if it keeps the contract: moves the alias in the registry.

    Where the gateway has asked it as a shadow, says how often it answered as the default does. Exit
    code 0 moved (or would be, or needn't be), 1 it breaks the contract or agrees too seldom, 2
    couldn't tell.
    """
    settings = settings_of(tracking_uri=tracking_uri, registry_uri=registry_uri)
    if agreement is not None and url is None:
        raise fail(
            "only a gateway knows how often a shadow agrees: name it by --url or MODELMUX_URL"
        )
    number = _passed(settings, name, version, url=url, key=key)
    if url is not None:
        _look_at_shadow(name, number, url=url, key=key, at_least=agreement)
    _move(settings, name, number, dry_run=dry_run)
    if url is not None and not dry_run:
        have_looked(url, key)


def _passed(
    settings: Settings, name: str, version: str, *, url: str | None, key: str | None
) -> int:
    """The number of the version, which the gate would let through; raises the exit where not."""
    from registry_sync.contract_check import CannotTell, NamedAlready, NothingPromised
    from registry_sync.records import RegistryUnreachable

    try:
        result = compared(settings, name, version, url=url, key=key)
    except NothingPromised as nothing:
        out.print(f"{name} has promised nothing yet that version {nothing.candidate} could break.")
        return nothing.candidate
    except NamedAlready as named:
        out.print(f"{name} version {named.candidate} has the alias already.")
        if url is None:
            out.print(
                "Whether it has taken over, the gateway knows: ask it by --url or MODELMUX_URL."
            )
        return named.candidate
    except (CannotTell, RegistryUnreachable) as error:
        raise fail(str(error)) from error
    print_result(result)
    if not result.is_compatible and not _accepts_breaking(settings, name, result.candidate):
        out.print("Set modelmux.accept_breaking=true on this version to let it through.")
        if url is not None and _asked(name, url, key)["default_before"] == result.candidate:
            out.print(f"It was the default before: modelmux rollback {name} goes back to it.")
        raise typer.Exit(NO)
    return result.candidate


def _look_at_shadow(
    name: str, version: int, *, url: str, key: str | None, at_least: float | None
) -> None:
    """Say how often the version answered as the default; raises the exit where that is too seldom,
    or isn't known and has to be."""
    path = f"{model_path(name)}/shadow"
    asked = ask("GET", url, path, key, refused=CANNOT, member="agreement")
    told: dict[str, Any] = asked.json()
    requests, reached = told["requests"], told["agreement"]
    if told["shadow_version"] != version or reached is None:
        if at_least is not None:
            raise fail(f"version {version} of {name} was not compared as a shadow")
        return
    others = ", ".join(f"{requests[each]} {each}" for each in ("failed", "late", "dropped"))
    out.print(
        f"As a shadow version {version} answered {reached:.2%} of {requests['compared']} requests "
        f"as version {told['default_version']} did ({others})."
    )
    if at_least is not None and reached < at_least:
        out.print(f"That is less than {at_least:.2%}.")
        raise typer.Exit(NO)


def _accepts_breaking(settings: Settings, name: str, version: int) -> bool:
    from registry_sync.records import RegistryUnreachable
    from registry_sync.source import MlflowRegistry

    set_registry_defaults()
    registry = MlflowRegistry(
        tracking_uri=settings.tracking_uri, registry_uri=settings.registry_uri
    )
    try:
        return registry.read_version(name, version).accept_breaking
    except (LookupError, RegistryUnreachable) as error:
        raise fail(str(error)) from error


def rollback(
    name: str,
    tracking_uri: TrackingUri = None,
    registry_uri: RegistryUri = None,
    url: Url = DEFAULT_URL,
    key: ClientKey = None,
    dry_run: DryRun = False,
) -> None:
    """Go back to the version that was the default before: moves the alias in the registry.

    The gateway is asked which one that is, and takes it over whatever was let in between. Where the
    alias names one that isn't the default yet, or is held, it is moved back to the default. Exit
    code 0 moved (or would be), 1 there is none, 2 couldn't tell.
    """
    settings = settings_of(tracking_uri=tracking_uri, registry_uri=registry_uri)
    have_looked(url, key)
    model = _asked(name, url, key)
    default, held = model["default_version"], model["held"]
    named = model["aliases"].get(settings.champion_alias)
    if held is not None and held["version"] == named:
        before = default
        if before is None:
            raise fail(f"{name} has no default that it could stay at", NO)
        out.print(f"{name} stays at version {default}: version {named} has not taken over.")
    else:
        before = model["default_before"]
        if before is None:
            now = "it has none now either" if default is None else f"version {default} is its first"
            raise fail(f"{name} had no default that it could go back to: {now}", NO)
        since = "" if default is None else f"from version {default} "
        out.print(f"{name} goes back {since}to version {before}.")
    _move(settings, name, before, dry_run=dry_run)
    if not dry_run:
        have_looked(url, key)


def _asked(name: str, url: str, key: str | None) -> dict[str, Any]:
    """What the gateway tells of a model; raises the exit."""
    asked = ask("GET", url, model_path(name), key, refused=CANNOT, member="default_version")
    told: dict[str, Any] = asked.json()
    return told


def _move(settings: Settings, name: str, version: int, *, dry_run: bool) -> None:
    from registry_sync.aliases import AliasNotMoved, move_alias

    alias = settings.champion_alias
    if dry_run:
        out.print(f"Alias {alias} of {name} would name version {version}.")
        return
    set_registry_defaults()
    try:
        move_alias(
            name,
            alias,
            version,
            tracking_uri=settings.tracking_uri,
            registry_uri=settings.registry_uri,
        )
    except AliasNotMoved as refused:
        raise fail(str(refused)) from refused
    out.print(f"Alias {alias} of {name} names version {version}.")


def history(
    name: str,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many of the newest.")] = 20,
    url: Url = DEFAULT_URL,
    key: ClientKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What happened to a model's default: promoted, held, rolled back, and why."""
    path = f"{model_path(name)}/history?limit={limit}"
    told = ask("GET", url, path, key, member="entries").json()
    if as_json:
        terminal.write_json(json.dumps(told["entries"], indent=2, ensure_ascii=False))
    elif out.is_terminal:
        terminal.show(terminal.history_table(told["entries"]))
    else:
        for entry in told["entries"]:
            terminal.write_row(*terminal.history_cells(entry))
