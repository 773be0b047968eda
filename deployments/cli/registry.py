"""`modelmux check` and `webhook`: commands that ask a registry, or a gateway about one.

They read the settings of the gateway for where the registry is, and need no Ray.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer

from deployments.cli.client import ClientKey, gateway_client
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
    url: Annotated[
        str | None,
        typer.Option("--url", envvar="MODELMUX_URL", help="The gateway that has the contract."),
    ] = None,
    key: ClientKey = None,
) -> None:
    """Would this version keep the contract? Exit code 0 yes, 1 no, 2 couldn't tell."""
    settings = settings_of(tracking_uri=tracking_uri, registry_uri=registry_uri)
    result = contract_checked(settings, name, candidate, against=against, url=url, key=key)
    if as_json:
        told = {
            "model": result.model,
            "candidate": result.candidate,
            "against": result.against,
            "in_force_at": result.in_force_at,
            "compatible": result.is_compatible,
            "differences": list(result.differences),
        }
        write_json(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        print_result(result)
    if not result.is_compatible:
        raise typer.Exit(NO)


def contract_checked(
    settings: Settings,
    name: str,
    candidate: str,
    *,
    against: str | None = None,
    url: str | None = None,
    key: str | None = None,
) -> CheckResult:
    """What the comparison says, by the gateway at `url` where one is named and nothing else is to
    be compared with; raises the exit where it can't be made."""
    from registry_sync.contract_check import CannotTell
    from registry_sync.records import RegistryUnreachable

    try:
        if url is not None and against is None:
            return _checked_by_gateway(url, key, name, candidate)
        return _checked_by_registry(settings, name, candidate, against)
    except (CannotTell, RegistryUnreachable) as error:
        raise fail(str(error)) from error


def _checked_by_gateway(url: str, key: str | None, name: str, candidate: str) -> CheckResult:
    from deployments.cli.contract_in_force import check_in_force

    try:
        with gateway_client(url, key) as client:
            return check_in_force(client, name, candidate)
    except httpx.InvalidURL as error:
        raise fail(f"{url} is no address of a gateway: {error}") from error


def _checked_by_registry(
    settings: Settings, name: str, candidate: str, against: str | None
) -> CheckResult:
    from registry_sync.contract_check import check_contract
    from registry_sync.default_version import DefaultPolicy
    from registry_sync.source import MlflowRegistry

    set_registry_defaults()
    registry = MlflowRegistry(
        tracking_uri=settings.tracking_uri, registry_uri=settings.registry_uri
    )
    policy = DefaultPolicy(
        champion_alias=settings.champion_alias,
        champion_stage=settings.champion_stage,
        rule=settings.default_version,
        compatibility=settings.compatibility,
    )
    return check_contract(registry, name, candidate, against=against, policy=policy)


def print_result(result: CheckResult) -> None:
    """Whether a version keeps the contract of another one, for people."""
    before = f"version {result.against}"
    if result.in_force_at is not None:
        default = "a version that is gone" if result.against is None else f"default {before}"
        contract = f"the contract in force at {result.in_force_at}, that of {default}"
    else:
        contract = f"the contract of {before}"
    subject = f"{result.model} version {result.candidate}"
    if result.is_compatible:
        out.print(f"{subject} keeps {contract}.")
        return
    out.print(f"{subject} breaks {contract}:")
    side = "Contract" if result.against is None else before.capitalize()
    show(differences_table(result.differences, (side, f"Version {result.candidate}")))


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
