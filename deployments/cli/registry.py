"""`modelmux check` and `webhook`: commands that ask a registry.

They read the settings of the gateway for where the registry is, and need no Ray.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.cli.terminal import NO, differences_table, fail, out, show, write_json
from deployments.mlflow_environment import set_registry_defaults
from deployments.settings import BadSettings, Settings, read_settings

if TYPE_CHECKING:
    from registry_sync.contract_check import CheckResult  # MLflow: only for who needs it


def settings_of(**given: Any) -> Settings:
    """The settings from the command line and the environment, or one clear line and exit 2."""
    try:
        return read_settings({name: value for name, value in given.items() if value is not None})
    except BadSettings as error:
        raise fail(str(error)) from error


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
    settings = settings_of(tracking_uri=tracking_uri, registry_uri=registry_uri)
    result = contract_checked(settings, name, candidate, against=against)
    if as_json:
        told = {
            "model": result.model,
            "candidate": result.candidate,
            "against": result.against,
            "compatible": result.is_compatible,
            "differences": list(result.differences),
        }
        write_json(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        print_differences(result.model, result.candidate, result.against, result.differences)
    if not result.is_compatible:
        raise typer.Exit(NO)


def contract_checked(
    settings: Settings, name: str, candidate: str, *, against: str | None
) -> CheckResult:
    """What the comparison says; raises the exit where it can't be made."""
    from registry_sync.contract_check import CannotTell, check_contract
    from registry_sync.records import RegistryUnreachable
    from registry_sync.source import MlflowRegistry

    set_registry_defaults()
    registry = MlflowRegistry(
        tracking_uri=settings.tracking_uri, registry_uri=settings.registry_uri
    )
    try:
        return check_contract(
            registry,
            name,
            candidate,
            against=against,
            champion_alias=settings.champion_alias,
            compatibility=settings.compatibility,
        )
    except (CannotTell, RegistryUnreachable) as error:
        raise fail(str(error)) from error


def print_differences(
    name: str, candidate: int, against: int, differences: tuple[dict[str, Any], ...]
) -> None:
    """Whether a version keeps the contract of another one, for people."""
    if not differences:
        out.print(f"{name} version {candidate} keeps the contract of version {against}.")
        return
    out.print(f"{name} version {candidate} breaks the contract of version {against}:")
    show(differences_table(differences, (f"Version {against}", f"Version {candidate}")))


def webhook(
    address: Annotated[
        str, typer.Argument(metavar="URL", help="The gateway's /webhooks/mlflow, for MLflow.")
    ],
    tracking_uri: Annotated[str | None, typer.Option(help="The MLflow server.")] = None,
    registry_uri: Annotated[str | None, typer.Option(help="Where it isn't the server's.")] = None,
) -> None:
    """Have MLflow tell a running gateway of what changes; the secret is in the environment."""
    from registry_sync.webhooks import WebhookRefused, register_webhook

    settings = settings_of(tracking_uri=tracking_uri, registry_uri=registry_uri)
    if settings.webhook_secret is None:
        raise fail("set MODELMUX_WEBHOOK_SECRET to the secret that the gateway has")
    set_registry_defaults()
    try:
        done = register_webhook(
            address,
            settings.webhook_secret.get_secret_value(),
            tracking_uri=settings.tracking_uri,
            registry_uri=settings.registry_uri,
        )
    except WebhookRefused as refused:
        raise fail(str(refused), NO) from refused
    what = "is up to date" if done.was_there else "is registered"
    out.print(f"The webhook {what}; a delivery to {address} was taken.")
