"""Shadows' figures on disk: one file of JSON, replaced as a whole. Blocks.

A file that can't be read is as none, and a folder that can't be written costs a warning: serving
goes on. Answers of callers are among the figures, so nobody else may read it.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import BaseModel, ValidationError

from gateway.shadow_figures import ShadowFigures
from registry_sync.private_file import replace_file

_logger = logging.getLogger(__name__)

_FILE = "shadows.json"
_FORMAT = 1


class KeptShadows(BaseModel):
    """The figures by model, and the last report of each ingress replica that is in them."""

    format: int = _FORMAT
    registry: str
    figures: dict[str, ShadowFigures] = {}
    reports: dict[str, int] = {}


class ShadowFile:
    """Keeps shadows' figures of the registry of that name in a folder."""

    def __init__(self, folder: Path, *, registry: str) -> None:
        self._path = folder / _FILE
        self._registry = registry

    def load(self) -> KeptShadows:
        """What was kept last; nothing where there is nothing of use."""
        nothing = KeptShadows(registry=self._registry)
        try:
            kept = KeptShadows.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return nothing
        except (OSError, ValidationError) as error:
            _logger.warning("%s can't be used: %s", self._path, type(error).__name__)
            return nothing
        is_ours = kept.format == _FORMAT and kept.registry == self._registry
        return kept if is_ours else nothing

    def save(self, content: bytes) -> None:
        """Keep that: `KeptShadows` as JSON."""
        try:
            replace_file(self._path, content)
        except OSError as error:
            _logger.warning("%s can't be written: %s", self._path, error.strerror)
