"""A version's artifacts on the disk of the machine that serves it: where they are, and fetching.

MLflow is imported only where something is fetched: the supervisor asks here for the folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

_DIGITS = 32


def artifacts_folder(into: Path, fingerprint: str) -> Path:
    """Where below `into` the artifacts of that fingerprint are, once they are fetched."""
    return into / hashlib.sha256(fingerprint.encode()).hexdigest()[:_DIGITS]


def fetch_artifacts(
    model: str,
    number: int,
    *,
    into: str,
    fingerprint: str,
    tracking_uri: str,
    registry_uri: str,
) -> Path:
    """The folder below `into` with a version's artifacts, fetched once; blocks.

    Complete or absent: they are fetched beside and renamed into place, so that a process that
    dies half-way, or two that fetch at once, leave nothing broken.
    """
    import mlflow.artifacts
    from mlflow import MlflowClient

    target = artifacts_folder(Path(into), fingerprint)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(tracking_uri, registry_uri)
    uri = client.get_model_version_download_uri(model, str(number))
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        fetched = mlflow.artifacts.download_artifacts(
            artifact_uri=uri,
            dst_path=str(partial),
            tracking_uri=tracking_uri,
            registry_uri=registry_uri,
        )
        _move_into_place(Path(fetched), target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _move_into_place(fetched: Path, target: Path) -> None:
    try:
        os.rename(fetched, target)
    except OSError:
        if not target.is_dir():  # else another process was faster with the same artifacts
            raise
