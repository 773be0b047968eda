"""What one look at the registry found: plain records, before anything is decided.

Owns the values between `source` (which fills them) and `catalog_builder` (which decides).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.catalog import ModelVersion


class RegistryUnreachable(Exception):
    """The registry gave no usable answer; the sentence is meant for people and holds no secret."""


class RegistryUnusable(RegistryUnreachable):
    """It can't be read from here, however long one waits: a package or a setting is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredModel:
    """A registered model as the registry tells it; `aliases` maps alias to version number,
    `created_at_ms` is 0 where the registry doesn't say."""

    name: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)
    versions: tuple[ModelVersion, ...] = ()
    created_at_ms: int = 0


RegistryReading = tuple[RegisteredModel, ...]
"""All registered models that pass the include and exclude patterns."""
