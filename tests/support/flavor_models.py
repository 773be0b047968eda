"""A small model of each of MLflow's flavors, saved and asked in whatever interpreter has its
packages: `PYTHON flavor_models.py save FLAVOR FOLDER` and `… answer FOLDER`.

Run by its path, so it imports nothing of ours. Beside each model lies `input.json`, what it is
asked: a table's columns by their names, or the rows of an array of 32-bit floats. `answer` prints
what a fresh process answers, as JSON: the answer's columns.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

INPUT = "input.json"
_NAMES = ("a", "b", "c", "d")
_random = np.random.default_rng(7)
_ROWS = _random.normal(size=(200, 4))
_TARGET = _ROWS @ [1.0, -2.0, 0.5, 3.0] + _ROWS[:, 0] ** 2
_TABLE = pd.DataFrame(_ROWS, columns=list(_NAMES))
_ASKED = {name: _ROWS[:8, i].tolist() for i, name in enumerate(_NAMES)}


def _sklearn(folder: str) -> Any:
    import mlflow.sklearn
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RandomForestRegressor(20, n_jobs=2, random_state=7))
    mlflow.sklearn.save_model(
        model.fit(_TABLE, _TARGET),
        folder,
        pip_requirements=[],
        skops_trusted_types=["sklearn.tree._tree.Tree"],
    )
    return _ASKED


def _xgboost(folder: str) -> Any:
    import mlflow.xgboost
    from xgboost import XGBRegressor

    model = XGBRegressor(n_estimators=20).fit(_TABLE, _TARGET)
    mlflow.xgboost.save_model(model, folder, pip_requirements=[])
    return _ASKED


def _lightgbm(folder: str) -> Any:
    import lightgbm
    import mlflow.lightgbm

    data = lightgbm.Dataset(_TABLE, _TARGET)
    model = lightgbm.train({"verbose": -1, "objective": "regression"}, data, 20)
    mlflow.lightgbm.save_model(model, folder, pip_requirements=[])
    return _ASKED


def _catboost(folder: str) -> Any:
    import mlflow.catboost
    from catboost import CatBoostRegressor

    model = CatBoostRegressor(iterations=20, verbose=0, allow_writing_files=False)
    mlflow.catboost.save_model(model.fit(_TABLE, _TARGET), folder, pip_requirements=[])
    return _ASKED


def _statsmodels(folder: str) -> Any:
    import mlflow.statsmodels
    import statsmodels.api as sm

    model = sm.OLS(_TARGET, _TABLE).fit()
    mlflow.statsmodels.save_model(model, folder, pip_requirements=[])
    return _ASKED


def _pytorch(folder: str) -> Any:
    import mlflow.pytorch
    import torch

    torch.manual_seed(7)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256), torch.nn.Linear(256, 1)
    )
    example = _ROWS[:8].astype("f4")
    mlflow.pytorch.save_model(model.eval(), folder, input_example=example, pip_requirements=[])
    return example.tolist()


def _transformers(folder: str) -> Any:
    import mlflow.transformers
    import tokenizers
    import torch
    import transformers

    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "good", "bad", "day", "a"]
    vocabulary = {word: i for i, word in enumerate(words)}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "[UNK]"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="[UNK]", pad_token="[PAD]"
    )
    torch.manual_seed(7)
    settings = transformers.DistilBertConfig(
        vocab_size=len(words), dim=64, hidden_dim=128, n_heads=4, n_layers=2
    )
    model = transformers.DistilBertForSequenceClassification(settings).eval()
    pipeline = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    mlflow.transformers.save_model(pipeline, folder, pip_requirements=[])
    return {"text": ["a good day", "a bad day", "good", "bad bad bad"]}


def _keras_model() -> Any:
    import keras

    keras.utils.set_random_seed(7)
    layers = [keras.layers.Dense(256, "relu"), keras.layers.Dense(256), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((4,)), *layers])


def _keras(folder: str) -> Any:
    import mlflow.keras

    mlflow.keras.save_model(_keras_model(), folder, pip_requirements=[])
    return _ASKED


def _tensorflow(folder: str) -> Any:
    import mlflow.tensorflow

    mlflow.tensorflow.save_model(_keras_model(), folder, pip_requirements=[])
    return _ASKED


def _onnx(folder: str) -> Any:
    import mlflow.onnx
    import skl2onnx
    from sklearn.ensemble import RandomForestRegressor

    model = RandomForestRegressor(20, random_state=7).fit(_ROWS, _TARGET)
    inputs = [("x", skl2onnx.common.data_types.FloatTensorType([None, 4]))]
    made = skl2onnx.convert_sklearn(model, initial_types=inputs)
    mlflow.onnx.save_model(made, folder, pip_requirements=[])
    return _ASKED


def _prophet(folder: str) -> Any:
    import mlflow.prophet
    import prophet

    days = pd.date_range("2024-01-01", periods=len(_TARGET))
    model = prophet.Prophet(uncertainty_samples=0)
    model.fit(pd.DataFrame({"ds": days, "y": _TARGET}))
    mlflow.prophet.save_model(model, folder, pip_requirements=[])
    return {"ds": ["2025-01-01", "2025-01-02"]}


def _spacy(folder: str) -> Any:
    import mlflow.spacy
    import spacy

    model = spacy.blank("en")
    classes = model.add_pipe("textcat")
    for each in ("GOOD", "BAD"):
        classes.add_label(each)  # type: ignore[attr-defined]
    model.initialize()
    mlflow.spacy.save_model(model, folder, pip_requirements=[])
    return {"text": ["a good day", "a bad day"]}


PACKAGES = {
    "mlflow.sklearn": "sklearn",
    "mlflow.xgboost": "xgboost",
    "mlflow.lightgbm": "lightgbm",
    "mlflow.catboost": "catboost",
    "mlflow.statsmodels": "statsmodels",
    "mlflow.pytorch": "torch",
    "mlflow.transformers": "transformers",
    "mlflow.tensorflow": "tensorflow",
    "mlflow.keras": "keras",
    "mlflow.onnx": "onnxruntime",
    "mlflow.prophet": "prophet",
    "mlflow.spacy": "spacy",
}
"""Flavors, as a MLmodel file names their loader modules, and the package that each is for."""

_SAVE: dict[str, Callable[[str], Any]] = {
    flavor: globals()[flavor.replace("mlflow.", "_")] for flavor in PACKAGES
}


def save(flavor: str, folder: str) -> None:
    """Save the flavor's model, and its input beside it."""
    asked = _SAVE[flavor](folder)
    (Path(folder) / INPUT).write_text(json.dumps(asked))


def answer(folder: str) -> None:
    """Print what `mlflow.pyfunc` answers in this process."""
    import mlflow.pyfunc

    asked = json.loads((Path(folder) / INPUT).read_text())
    data = pd.DataFrame(asked) if isinstance(asked, dict) else np.array(asked, "f4")
    table = pd.DataFrame(mlflow.pyfunc.load_model(folder).predict(data))
    sys.stdout.write(json.dumps([table[name].tolist() for name in table], default=str))


if __name__ == "__main__":
    {"save": save, "answer": answer}[sys.argv[1]](*sys.argv[2:])
