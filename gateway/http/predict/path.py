"""The path of predictions: as a template, of one model, and back."""

from __future__ import annotations

import re
from urllib.parse import quote

from starlette.types import Scope

PREDICT_PATH = "/models/{name}/predict"

_PATH = re.compile(PREDICT_PATH.replace("{name}", "([^/]+)"))


def predict_path(name: str) -> str:
    """The path of a model's predict route, percent-encoded."""
    return PREDICT_PATH.replace("{name}", quote(name, safe=""))


def model_path(name: str) -> str:
    """The path of what is told about a model, percent-encoded."""
    return predict_path(name).removesuffix("/predict")


def predicted_model(scope: Scope) -> str | None:
    """The name of the model that a request asks a prediction of; None if it asks something else."""
    if scope["type"] != "http" or scope["method"] != "POST" or scope.get("root_path"):
        return None
    path = _PATH.fullmatch(scope["path"])
    return None if path is None else path[1]
