"""`modelmux.*` tags: how a registered model or version is configured where it is registered.

Pure. A bad value is a warning that `/models` shows, never a failure: the option keeps its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from pydantic import ValidationError

from gateway.catalog import EnvironmentMode, ModelOptions

PREFIX = "modelmux."
SERVE = "modelmux.serve"
ACCEPT_BREAKING = "modelmux.accept_breaking"
ENVIRONMENT = "modelmux.environment"
MIN_REPLICAS = "modelmux.min_replicas"
SIGNATURE = "modelmux.signature"
CANARY = "modelmux.canary"
DEFAULT_VERSION = "modelmux.default_version"
CONTRACT_VERSION = "modelmux.contract_version"
PINNED = "modelmux.pinned"

CANARY_TAGS = frozenset(
    {
        CANARY,
        "modelmux.canary_header",
        "modelmux.canary_max_error_ratio",
        "modelmux.canary_min_requests",
    }
)
"""Read by `registry_sync.canary`."""

PIN_TAGS = frozenset({DEFAULT_VERSION, CONTRACT_VERSION, PINNED})
"""Written by a gateway itself, and read by `registry_sync.pins`."""

_NO_OPTIONS = CANARY_TAGS | PIN_TAGS | {SERVE}

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


def is_served(tags: Mapping[str, str]) -> bool:
    """Whether a registered model with these tags is served at all (`modelmux.serve=false`)."""
    return tags.get(SERVE, "true").strip().lower() not in _FALSE


def accepts_breaking(tags: Mapping[str, str]) -> bool:
    """Whether a model version with these tags may become the default although it breaks."""
    return tags.get(ACCEPT_BREAKING, "false").strip().lower() in _TRUE


def environment_mode(tags: Mapping[str, str]) -> EnvironmentMode | None:
    """What a model version's tags say of the packages that it runs with; None where they don't."""
    said = tags.get(ENVIRONMENT, "").strip().lower()
    return next((mode for mode in get_args(EnvironmentMode) if mode == said), None)


def is_untyped(tags: Mapping[str, str]) -> bool:
    """Whether tags of a model or a version say to serve what has no signature without one."""
    return tags.get(SIGNATURE, "").strip().lower() == "none"


def version_warnings(tags: Mapping[str, str]) -> tuple[str, ...]:
    """A warning for each tag of a model version that can't be used."""
    found = []
    if ENVIRONMENT in tags and environment_mode(tags) is None:
        modes = ", ".join(get_args(EnvironmentMode))
        found.append(f"Tag {ENVIRONMENT} is ignored: it is none of {modes}.")
    if SIGNATURE in tags and not is_untyped(tags):
        found.append(f"Tag {SIGNATURE} is ignored: it may only be none.")
    return tuple(found)


def parse_options(tags: Mapping[str, str]) -> tuple[ModelOptions, tuple[str, ...]]:
    """The options that a registered model's tags set, and a warning for each that can't be used."""
    values: dict[str, str] = {}
    warnings: list[str] = []
    for tag in sorted(tag for tag in tags if tag.startswith(PREFIX) and tag not in _NO_OPTIONS):
        name = tag.removeprefix(PREFIX)
        if name not in ModelOptions.model_fields:
            warnings.append(f"Tag {tag} is unknown and has no effect.")
            continue
        problem = _problem_of(name, tags[tag])
        if problem is None:
            values[name] = tags[tag].strip()
        else:
            warnings.append(f"Tag {tag} is ignored: {problem}.")
    options = ModelOptions.model_validate(values)
    if options.max_replicas < options.min_replicas:
        warnings.append("Tag modelmux.max_replicas is below min_replicas; min_replicas is used.")
        options = options.model_copy(update={"max_replicas": options.min_replicas})
    if options.deployment == "shared" and options.of_an_own_deployment:
        tags_of_its_own = ", ".join(PREFIX + name for name in options.of_an_own_deployment)
        warnings.append(
            f"Tag modelmux.deployment=shared has no effect beside {tags_of_its_own}: "
            "that takes a deployment of its own."
        )
    return options, tuple(warnings)


def kept_warm(options: ModelOptions, tags: Mapping[str, str]) -> ModelOptions:
    """The options of a model that is to have a replica always, where no tag says otherwise."""
    if MIN_REPLICAS in tags or options.deployment == "shared":
        return options
    return options.model_copy(update={"min_replicas": 1})


def _problem_of(name: str, value: str) -> str | None:
    try:
        ModelOptions.model_validate({name: value.strip()})
    except ValidationError as error:
        message = str(error.errors(include_input=False)[0]["msg"])
        return message[:1].lower() + message[1:]
    return None
