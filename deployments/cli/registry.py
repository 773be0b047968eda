"""`modelmux check` and `webhook`: commands that ask a registry, or a gateway about one.

They read the settings of the gateway for where the registry is, and need no Ray.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer

from deployments.cli.client import ClientKey, gateway_client, no_address
from deployments.cli.terminal import (
    NO,
    agreement_table,
    differences_table,
    fail,
    out,
    show,
    status_line,
    write_json,
)
from deployments.mlflow_environment import set_registry_defaults
from deployments.settings import BadSettings, Settings, read_settings
from gateway.capture.arrow_columns import json_text

if TYPE_CHECKING:
    from deployments.cli.behaviour import Behaviour
    from registry_sync.contract_check import CheckResult  # MLflow: only for who needs it


def settings_of(**given: Any) -> Settings:
    """The settings from the command line and the environment, or one clear line and exit 2."""
    try:
        said = {name: value for name, value in given.items() if value is not None}
        return read_settings(said, options=given)
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
    asks: Annotated[
        bool, typer.Option("--behaviour", help="Ask both versions too, and compare their answers.")
    ] = False,
    on: Annotated[
        str | None,
        typer.Option(
            help="What they are asked: captured, example, or a .parquet or .jsonl file. [captured "
            "where MODELMUX_CAPTURE_URL is set, else example]"
        ),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0.0, help="How far numbers may be apart, relatively. [1e-6]")
    ] = None,
    at_most: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The ratio of rows that may differ.")
    ] = 0.0,
    rows: Annotated[int, typer.Option(min=1, help="The most rows to ask.")] = 1000,
) -> None:
    """Would this version keep the contract, and answer alike? Exit code 0 yes, 1 no, 2 couldn't
    tell."""
    # The gateway at an address is all that is asked where nothing else is to be compared with.
    needs_registry = url is None or against is not None or asks
    settings = (
        settings_of(tracking_uri=tracking_uri, registry_uri=registry_uri)
        if needs_registry
        else None
    )
    result = contract_checked(settings, name, candidate, against=against, url=url, key=key)
    seen = None
    if not as_json:
        print_result(result)
    if asks and result.is_compatible and settings is not None:
        seen = _behaviour_seen(
            settings, result, on=on, tolerance=tolerance, most_rows=rows, is_quiet=as_json
        )
    if as_json:
        told = {
            "model": result.model,
            "candidate": result.candidate,
            "against": result.against,
            "in_force_at": result.in_force_at,
            "compatible": result.is_compatible,
            "differences": list(result.differences),
            **({} if seen is None else {"behaviour": seen.as_dict()}),
        }
        # Answers may have NaN and arrays: what is printed is JSON all the same.
        plain = json.loads(json_text(told) or "")
        write_json(json.dumps(plain, indent=2, ensure_ascii=False))
    elif seen is not None:
        _print_behaviour(seen, result)
    if not result.is_compatible or (seen is not None and seen.ratio > at_most):
        raise typer.Exit(NO)


def _behaviour_seen(
    settings: Settings,
    result: CheckResult,
    *,
    on: str | None,
    tolerance: float | None,
    most_rows: int,
    is_quiet: bool,
) -> Behaviour:
    """How the candidate answers beside the other version; raises the exit where it can't be
    told."""
    from deployments.cli.behaviour import behaviour
    from registry_sync.contract_check import CannotTell
    from registry_sync.records import RegistryUnreachable

    if result.against is None:
        raise fail("the default version is gone: name a version to compare with by --against")
    set_registry_defaults()
    try:
        with status_line(out.print, live=not is_quiet) as status:
            return behaviour(
                settings,
                result.model,
                against=result.against,
                candidate=result.candidate,
                on=on,
                tolerance=tolerance,
                most_rows=most_rows,
                show=status.show,
            )
    except (CannotTell, LookupError, RegistryUnreachable) as error:
        raise fail(str(error)) from error


def _print_behaviour(seen: Behaviour, result: CheckResult) -> None:
    """How often and where the answers differ, for people."""
    out.print(
        f"{seen.different} of {seen.compared} answers ({seen.ratio:.2%}) differ from those of "
        f"version {result.against}, asked on {seen.on}, numbers within {seen.tolerance:g}."
    )
    for code, count in seen.failures.items():
        out.print(f"Version {result.candidate} fails on {count} of them: {code}.")
    if seen.unanswered:
        out.print(f"Version {result.against} fails on {seen.unanswered} more: not compared.")
    if seen.refused:
        out.print(f"{seen.refused} more don't fit the contract: not compared.")
    if seen.different:
        columns = [each.as_dict() for each in seen.columns.values() if each.different]
        if columns:
            show(agreement_table(columns))
        for row in seen.worst:
            out.print(f"{row.told}: {json.dumps(row.inputs, ensure_ascii=False, default=str)}")
            if row.error is not None:
                out.print(f"  version {result.candidate} fails: {row.error}")
            for name, (before, after) in row.answers.items():
                out.print(f"  {name}: {before} → {after}")


def contract_checked(
    settings: Settings | None,
    name: str,
    candidate: str,
    *,
    against: str | None = None,
    url: str | None = None,
    key: str | None = None,
) -> CheckResult:
    """What the comparison says; raises the exit where it can't be made."""
    from registry_sync.contract_check import CannotTell
    from registry_sync.records import RegistryUnreachable

    try:
        return compared(settings, name, candidate, against=against, url=url, key=key)
    except (CannotTell, RegistryUnreachable) as error:
        raise fail(str(error)) from error


def compared(
    settings: Settings | None,
    name: str,
    candidate: str,
    *,
    against: str | None = None,
    url: str | None = None,
    key: str | None = None,
) -> CheckResult:
    """The comparison, by the gateway at `url` where one is named and nothing else is to be compared
    with, for which nothing needs `settings`; raises CannotTell and RegistryUnreachable."""
    if url is not None and against is None:
        return _checked_by_gateway(url, key, name, candidate)
    assert settings is not None
    return _checked_by_registry(settings, name, candidate, against)


def _checked_by_gateway(url: str, key: str | None, name: str, candidate: str) -> CheckResult:
    from deployments.cli.contract_in_force import check_in_force

    try:
        with gateway_client(url, key) as client:
            return check_in_force(client, name, candidate)
    except httpx.InvalidURL as error:
        raise no_address(url) from error


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
