"""What our Serve applications are called, and which of those on a Serve are ours.

Serve may be shared, and nothing in it says who made an application. A name alone isn't proof: the
deployments in it have to be ours as well. Only what passes here is ever deleted or taken over. Must
not import ray.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from functools import lru_cache

APPLICATION = "modelmux"
"""The gateway's own application."""

BUILDER = "deployments.application:build"
"""What a Serve config names to have it built."""

SYNC_SERVICE, INGRESS = "SyncService", "Ingress"
MODEL_HOST = "ModelHost"

SHARED = "modelmux-shared"
"""The application of the models that share a deployment."""

_MODEL_PREFIX = "modelmux-model-"
_DIGEST_DIGITS = 10
# As `application_name` makes them: prefix, slug, digest. An earlier release had an application for
# each version that ships code, with its number and digest at the end: nobody wants those any more.
_MODEL_NAME = re.compile(
    rf"{_MODEL_PREFIX}[a-z0-9-]{{0,40}}-[0-9a-f]{{{_DIGEST_DIGITS}}}(-v[0-9]+-[0-9a-f]+)?"
)


def is_gateways(name: str, deployments: Collection[str], *, import_path: str | None = None) -> bool:
    """Whether that application is a gateway; `import_path` is the builder's, where a config made
    it: while Serve builds such a one, or where it can't, there are no deployments."""
    return name == APPLICATION and (
        import_path == BUILDER or set(deployments) == {SYNC_SERVICE, INGRESS}
    )


def is_models(name: str, deployments: Collection[str]) -> bool:
    """Whether that application is a model's, or the one that models share: one that was just made,
    or that is ending, has no deployments yet or no more."""
    is_named_so = name == SHARED or _MODEL_NAME.fullmatch(name) is not None
    return is_named_so and set(deployments) <= {MODEL_HOST}


@lru_cache(maxsize=8192)  # asked for with every call
def application_name(model: str) -> str:
    """The application of the model of that name; readable, and unique by its digest."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", model).strip("-")[:40].lower()
    return f"{_MODEL_PREFIX}{slug}-{digest_of(model)}"


def digest_of(model: str) -> str:
    """A short word of its own for every model's name."""
    return hashlib.sha256(model.encode()).hexdigest()[:_DIGEST_DIGITS]


def version_key(number: int, fingerprint: str, environment: str | None) -> str:
    """A version's multiplexed model id: short, unique among all models', and another one for other
    artifacts or where a tag says something else of its packages."""
    said = fingerprint if environment is None else f"{fingerprint} {environment}"
    return f"{number}-{hashlib.sha256(said.encode()).hexdigest()[:16]}"
