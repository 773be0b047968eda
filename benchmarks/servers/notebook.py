"""The model on Ray Serve as in a notebook, no setting changed: `notebook.py PORT MODEL`."""

import signal
import sys
import threading

import mlflow
import pandas as pd
import ray
from fastapi import FastAPI
from ray import serve

from benchmarks.servers.flower import Flower

app = FastAPI()


@serve.deployment
@serve.ingress(app)
class Flowers:
    """One deployment, one replica, one call per request."""

    def __init__(self, path: str) -> None:
        self.model = mlflow.pyfunc.load_model(path)

    @app.get("/health")
    def health(self) -> str:
        """Whether it is up."""
        return "ok"

    @app.post("/predict")
    def predict(self, flower: Flower) -> list[float]:
        """One row."""
        return self.model.predict(pd.DataFrame([flower.model_dump()])).tolist()

    @app.post("/predict_list")
    def predict_list(self, flowers: list[Flower]) -> list[float]:
        """Many rows."""
        return self.model.predict(pd.DataFrame([each.model_dump() for each in flowers])).tolist()


def main() -> None:
    """Until SIGTERM or SIGINT."""
    stop = threading.Event()
    ray.init(address="local", include_dashboard=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
        serve.run(Flowers.bind(sys.argv[2]))  # type: ignore[attr-defined]
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        stop.wait()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
