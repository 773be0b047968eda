"""Why the last loads of versions failed, as the models' replicas told it. Must not import ray."""

from __future__ import annotations

from gateway.catalog import Catalog, ModelVersion


class LoadProblems:
    """Reasons by version, each until that version is loaded or gone from the catalog."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[str, int], tuple[str, str]] = {}

    def note_failure(self, model: str, version: ModelVersion, reason: str) -> None:
        """A process could not load the version; `reason` may be empty."""
        self._reasons[model, version.number] = (version.fingerprint, reason)

    def note_load(self, model: str, version: ModelVersion) -> None:
        """A process has loaded the version."""
        self._reasons.pop((model, version.number), None)

    def told(self, catalog: Catalog) -> dict[str, dict[int, str]]:
        """The reasons by model and number, of what is in the catalog still."""
        self._reasons = {
            key: known for key, known in self._reasons.items() if _is_there(catalog, *key, known[0])
        }
        told: dict[str, dict[int, str]] = {}
        for (model, number), (_, reason) in self._reasons.items():
            told.setdefault(model, {})[number] = reason
        return told


def _is_there(catalog: Catalog, name: str, number: int, fingerprint: str) -> bool:
    model = catalog.models.get(name)
    version = None if model is None else model.version(number)
    return version is not None and version.fingerprint == fingerprint
