"""FastAPI and pydantic answering a constant: `constant.py PORT`."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI

from benchmarks.servers.flower import Flower

app = FastAPI()


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
