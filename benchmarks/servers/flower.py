"""One row, as FastAPI applications declare it."""

from __future__ import annotations

from pydantic import BaseModel


class Flower(BaseModel):
    """The model's four columns."""

    sepal_length: float
    sepal_width: float
    petal_length: float
    petal_width: float
