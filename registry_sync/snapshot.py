"""The last known catalog on disk, so that a restart without a registry serves what it served, and
which versions have been loaded, so that one that was never loaded replaces none that was.

Written atomically (a temporary file beside it, then a rename), so a reader never sees half of it.
A snapshot of another registry, of another format or one that can't be read counts as none.
"""

from __future__ import annotations

import logging
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from gateway.catalog import Catalog, ServedModel, UntypableSignature
from registry_sync.private_file import replace_file

_logger = logging.getLogger(__name__)

_FORMAT = 1
_FILE = "catalog.json"


class _Snapshot(BaseModel):
    format: int
    registry: str
    catalog: Catalog
    loaded: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a snapshot holds; `loaded` are fingerprints of versions that were loaded."""

    catalog: Catalog
    loaded: AbstractSet[str] = frozenset()


def _typable(catalog: Catalog) -> Catalog:
    """Without the models whose contract this release can't type: they are as if seen first."""
    models = {name: model for name, model in catalog.models.items() if _is_typable(model)}
    return catalog.model_copy(update={"models": models})


def _is_typable(model: ServedModel) -> bool:
    try:
        _ = model.promise
    except UntypableSignature:
        _logger.warning("%s: the contract in the snapshot can't be typed any more", model.name)
        return False
    return True


class SnapshotStore:
    """Keeps one catalog, of the registry named `registry`, in a folder."""

    def __init__(self, folder: Path, *, registry: str) -> None:
        self._path = folder / _FILE
        self._registry = registry
        self._problem: str | None = None

    def load(self) -> Restored | None:
        """What was saved last; None where there is none to trust."""
        try:
            snapshot = _Snapshot.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            _logger.warning("the snapshot %s can't be used: %s", self._path, type(error).__name__)
            return None
        if snapshot.format != _FORMAT or snapshot.registry != self._registry:
            _logger.warning("the snapshot %s is of another registry or format", self._path)
            return None
        return Restored(catalog=_typable(snapshot.catalog), loaded=snapshot.loaded)

    @property
    def problem(self) -> str | None:
        """Why the catalog could not be kept when it was last tried; None where it is kept."""
        return self._problem

    def save(self, catalog: Catalog, loaded: AbstractSet[str]) -> None:
        """Keep both; where that can't be written `problem` says so, and serving goes on."""
        snapshot = _Snapshot(
            format=_FORMAT, registry=self._registry, catalog=catalog, loaded=frozenset(loaded)
        )
        before, self._problem = self._problem, None
        try:
            replace_file(self._path, snapshot.model_dump_json().encode())
        except OSError as error:
            self._problem = f"The catalog can't be saved to {self._path}: {error.strerror}."
            if before != self._problem:
                _logger.warning("%s A restart without the registry is not covered.", self._problem)
        else:
            if before is not None:
                _logger.info("the catalog is saved again")
