"""The model in a FastAPI application, called once per request: `fastapi_pyfunc.py PORT MODEL`."""

from __future__ import annotations

import sys

import mlflow
import pandas as pd
import uvicorn
from fastapi import FastAPI

from benchmarks.servers.flower import Flower

app = FastAPI()
model = mlflow.pyfunc.load_model(sys.argv[2])


@app.get("/health")
async def health() -> str:
    """Whether it is up."""
    return "ok"


@app.post("/predict")
def predict(flower: Flower) -> list[float]:
    """One row."""
    return model.predict(pd.DataFrame([flower.model_dump()])).tolist()


@app.post("/predict_list")
def predict_list(flowers: list[Flower]) -> list[float]:
    """Many rows."""
    return model.predict(pd.DataFrame([each.model_dump() for each in flowers])).tolist()


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
