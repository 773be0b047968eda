"""FastAPI and pydantic answering a constant: `constant.py PORT`."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Flower(BaseModel):
    """One row."""

    sepal_length: float
    sepal_width: float
    petal_length: float
    petal_width: float


@app.get("/health")
async def health() -> str:
    """Whether it is up."""
    return "ok"


@app.post("/predict")
async def predict(flower: Flower) -> list[float]:
    """Not a prediction."""
    return [5.678]


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
