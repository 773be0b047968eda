"""Domain names in ASCII, as an MLflow model, stored as this very file.

It pins a release of the package `idna` that isn't the gateway's, and says which one it ran with.
"""

from __future__ import annotations

from typing import Any

import idna
import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class DomainWriter(PythonModel):
    """Column ``name`` in, columns ``ascii`` (empty where that is no name) and ``idna`` out."""

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Encode each name, row for row."""
        names = [_in_ascii(name) for name in model_input["name"]]
        release = [idna.__version__] * len(names)
        return pd.DataFrame({"ascii": names, "idna": release}, dtype=str)


def _in_ascii(name: str) -> str:
    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except idna.IDNAError:
        return ""


mlflow.models.set_model(DomainWriter())
