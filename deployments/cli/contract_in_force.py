"""Would a version keep the contract that a running gateway has in force: asked of that gateway.

The registry alone doesn't tell which contract that is: an alias may name a version that is held,
and callers of earlier contracts count, too.
"""

from __future__ import annotations

import time
from typing import Any

import httpx

from deployments.cli.client import is_of_a_gateway
from gateway.http.predict.path import predict_path
from registry_sync.contract_check import CannotTell, CheckResult, NothingPromised

_SEEN_WITHIN_S = 15.0
_PAUSE_S = 0.5
_LATEST = "latest"


def check_in_force(
    client: httpx.Client, name: str, candidate: str, *, seen_within_s: float = _SEEN_WITHIN_S
) -> CheckResult:
    """Compare a version (a number, an alias or `latest`) with the contract in force.

    A version that the gateway hasn't seen is waited for, for a moment. Raises CannotTell, and
    NothingPromised where the model has no contract yet.
    """
    version = _seen(client, name, candidate)
    if version is None:
        _ask_for_a_look(client)
        give_up_at = time.monotonic() + seen_within_s
        while (version := _seen(client, name, candidate)) is None:
            if time.monotonic() > give_up_at:
                what = "version" if candidate.isdecimal() else "version or alias"
                raise CannotTell(
                    f"The gateway at {_url(client)} knows no {what} {candidate} of {name}."
                )
            time.sleep(_PAUSE_S)
    return _result(client, _model(client, name), version)


def _result(client: httpx.Client, model: dict[str, Any], version: dict[str, Any]) -> CheckResult:
    name, number = model["name"], version["version"]
    if version["status"] != "READY":
        raise CannotTell(f"{name} version {number}: the registry calls it {version['status']}.")
    if version["servable"] and model["request_schema"] is None and model["default_version"] is None:
        reason = model["reason"] or "the model has no contract yet"
        raise NothingPromised(f"{name} version {number}: {reason}", number)
    if version["compatible"] is None:
        reason = version["reason"] or model["reason"] or "the model has no contract yet"
        raise CannotTell(f"{name} version {number}: {reason}")
    return CheckResult(
        model=name,
        candidate=number,
        against=model["default_version"],
        differences=tuple(version["differences"]),
        in_force_at=_url(client),
    )


def _seen(client: httpx.Client, name: str, candidate: str) -> dict[str, Any] | None:
    """What the gateway tells of the version; None where it hasn't seen it yet."""
    model = _model(client, name)
    versions = {each["version"]: each for each in model["version_details"]}
    if candidate.isdecimal():
        return versions.get(int(candidate))
    if candidate == _LATEST:
        ready = [number for number, each in versions.items() if each["status"] == "READY"]
        return versions.get(max(ready, default=-1))
    return versions.get(model["aliases"].get(candidate, -1))


def _model(client: httpx.Client, name: str) -> dict[str, Any]:
    try:
        response = client.get(predict_path(name).removesuffix("/predict"))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CannotTell(f"No answer from {_url(client)}: {error}") from error
    status = response.status_code
    if not is_of_a_gateway(response, "version_details"):
        raise CannotTell(f"{_url(client)} answers {status}, and not as a gateway does.")
    if not response.is_success:
        said = response.json()["detail"]
        raise CannotTell(f"The gateway at {_url(client)} answers {status}: {said}")
    model: dict[str, Any] = response.json()
    return model


def _url(client: httpx.Client) -> str:
    return str(client.base_url).rstrip("/")


def _ask_for_a_look(client: httpx.Client) -> None:
    """Have the gateway look at the registry; who may not ask for that waits until it does."""
    try:
        client.post("/registry/sync")
    except httpx.HTTPError as error:
        raise CannotTell(f"No answer from {_url(client)}: {error}") from error
