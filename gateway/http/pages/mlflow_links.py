"""Addresses in MLflow's own web interface: of a registered model, of its versions and their runs.

MLflow's routes are `#/models/NAME`, `#/models/NAME/versions/N` and `#/runs/ID`, which leads to the
run in its experiment.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class MlflowLinks:
    """Over the address at which browsers find MLflow; every address is None where there is none."""

    base: str | None = None

    def model(self, name: str) -> str | None:
        """Of a registered model."""
        return self._at("models", name)

    def version(self, name: str, number: int) -> str | None:
        """Of one of its versions."""
        return self._at("models", name, "versions", str(number))

    def run(self, run_id: str | None) -> str | None:
        """Of the run that logged a version."""
        return None if run_id is None else self._at("runs", run_id)

    def _at(self, *segments: str) -> str | None:
        if self.base is None:
            return None
        return f"{self.base.rstrip('/')}/#/{'/'.join(quote(each, safe='') for each in segments)}"
