"""The tag `modelmux.shadow`: which version is asked beside the default, and why none is. Pure.

`NAME`, `NAME:PERCENT`, and either with `:force` at its end, where NAME is an alias, a version's
number or `latest`. The rules: a shadow is another version than the default, can be served and keeps
the contract; agents, whose answers may have effects elsewhere, are asked twice only where the tag
says so. A shadow that has become the default has done its work: that is no fault of the tag.
"""

from __future__ import annotations

from gateway.catalog import (
    Compatibility,
    ModelVersion,
    ServedModel,
    Shadow,
    UntypableSignature,
    compare_signatures,
)
from registry_sync.traffic_tags import InvalidShare, parse_share

_FORCE = ":force"
_ALL = 100.0


def with_shadow(
    model: ServedModel, *, compatibility: Compatibility = "compatible", captures: bool = False
) -> ServedModel:
    """The model with the shadow that its options name; else with the reason why there is none,
    which is a warning, too, where somebody has to do something about it. `captures` tells whether
    what callers ask is kept where a model's tag says so: of rows that differ it is then, too."""
    text = model.options.shadow
    if text is None:
        return model
    try:
        shadow, note = _chosen(model, text, compatibility)
    except _NotFollowed as problem:
        warning = f"Tag modelmux.shadow is not followed: {problem}."
        return model.model_copy(
            update={"shadow_problem": warning, "warnings": (*model.warnings, warning)}
        )
    if shadow is not None:
        kept = captures and model.options.capture > 0.0
        left_out = model.options.capture_drop
        shadow = shadow.model_copy(update={"keeps_inputs": kept, "left_out": left_out})
    return model.model_copy(update={"shadow": shadow, "shadow_problem": note})


class _NotFollowed(Exception):
    """Nothing is asked beside the default; the text is the end of a sentence about the tag."""


def _chosen(
    model: ServedModel, text: str, compatibility: Compatibility
) -> tuple[Shadow | None, str | None]:
    """The shadow, or why none is needed; raises _NotFollowed."""
    said = text.strip()
    forced = said.lower().endswith(_FORCE)
    try:
        share = parse_share(said[: -len(_FORCE)] if forced else said, _ALL)
    except InvalidShare as problem:
        raise _NotFollowed(str(problem)) from None
    version = model.named(share.selector)
    if version is None:
        raise _NotFollowed("the model has no such version or alias")
    if model.default is None:
        raise _NotFollowed("no version answers by default")
    if version.number == model.default_version:
        return None, f"Version {version.number}, which the tag names, is the default."
    if share.percent == 0:
        return None, "Its percentage is 0."
    _require_fit(model, version, compatibility, forced=forced)
    tolerance = model.options.shadow_tolerance
    shadow = Shadow(
        number=version.number, percent=share.percent, tolerance=tolerance, forced=forced
    )
    return shadow, None


def _require_fit(
    model: ServedModel, version: ModelVersion, compatibility: Compatibility, *, forced: bool
) -> None:
    if version.unservable_reason is not None:
        raise _NotFollowed(f"version {version.number} can't be served")
    if _breaks(model, version, compatibility):
        raise _NotFollowed(f"version {version.number} breaks the contract")
    is_agent = version.is_agent or (model.default is not None and model.default.is_agent)
    if is_agent and not forced:
        raise _NotFollowed(
            "an agent's answers may have effects elsewhere, which would come about twice; "
            f"end the tag with {_FORCE} where they don't"
        )


def _breaks(model: ServedModel, version: ModelVersion, compatibility: Compatibility) -> bool:
    try:
        return bool(
            compare_signatures(
                model.contract or "",
                version.signature or "",
                model.earlier_contracts,
                exact=compatibility == "exact",
            )
        )
    except UntypableSignature:
        return True
