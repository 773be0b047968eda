"""Put one version of a demo model into an MLflow registry, unless it is there already.

Everything goes through one client with an address of its own: MLflow's process-wide tracking URI is
neither read nor set, so this can be called from a program that uses MLflow for something else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from mlflow.models import Model

EXPERIMENT = "modelmux demo"
# On a registered model: it is the demo's. On a version: which of the demo's versions it is.
MODEL_TAG = "demo"
EDITION_TAG = "demo.edition"

Save = Callable[[Path, Model], None]
"""Writes a model's files into a folder that doesn't exist yet, described by the given Model."""


class ForeignModelError(RuntimeError):
    """The registry has a model of the demo's name that the demo didn't make; it is left alone."""


@dataclass(frozen=True, kw_only=True)
class Edition:
    """One version of a demo model, as it should be in the registry.

    `number` is the version's number in a registry that has seen no other version of the model.
    """

    model: str
    number: int
    model_description: str
    description: str
    tags: Mapping[str, str] = field(default_factory=dict)


class Publisher:
    """Publishes editions to the MLflow server at `tracking_uri`."""

    def __init__(self, tracking_uri: str) -> None:
        self._client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)

    def published(self, edition: Edition) -> int | None:
        """The version number under which the registry holds this edition, None where it doesn't."""
        numbers = [
            int(version.version)
            for version in self._client.search_model_versions(f"name = '{edition.model}'")
            if version.tags.get(EDITION_TAG) == str(edition.number) and version.status == "READY"
        ]
        return max(numbers, default=None)

    def publish(self, edition: Edition, save: Save) -> int:
        """Upload what `save` writes, register it as the next version; the version's number.

        Raises ForeignModelError, before anything is saved.
        """
        self._ensure_registered_model(edition)
        logged = self._client.create_logged_model(self._experiment(), name=edition.model)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch, "model")
            # The same three marks that mlflow's own log_model leaves in the file MLmodel.
            save(
                folder,
                Model(
                    artifact_path=logged.artifact_location,
                    model_uuid=logged.model_id,
                    model_id=logged.model_id,
                ),
            )
            self._client.log_model_artifacts(logged.model_id, str(folder))
        self._client.finalize_logged_model(logged.model_id, "READY")
        version = self._client.create_model_version(
            edition.model,
            source=f"models:/{logged.model_id}",
            model_id=logged.model_id,
            description=edition.description,
            tags={EDITION_TAG: str(edition.number), **edition.tags},
        )
        return int(version.version)

    def set_alias_once(self, model: str, alias: str, version: int) -> bool:
        """Point the alias to the version, unless the model has it already; whether it was set."""
        if alias in self._client.get_registered_model(model).aliases:
            return False
        self._client.set_registered_model_alias(model, alias, str(version))
        return True

    def _ensure_registered_model(self, edition: Edition) -> None:
        found = self._client.search_registered_models(f"name = '{edition.model}'")
        if not found:
            self._client.create_registered_model(
                edition.model, tags={MODEL_TAG: "true"}, description=edition.model_description
            )
        elif MODEL_TAG not in found[0].tags:
            raise ForeignModelError(
                f"the registry has a model {edition.model!r} that isn't the demo's: "
                "rename it, or use another registry for the demo"
            )

    def _experiment(self) -> str:
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return str(experiment.experiment_id)
        return self._client.create_experiment(EXPERIMENT)
