"""Whether a version or a model would answer now, and why not: what every list, page and metric goes
by, so that they can't disagree. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.catalog import ModelVersion, ServedModel

VersionKey = tuple[str, str]
"""A model's name and a version's fingerprint."""

Unloadable = Mapping[VersionKey, str]
"""Why versions could not be loaded, as far as this process has seen: sentences for people."""

_NO_DEFAULT = "The default version is gone, and no other answers for its contract."
_UNLOADABLE = "It can't be loaded; the gateway's log has the reason."


def why_version_is_silent(
    model: ServedModel, version: ModelVersion, unloadable: Unloadable
) -> str | None:
    """Why no request for that version is answered, whatever its signature; None where nothing is
    known against it."""
    if version.unservable_reason is not None:
        return version.unservable_reason
    if model.default is None and model.contract is not None:
        return _NO_DEFAULT
    return (
        model.not_started
        or _environment_problem(model, version)
        or _load_problem(model, version, unloadable)
    )


def why_model_is_silent(model: ServedModel, unloadable: Unloadable) -> str | None:
    """Why nothing answers where no version is named; None where something does."""
    default = model.default
    if default is None or model.not_started is not None:
        return model.unservable_reason or model.not_started
    reason = why_version_is_silent(model, default, unloadable)
    return None if reason is None else f"Version {default.number}: {reason}"


def _environment_problem(model: ServedModel, version: ModelVersion) -> str | None:
    status = model.environments.get(version.number)
    return None if status is None else status.reason


def _load_problem(model: ServedModel, version: ModelVersion, unloadable: Unloadable) -> str | None:
    told = model.load_problems.get(version.number)
    if told:
        return f"It can't be loaded: {told}."
    seen_here = unloadable.get((model.name, version.fingerprint))
    return _UNLOADABLE if seen_here is None and told is not None else seen_here
