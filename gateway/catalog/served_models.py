"""What is served: a registered model, its versions, its options, and what callers were promised.

Owns the values that travel from the registry side to every ingress (and to the snapshot on disk).
Pure: no I/O, no clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gateway.canary import Canary
from gateway.catalog.contracts import contract_of, promised_contract
from gateway.contract import Contract
from gateway.contract.agents import AGENTS
from gateway.contract.signature import UNTYPED_SIGNATURE

Typing = Literal["signature", "input example", "none"]

EnvironmentMode = Literal["auto", "shared", "own"]
"""Which packages a version runs with: the gateway's (`shared`), some of its `own`, or its own where
the gateway's aren't what it needs (`auto`)."""

DeploymentKind = Literal["own", "shared"]
"""Which Serve deployment has a model's versions: one of its `own`, or one that models share."""

_VERSION_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_AGENTS_AT_ONCE = 16
# What these load calls a service most of the time, and so it waits.
_REMOTE_FLAVORS = frozenset(
    {"mlflow.dspy", "mlflow.langchain", "mlflow.llama_index", "mlflow.openai", "mlflow.promptflow"}
)


LATEST = "latest"
"""The selector for the newest READY version; MLflow reserves the word, so no alias can be it."""

UNSIGNED = "/unsigned"
"""What the fingerprint of a version ends with as long as its file has no signature: a process that
loaded it like that doesn't know the one that is written later."""

_TYPING_NOTES: dict[Typing, str] = {
    "input example": "It was logged without a signature: what it takes is inferred from its input "
    "example, and what it answers is not known.",
    "none": "It has no signature and is served without types: it is given whatever is sent "
    "(records as a table, nested lists of numbers as an array, all else as a list), its answers "
    "come as they are, and another version may take and give something else.",
}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelOptions(_Frozen):
    """What a team can set per model, with `modelmux.*` tags on the registered model.

    Times are in seconds, `num_cpus` and `num_gpus` in Ray's units per replica. `capture` is the
    share of requests that is kept, in percent (see `gateway.capture`), without `capture_drop`.
    """

    min_replicas: int = Field(default=0, ge=0, le=1000)
    max_replicas: int = Field(default=1, ge=1, le=1000)
    num_cpus: float = Field(default=0.0, ge=0.0, le=1024.0)
    num_gpus: float = Field(default=0.0, ge=0.0, le=1024.0)
    max_loaded_versions: int = Field(default=3, ge=1, le=100)
    batching: Literal["auto", "on", "off"] = "auto"
    timeout_s: float | None = Field(default=None, gt=0.0, le=3600.0)
    environment: EnvironmentMode | None = None
    deployment: DeploymentKind | None = None
    signature: Literal["none"] | None = None
    concurrency: int | None = Field(default=None, ge=1, le=256)
    shadow: str | None = None
    shadow_tolerance: float | None = Field(default=None, ge=0.0, le=1.0)
    capture: float = Field(default=0.0, ge=0.0, le=100.0)
    capture_drop: tuple[str, ...] = ()

    @field_validator("capture", mode="before")
    @classmethod
    def _percent(cls, value: object) -> object:
        """`10%` is 10."""
        return value.strip().removesuffix("%") if isinstance(value, str) else value

    @field_validator("capture_drop", mode="before")
    @classmethod
    def _columns(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @property
    def of_an_own_deployment(self) -> list[str]:
        """Which options are set that a shared deployment can't follow."""
        return [name for name in _OF_AN_OWN_DEPLOYMENT if getattr(self, name) != _DEFAULTS[name]]


_OF_AN_OWN_DEPLOYMENT = ("min_replicas", "max_replicas", "num_cpus", "num_gpus")
_DEFAULTS = ModelOptions().model_dump()


class ModelVersion(_Frozen):
    """One registered version, as far as serving it needs to know.

    `fingerprint` changes whenever other artifacts hide behind the same number (a model deleted and
    registered again). `signature` is the MLmodel file's signature as JSON text, None where there
    is none. `problem` says why the version can't be served, None where it can. `environment` is
    what its own tag says of its packages, `warnings` are of tags that can't be used. `run_id` is
    the MLflow run that logged it, None where the registry names none. `stage` is
    the stage that somebody gave it, as MLflow has them beside aliases still. `task` is what an
    agent or a chat model speaks (see `gateway.contract.agents`), `streamable` whether its answer
    can be had piece by piece. `read_as` tells what an earlier release read of the file from
    what this one does.

    `unsigned` is why the file has no signature that can be served, None where it has one; then
    `signature` is the one that was `inferred` from the version's input example, or says that it is
    served untyped.
    """

    number: int
    registry_status: str = "READY"
    stage: str | None = None
    fingerprint: str
    signature: str | None = None
    problem: str | None = None
    flavor: str | None = None
    ships_code: bool = False
    example: Any = None
    description: str = ""
    run_id: str | None = None
    created_at_ms: int = 0
    accept_breaking: bool = False
    environment: EnvironmentMode | None = None
    warnings: tuple[str, ...] = ()
    unsigned: str | None = None
    inferred: str | None = None
    task: str | None = None
    streamable: bool = False
    read_as: int = 0

    @property
    def is_agent(self) -> bool:
        """Whether it speaks as an agent, or as a chat model that others compute."""
        is_remote = self.task is not None and self.flavor in _REMOTE_FLAVORS
        return self.task in AGENTS or is_remote

    @property
    def registered_as(self) -> str:
        """The fingerprint without the mark of those that have no signature: one may be written into
        the same artifacts."""
        return self.fingerprint.removesuffix(UNSIGNED)

    @property
    def typing(self) -> Typing:
        """Where the types of its requests and answers come from."""
        if self.unsigned is None:
            return "signature"
        return "none" if self.signature in (None, UNTYPED_SIGNATURE) else "input example"

    @property
    def typing_note(self) -> str | None:
        """What callers should know where the types come from no signature; None where they do."""
        return None if self.problem is not None else _TYPING_NOTES.get(self.typing)

    @property
    def is_ready(self) -> bool:
        """Whether the registry calls the version READY."""
        return self.registry_status == "READY"

    @property
    def is_servable(self) -> bool:
        """Whether the version can be served by what is registered: it is READY and can be typed."""
        return self.is_ready and self.problem is None

    @property
    def unservable_reason(self) -> str | None:
        """Why the version isn't servable, in one sentence; None where it is."""
        if self.is_servable:
            return None
        return self.problem or f"The registry calls it {self.registry_status}."


class EnvironmentStatus(_Frozen):
    """Which packages a version runs with, and `why`, as part of a sentence.

    `state` is whether they are there: `missing` ones are made when somebody asks for the version.
    `reason` says why they aren't, where there is more to say, `lines` what the tools said of it
    last, `since` since when it is as it is, in Unix time. `warning` is what the version needs and
    won't have. `key` tells environments from each other, None for the gateway's.
    """

    kind: Literal["gateway", "own"]
    state: Literal["ready", "waiting", "building", "failed", "missing"]
    why: str
    reason: str | None = None
    lines: tuple[str, ...] = ()
    since: float | None = None
    warning: str | None = None
    key: str | None = None


class HeldVersion(_Frozen):
    """A version that would be the default by the registry's word, and why it isn't."""

    number: int
    reason: str
    differences: tuple[dict[str, Any], ...] = ()


class Shadow(_Frozen):
    """A version that is asked what the default was asked, for its answers to be compared: so many
    percent of the requests that name no version. Numbers within `tolerance` (relative) are equal;
    None is the usual one (`gateway.shadow.comparison`). What may have effects elsewhere is asked
    only where that is `forced`. What was asked is kept beside answers that differ only where it
    `keeps_inputs`; the columns `left_out` are never kept."""

    number: int
    percent: float = 100.0
    tolerance: float | None = None
    forced: bool = False
    keeps_inputs: bool = False
    left_out: tuple[str, ...] = ()


DefaultCause = Literal["named", "newest", "rolled_back", "fell_back", "stands_in", "pinned"]
"""What made a version the default: an alias; being the newest; the alias that was moved back to it;
the default after it being gone; that the default can't be served, whose contract it keeps; or that
the registry has it pinned."""

_CAUSES: Mapping[DefaultCause, str] = {
    "named": "The alias that names defaults was moved to it.",
    "newest": "It was the newest version that is READY.",
    "rolled_back": "The alias was moved back to it: it was the default before.",
    "fell_back": "The default after it is gone: it was the default before.",
    "stands_in": "The default before it can't be served, and it keeps the contract.",
    "pinned": "It is pinned as the default in the registry.",
}


class FormerDefault(_Frozen):
    """A version that was the default, and what was promised then.

    `rolled_back` says that its callers were sent back to an earlier one. Ingress replicas aren't
    sent the contracts.
    """

    number: int
    fingerprint: str
    contract: str = ""
    earlier_contracts: tuple[str, ...] = ()
    rolled_back: bool = False


class ServedModel(_Frozen):
    """A registered model: its versions, its default, its contract and what is held back.

    `contract` is the signature (JSON text) that callers were promised: the default version's. It
    outlives that version. `earlier_contracts` are those before it that took what it doesn't: their
    callers' requests are valid still. `problem` says why nothing answers where no version is named.
    `created_at_ms` tells a model that was deleted and registered anew from the one before, 0 where
    the registry doesn't say. `default_cause` is why the default is what it is, `former_defaults`
    what was before it and is registered still, the last one at the end. `passed_over` is the
    number up to which no version becomes the default by being the newest: those that were there
    when the default was deleted and callers were sent back. `pinned_version` is what the registry
    had pinned as default when that was last followed, or is to be written over. `shadow_problem` is
    why what the tag says of a shadow isn't followed, or need not be any more. `not_started`,
    `load_problems` and `environments` are as in `Moment`.
    """

    name: str
    description: str = ""
    aliases: dict[str, int] = {}
    versions: tuple[ModelVersion, ...] = ()
    default_version: int | None = None
    contract: str | None = None
    earlier_contracts: tuple[str, ...] = ()
    default_cause: DefaultCause | None = None
    former_defaults: tuple[FormerDefault, ...] = ()
    passed_over: int = 0
    pinned_version: int | None = None
    held: HeldVersion | None = None
    canary: Canary | None = None
    shadow: Shadow | None = None
    shadow_problem: str | None = None
    options: ModelOptions = ModelOptions()
    warnings: tuple[str, ...] = ()
    problem: str | None = None
    created_at_ms: int = 0
    not_started: str | None = None
    load_problems: dict[int, str] = {}
    environments: dict[int, EnvironmentStatus] = {}

    def version(self, number: int) -> ModelVersion | None:
        """The version with that number, None where there is none."""
        return next((v for v in self.versions if v.number == number), None)

    def named(self, selector: str) -> ModelVersion | None:
        """The version that a number, an alias or `latest` means, None where there is none."""
        if selector == LATEST:
            return self.latest
        if is_version_number(selector):
            return self.version(int(selector))
        number = self.aliases.get(selector)
        return None if number is None else self.version(number)

    def environment_of(self, version: ModelVersion) -> EnvironmentMode | None:
        """What a tag says of the packages that a version runs with; its own wins."""
        return version.environment or self.options.environment

    def concurrency_of(self, version: ModelVersion) -> int:
        """How many calls a process of the version answers at once: what the tag says, else one, or
        more for those that mostly wait for others."""
        return self.options.concurrency or (_AGENTS_AT_ONCE if version.is_agent else 1)

    @property
    def notable(self) -> frozenset[int]:
        """The numbers of what most ask for: the default, what is to be it, its canary, its shadow,
        and what an alias names; of some there may be no version."""
        default = () if self.default_version is None else (self.default_version,)
        held = () if self.held is None else (self.held.number,)
        canary = self.canary.version if self.canary is not None else None
        beside = () if canary is None else (canary,)
        shadow = () if self.shadow is None else (self.shadow.number,)
        return frozenset((*default, *held, *beside, *shadow, *self.aliases.values()))

    @property
    def default(self) -> ModelVersion | None:
        """The version that answers where the caller names none."""
        return None if self.default_version is None else self.version(self.default_version)

    @property
    def default_reason(self) -> str | None:
        """Why the default is what it is, as a sentence; None where there is none, or it is that of
        an earlier release."""
        if self.default_version is None or self.default_cause is None:
            return None
        return _CAUSES[self.default_cause]

    @property
    def default_before(self) -> FormerDefault | None:
        """The version that a rollback goes to: the last default that nobody was sent back from."""
        return next((f for f in reversed(self.former_defaults) if not f.rolled_back), None)

    @property
    def unservable_reason(self) -> str | None:
        """Why nothing answers where no version is named, by what is registered; None where
        something does."""
        if self.default is not None:
            return None
        return self.problem or "No version of the model can be served."

    @property
    def latest(self) -> ModelVersion | None:
        """The newest READY version (MLflow numbers them in order of registration)."""
        return max((v for v in self.versions if v.is_ready), key=lambda v: v.number, default=None)

    @property
    def promise(self) -> Contract | None:
        """What callers may send and will get, None where nothing was ever promised.

        Raises UntypableSignature.
        """
        if self.contract is None:
            return None
        return promised_contract(self.contract, self.earlier_contracts)

    def request_example(self) -> Any:
        """A request body for the default version: its own input example, else one made up.

        None where the model has no contract, or too large tensors to make one up.
        """
        if self.contract is None:
            return None
        if self.default is not None and self.default.example is not None:
            return self.default.example
        return contract_of(self.contract).example()


def is_version_number(selector: str) -> bool:
    """Whether a selector means a version by its number, be there an alias of that name or not."""
    return _VERSION_NUMBER.fullmatch(selector) is not None
