"""What `/models` shows: the catalog's entries as typed, documented responses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, Field

from gateway.availability import Unloadable, why_model_is_silent, why_version_is_silent
from gateway.canary import Canary, CanaryState
from gateway.catalog import (
    Catalog,
    HeldVersion,
    ModelOptions,
    ModelVersion,
    ServedModel,
    Typing,
    UntypableSignature,
)
from gateway.contract import Difference
from gateway.history import Event, HistoryEntry
from gateway.http.predict.path import predict_path
from gateway.ports import RegistryStatus

_NOTHING_SEEN: Unloadable = {}
_TYPES_FROM = (
    "`signature`; `input example` where they are inferred from it; `none` where there is no "
    "signature: requests and answers are untyped, where the tag modelmux.signature=none says so."
)


class HeldView(BaseModel):
    """A newer default that is kept back, and why."""

    version: int
    reason: str
    differences: list[Difference] = []


class CanaryView(BaseModel):
    """A version that has a share of the requests that name none, as the tags say."""

    alias: str = Field(description="An alias, a number or `latest`.")
    version: int | None = Field(description="What that means now; null where it means none.")
    percent: float = Field(description="Of the requests that name no version.")
    state: CanaryState = Field(
        description="`waiting`: it may have none, or not yet; `stopped`: it failed too often; "
        "`ended`: it is the default by now."
    )
    why: str | None = Field(description="Why nobody goes there; null where it is running.")
    header: str = Field(description="Callers who send it with one value stay on one side.")
    max_error_ratio: float | None = Field(description="Past it the canary is stopped.")
    min_requests: int = Field(description="Of so many requests at least.")


class EnvironmentView(BaseModel):
    """Which packages a version runs with, and whether they are there."""

    kind: Literal["gateway", "own"] = Field(
        description="The gateway's packages, or an environment of the version's own."
    )
    state: Literal["ready", "waiting", "building", "failed", "missing"] = Field(
        description="`missing` ones are built when somebody asks for the version."
    )
    why: str
    reason: str | None = Field(description="Why it isn't there; null where it is.")
    lines: list[str] = Field(description="What the tools said last of a build that failed.")
    seconds: float | None = Field(description="For how long it has been waiting or being built.")
    warning: str | None = Field(description="What the version needs and does not run with.")
    key: str | None = Field(description="Tells environments from each other; null: the gateway's.")


class VersionView(BaseModel):
    """One version of a model and whether it may answer for the model's contract."""

    version: int
    status: str = Field(description="The registry's word: READY, PENDING_REGISTRATION, …")
    servable: bool = Field(
        description="Whether requests for it are answered, as far as is known and whether it keeps "
        "the contract or not."
    )
    reason: str | None = Field(description="Why it can't be served now; null where it can.")
    compatible: bool | None = Field(description="Keeps the contract; null where it can't be told.")
    differences: list[Difference]
    aliases: list[str]
    is_default: bool
    description: str
    flavor: str | None
    types_from: Typing = Field(description=_TYPES_FROM)
    task: str | None = Field(description="What an agent or a chat model speaks, else null.")
    streamable: bool = Field(description="Whether its answer can come piece by piece.")
    run_id: str | None = Field(
        description="The MLflow run that logged it; null where there is none."
    )
    created_at_ms: int
    environment: EnvironmentView | None = Field(
        description="Its packages; null where that isn't known yet."
    )


class ModelSummary(BaseModel):
    """One line of the list of models."""

    name: str
    description: str
    status: Literal["ready", "unservable"]
    reason: str | None = Field(description="Why nothing answers by default; null where it does.")
    default_version: int | None
    default_reason: str | None = Field(description="Why the default is what it is.")
    default_before: int | None = Field(
        description="The version that a rollback goes to; null where there is none."
    )
    types_from: Typing | None = Field(
        description=f"Of the default version, null where there is none. {_TYPES_FROM}"
    )
    aliases: dict[str, int]
    versions: list[int]
    held: HeldView | None
    canary: CanaryView | None
    warnings: list[str]
    environment: EnvironmentView | None = Field(
        description="The packages of the default version; null where that isn't known."
    )
    predict_url: str = Field(description="The path of predictions, with what it is below.")


class ModelDetail(ModelSummary):
    """All there is to know about a model before calling it."""

    version_details: list[VersionView]
    options: ModelOptions
    request_schema: dict[str, Any] | None = Field(description="JSON Schema (2020-12) of the body.")
    response_schema: dict[str, Any] | None
    example: Any = Field(
        description="A request body that the default version accepts; null where there is none "
        "that is small."
    )


class HistoryEntryView(BaseModel):
    """One change of a model's default, its aliases, its canary, or of what is held."""

    at: datetime = Field(description="In UTC.")
    event: Event
    before: int | None = Field(description="A version; null where there was none.")
    after: int | None = Field(description="A version; null where there is none.")
    alias: str | None = Field(description="The alias that was moved; null with other events.")
    why: str | None
    generation: int = Field(description="The catalog's generation in which it was so first.")


class ModelHistory(BaseModel):
    """What happened to a model, the newest first."""

    model: str
    entries: list[HistoryEntryView]


class RegistryView(BaseModel):
    """How the registry behind the list has been answering."""

    silent_since: datetime | None = Field(
        description="Its last good answer, in UTC; null while it answers, and where this process "
        "has had none."
    )
    problem: str | None = Field(description="What came last instead; null while it answers.")
    snapshot_problem: str | None = Field(
        description="Why the catalog isn't kept on disk for a restart; null where it is."
    )


class ModelList(BaseModel):
    """All models, by name."""

    generation: int
    registry: RegistryView
    models: list[ModelSummary]


def list_models(
    catalog: Catalog,
    unloadable: Unloadable = _NOTHING_SEEN,
    registry: RegistryStatus = RegistryStatus(),  # noqa: B008 - frozen
    *,
    below: str = "",
) -> ModelList:
    """Summaries of all models of a catalog, sorted by name; `unloadable` failed to load. Callers
    find the gateway `below` that path."""
    models = sorted(catalog.models.values(), key=lambda m: m.name)
    return ModelList(
        generation=catalog.generation,
        registry=describe_registry(registry, now=datetime.now(UTC)),
        models=[summarize(model, unloadable, below=below) for model in models],
    )


def describe_registry(registry: RegistryStatus, *, now: datetime) -> RegistryView:
    """The registry's state as callers see it."""
    silent = None if registry.problem is None else registry.silent_for_s
    return RegistryView(
        silent_since=None if silent is None else now - timedelta(seconds=silent),
        problem=registry.problem,
        snapshot_problem=registry.snapshot_problem,
    )


def describe_model(
    catalog: Catalog, name: str, unloadable: Unloadable = _NOTHING_SEEN, *, below: str = ""
) -> ModelDetail:
    """Everything about one model; raises ModelNotFound. See `list_models`."""
    model = catalog.model(name)
    contract = model.promise
    return ModelDetail(
        **_summary(model, unloadable, below),
        version_details=[
            describe_version(catalog, model, v, unloadable) for v in reversed(model.versions)
        ],
        options=model.options,
        request_schema=contract.request_schema() if contract else None,
        response_schema=contract.response_schema() if contract else None,
        example=model.request_example(),
    )


def summarize(
    model: ServedModel, unloadable: Unloadable = _NOTHING_SEEN, *, below: str = ""
) -> ModelSummary:
    """One line about a model. See `list_models`."""
    return ModelSummary.model_validate(_summary(model, unloadable, below))


def _summary(model: ServedModel, unloadable: Unloadable, below: str) -> dict[str, Any]:
    problem, before = why_model_is_silent(model, unloadable), model.default_before
    return {
        "name": model.name,
        "description": model.description,
        "status": "ready" if problem is None else "unservable",
        "reason": problem,
        "default_version": model.default_version,
        "default_reason": model.default_reason,
        "default_before": None if before is None else before.number,
        "types_from": None if model.default is None else model.default.typing,
        "aliases": dict(sorted(model.aliases.items())),
        "versions": [v.number for v in reversed(model.versions)],
        "held": _held(model.held),
        "canary": _canary(model.canary),
        "warnings": [*model.warnings, *_canary_warnings(model.canary)],
        "environment": _environment(model, model.default_version),
        "predict_url": f"{below}{predict_path(model.name)}",
    }


def describe_history(name: str, entries: Sequence[HistoryEntry]) -> ModelHistory:
    """A model's history as callers see it."""
    return ModelHistory(
        model=name,
        entries=[
            HistoryEntryView(
                at=datetime.fromtimestamp(each.at, UTC), **each.model_dump(exclude={"at", "model"})
            )
            for each in entries
        ],
    )


def _held(held: HeldVersion | None) -> HeldView | None:
    if held is None:
        return None
    told = {"version": held.number, "reason": held.reason, "differences": held.differences}
    return HeldView.model_validate(told)


def _canary(canary: Canary | None) -> CanaryView | None:
    if canary is None:
        return None
    rule = canary.rule
    return CanaryView(
        alias=rule.selector,
        version=canary.version,
        percent=rule.percent,
        state=canary.state,
        why=canary.why,
        header=rule.header,
        max_error_ratio=rule.max_error_ratio,
        min_requests=rule.min_requests,
    )


def _canary_warnings(canary: Canary | None) -> list[str]:
    warning = None if canary is None else canary.warning
    return [] if warning is None else [warning]


def describe_version(
    catalog: Catalog,
    model: ServedModel,
    version: ModelVersion,
    unloadable: Unloadable,
) -> VersionView:
    """One version, with what keeps it from answering for the model's contract."""
    compatible, found = _compatibility(catalog, model, version)
    reason = why_version_is_silent(model, version, unloadable)
    return VersionView(
        version=version.number,
        status=version.registry_status,
        servable=reason is None,
        reason=reason,
        compatible=compatible,
        differences=found,
        aliases=sorted(a for a, number in model.aliases.items() if number == version.number),
        is_default=version.number == model.default_version,
        description=version.description,
        flavor=version.flavor,
        types_from=version.typing,
        task=version.task,
        streamable=version.streamable,
        run_id=version.run_id,
        created_at_ms=version.created_at_ms,
        environment=_environment(model, version.number),
    )


def _environment(model: ServedModel, number: int | None) -> EnvironmentView | None:
    status = None if number is None else model.environments.get(number)
    if status is None:
        return None
    seconds = None if status.since is None else max(0.0, round(time.time() - status.since, 1))
    told = status.model_dump(exclude={"since", "lines"})
    return EnvironmentView(**told, lines=list(status.lines), seconds=seconds)


def _compatibility(
    catalog: Catalog, model: ServedModel, version: ModelVersion
) -> tuple[bool | None, list[Difference]]:
    if model.contract is None or not version.is_servable:
        return None, []
    try:
        found = catalog.differences(model, version)
    except UntypableSignature:
        return None, []
    return not found, list(found)
