"""The path of the typed route: as a template, and of one model."""

from __future__ import annotations

from urllib.parse import quote

PREDICT_PATH = "/models/{name}/predict"


def predict_path(name: str) -> str:
    """The path of a model's predict route, percent-encoded."""
    return PREDICT_PATH.replace("{name}", quote(name, safe=""))


def model_path(name: str) -> str:
    """The path of what is told about a model, percent-encoded."""
    return predict_path(name).removesuffix("/predict")
