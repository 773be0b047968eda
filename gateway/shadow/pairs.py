"""Which two versions of a model are compared, and by which tolerance."""

from __future__ import annotations

from gateway.catalog import ModelVersion, ServedModel, Shadow
from gateway.shadow_figures import ShadowPair


def pair_of(model: ServedModel) -> ShadowPair | None:
    """The pair that is compared now; None where nothing is."""
    version = None if model.shadow is None else model.version(model.shadow.number)
    if model.shadow is None or version is None or model.default is None:
        return None
    return pair(model.default, version, model.shadow)


def pair(default: ModelVersion, shadow: ModelVersion, terms: Shadow) -> ShadowPair:
    """Two versions as a pair."""
    return ShadowPair(
        default=default.number,
        default_fingerprint=default.fingerprint,
        shadow=shadow.number,
        shadow_fingerprint=shadow.fingerprint,
        tolerance=terms.tolerance,
    )
