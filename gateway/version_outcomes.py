"""What comes of the predictions of each version: whether it can be loaded, and how canaries do.

Also gives errors the names of what they are about. Must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.availability import Unloadable, VersionKey
from gateway.canary import Trials
from gateway.catalog import Resolution, ServedModel
from gateway.errors import GatewayError, ModelUnavailable

Patience = Callable[[ServedModel], float]
"""The deadline of a model's callers who don't ask for an earlier one, in seconds."""


class VersionOutcomes:
    """Kept for one process. What comes of canaries is counted in `trials`."""

    def __init__(self, trials: Trials, patience_s: Patience) -> None:
        self._trials = trials
        self._patience_s = patience_s
        self._unloadable: dict[VersionKey, str] = {}

    @property
    def unloadable(self) -> Unloadable:
        """The versions whose last load failed, as far as this process has seen, and why."""
        return self._unloadable

    @contextmanager
    def naming(self, resolution: Resolution, asked_s: float | None = None) -> Iterator[None]:
        """Whatever error the block raises has failed the version (see `failed`); else that has
        been loaded."""
        try:
            yield
        except GatewayError as error:
            self.failed(resolution, error, asked_s)
            raise
        self.was_loaded(resolution)

    def failed(
        self, resolution: Resolution, error: GatewayError, asked_s: float | None = None
    ) -> None:
        """An error names the model and the version; whether that can be loaded is kept, and of a
        canary that it failed. `asked_s` is the deadline that the caller asks for."""
        error.model = resolution.model.name
        error.version = resolution.version.number
        if isinstance(error, ModelUnavailable) and error.load_failed:
            self._unloadable[resolution.model.name, resolution.version.fingerprint] = error.detail
        if resolution.trial is not None:
            is_lowered = asked_s is not None and asked_s < self._patience_s(resolution.model)
            self._trials.note_error(
                resolution.trial, error, lowered_to_s=asked_s if is_lowered else None
            )

    def was_loaded(self, resolution: Resolution) -> None:
        """The version is there."""
        if self._unloadable:
            self._unloadable.pop((resolution.model.name, resolution.version.fingerprint), None)

    def answered(self, resolution: Resolution) -> None:
        """A request was answered well."""
        if resolution.trial is not None:
            self._trials.note_answer(resolution.trial)
