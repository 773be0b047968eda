"""Writes what is pinned to the registry, as tags of registered models."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Protocol

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

_logger = logging.getLogger(__name__)

# What a registry that is down, or lets nobody write, makes MLflow raise.
_FAILURES = (MlflowException, OSError, ValueError)


class Pins(Protocol):
    """Where defaults are pinned."""

    def write(self, pins: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        """Set each model's tags, in their order. Blocks; what can't be written is written when it
        is asked for again."""


class PinWriter:
    """Pins defaults in an MLflow registry; what goes wrong is in the log, once for each model."""

    def __init__(self, *, tracking_uri: str, registry_uri: str | None = None) -> None:
        self._uris = (tracking_uri, registry_uri or tracking_uri)
        self._client: MlflowClient | None = None
        self._failed: set[str] = set()

    def write(self, pins: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        """See `Pins.write`."""
        for name, tags in pins:
            try:
                self._set(name, tags)
            except _FAILURES as error:
                if name not in self._failed:
                    self._failed.add(name)
                    _logger.warning(
                        "%s: the default can't be pinned in the registry: %s",
                        name,
                        getattr(error, "error_code", None) or type(error).__name__,
                    )
            else:
                self._failed.discard(name)

    def _set(self, name: str, tags: Mapping[str, str]) -> None:
        # Not in the constructor: MLflow resolves the store there, which may fail.
        if self._client is None:
            self._client = MlflowClient(*self._uris)
        for tag, value in tags.items():
            self._client.set_registered_model_tag(name, tag, value)
