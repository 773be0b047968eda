"""Moving an alias in the registry: what promotes a version, and rolls back to one."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException


class AliasNotMoved(Exception):
    """The registry doesn't move the alias; the sentence is for people."""


def move_alias(
    name: str, alias: str, version: int, *, tracking_uri: str, registry_uri: str | None = None
) -> None:
    """Have `alias` name that version of a registered model; raises AliasNotMoved."""
    client = MlflowClient(tracking_uri, registry_uri or tracking_uri)
    try:
        client.set_registered_model_alias(name, alias, str(version))
    except MlflowException as error:
        raise AliasNotMoved(f"The registry doesn't move the alias: {error.message}") from error
