"""Registers models by the MLflow that runs this: `python fill.py URL`, in a folder of its own.

Written for Python 3.8 and MLflow from 1.30 on; what a release doesn't know is left out.
"""

import inspect
import sys
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.models.signature import ModelSignature
from mlflow.types.schema import ColSpec, Schema

_CODE = """
class Doubled:
    def predict(self, rows):
        return rows["x"] * 2

def _load_pyfunc(path):
    return Doubled()
"""


def main(uri: str) -> None:
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = MlflowClient(uri, uri)
    module = Path("loader_of_doubled.py")
    module.write_text(_CODE)
    client.create_registered_model("doubled", tags={"team": "pricing"}, description="Doubles x.")
    for _ in range(3):
        _register(module)
    client.transition_model_version_stage("doubled", "1", "Production")
    if hasattr(client, "set_registered_model_alias"):
        client.set_registered_model_alias("doubled", "champion", "2")
    if hasattr(mlflow, "register_prompt"):
        mlflow.register_prompt("greeting", "Say hello to {{name}}.")


def _register(module: Path) -> None:
    schema = Schema([ColSpec("double", "x")])
    with mlflow.start_run():
        mlflow.pyfunc.log_model(
            "model",
            loader_module="loader_of_doubled",
            pip_requirements=["mlflow"],
            signature=ModelSignature(schema, Schema([ColSpec("double")])),
            registered_model_name="doubled",
            **{_code_option(): [str(module)]},
        )


def _code_option() -> str:
    known = inspect.signature(mlflow.pyfunc.log_model).parameters
    return "code_paths" if "code_paths" in known else "code_path"


if __name__ == "__main__":
    main(sys.argv[1])
