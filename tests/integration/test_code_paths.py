"""Models that ship code: each version answers from its own, whatever its packages are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support.processes import Gateway
from tests.support.registering import client, columns, register

NUMBER = columns(("x", "double"))
TEXT = columns(("y", "string"))


def _from_package(package: str) -> Any:
    def predict(rows: pd.DataFrame, params: Any) -> Any:
        import importlib

        word = importlib.import_module(f"{package}.words").WORD
        return pd.DataFrame({"y": [word] * len(rows)})

    return predict


def _package(folder: Path, name: str, word: str) -> str:
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "words.py").write_text(f"WORD = {word!r}\n")
    return str(package)


@pytest.mark.parametrize("package", ["shipped", "gateway", "deployments"])
def test_versions_answer_from_their_own_code(
    shared_gateway: Gateway, mlflow_uri: str, tmp_path: Path, package: str
) -> None:
    """Two versions with a package of one name and different content, side by side on one route,
    even where the package is called like one of ours."""
    name = f"ships {package}"
    for word in ("one", "two"):
        code = _package(tmp_path / word, package, word)
        register(mlflow_uri, name, _from_package(package), NUMBER, TEXT, code_paths=[code])
    shared_gateway.sync()
    for _ in range(2):
        for number, word in (("1", "one"), ("2", "two")):
            response = shared_gateway.predict(name, {"x": 1}, X_Model_Version=number)
            assert response.json() == [{"y": word}], response.text
    client(mlflow_uri).delete_registered_model(name)
    shared_gateway.sync()
