"""A small model of each of MLflow's flavors, saved and asked in whatever interpreter has its
packages: `PYTHON flavor_models.py save FLAVOR FOLDER` and `… answer FOLDER`.

Run by its path, so it imports nothing of ours. Beside each model lies `input.json`, what it is
asked: a table's columns by their names, or the rows of an array of 32-bit floats. `answer` prints
what a fresh process answers, as JSON: the answer's columns; `predictions` the same as MLflow's own
server has it.
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
_EXAMPLE = _TABLE.head(2)
_ARRAY = _ROWS[:8].astype("f4")
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
        input_example=_EXAMPLE,
        pip_requirements=[],
        skops_trusted_types=["sklearn.tree._tree.Tree"],
    )
    return _ASKED


def _xgboost(folder: str) -> Any:
    import mlflow.xgboost
    from xgboost import XGBRegressor

    model = XGBRegressor(n_estimators=20).fit(_TABLE, _TARGET)
    mlflow.xgboost.save_model(model, folder, input_example=_EXAMPLE, pip_requirements=[])
    return _ASKED


def _lightgbm(folder: str) -> Any:
    import lightgbm
    import mlflow.lightgbm

    data = lightgbm.Dataset(_TABLE, _TARGET)
    model = lightgbm.train({"verbose": -1, "objective": "regression"}, data, 20)
    mlflow.lightgbm.save_model(model, folder, input_example=_EXAMPLE, pip_requirements=[])
    return _ASKED


def _catboost(folder: str) -> Any:
    import mlflow.catboost
    from catboost import CatBoostRegressor

    model = CatBoostRegressor(iterations=20, verbose=0, allow_writing_files=False)
    mlflow.catboost.save_model(
        model.fit(_TABLE, _TARGET), folder, input_example=_EXAMPLE, pip_requirements=[]
    )
    return _ASKED


def _statsmodels(folder: str) -> Any:
    import mlflow.statsmodels
    import statsmodels.api as sm

    model = sm.OLS(_TARGET, _TABLE).fit()
    mlflow.statsmodels.save_model(model, folder, input_example=_EXAMPLE, pip_requirements=[])
    return _ASKED


def _pytorch(folder: str) -> Any:
    import mlflow.pytorch
    import torch

    torch.manual_seed(7)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256), torch.nn.Linear(256, 1)
    )
    mlflow.pytorch.save_model(model.eval(), folder, input_example=_ARRAY, pip_requirements=[])
    return _ARRAY.tolist()


def _tokenizer() -> Any:
    import tokenizers
    import transformers

    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "good", "bad", "day", "a"]
    vocabulary = {word: i for i, word in enumerate(words)}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "[UNK]"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


def _pipeline(task: str, kind: str, **settings: Any) -> Any:
    import torch
    import transformers

    torch.manual_seed(7)
    made = transformers.DistilBertConfig(
        vocab_size=8, dim=64, hidden_dim=128, n_heads=4, n_layers=2, **settings
    )
    model = getattr(transformers, kind)(made).eval()
    return transformers.pipeline(task, model=model, tokenizer=_tokenizer())


def _transformers(folder: str) -> Any:
    import mlflow.transformers

    pipeline = _pipeline("text-classification", "DistilBertForSequenceClassification")
    mlflow.transformers.save_model(pipeline, folder, pip_requirements=[])
    return {"text": ["a good day", "a bad day", "good", "bad bad bad"]}


def _zero_shot(folder: str) -> Any:
    import mlflow.transformers

    names = ["entailment", "neutral", "contradiction"]
    pipeline = _pipeline(
        "zero-shot-classification",
        "DistilBertForSequenceClassification",
        num_labels=3,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    mlflow.transformers.save_model(pipeline, folder, pip_requirements=[])
    return {
        "sequences": ["a good day"],
        "candidate_labels": [["good", "bad", "day"]],
        "hypothesis_template": ["a {} day"],
    }


def _features(folder: str) -> Any:
    import mlflow.transformers

    pipeline = _pipeline("feature-extraction", "DistilBertModel")
    mlflow.transformers.save_model(pipeline, folder, pip_requirements=[])
    return {"text": ["a good day"]}


def _embeddings(folder: str) -> Any:
    import mlflow.transformers

    pipeline = _pipeline("feature-extraction", "DistilBertModel")
    mlflow.transformers.save_model(pipeline, folder, task="llm/v1/embeddings", pip_requirements=[])
    return {"input": [["a good day", "bad"]]}


def _sentence_transformers(folder: str) -> Any:
    import mlflow.sentence_transformers

    mlflow.sentence_transformers.save_model(_sentence_model(folder), folder, pip_requirements=[])
    return {"text": ["a good day", "bad"]}


def _sentence_embeddings(folder: str) -> Any:
    import mlflow.sentence_transformers

    mlflow.sentence_transformers.save_model(
        _sentence_model(folder), folder, task="llm/v1/embeddings", pip_requirements=[]
    )
    return {"input": [["a good day", "bad"]]}


def _sentence_model(folder: str) -> Any:
    from sentence_transformers import SentenceTransformer, models

    pipeline = _pipeline("feature-extraction", "DistilBertModel")
    raw = f"{folder}-raw"
    pipeline.save_pretrained(raw)
    words = models.Transformer(raw)
    return SentenceTransformer(modules=[words, models.Pooling(64)], device="cpu")


def _images(folder: str) -> Any:
    import base64
    import io

    import mlflow.transformers
    import torch
    import transformers
    from PIL import Image

    torch.manual_seed(7)
    made = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=37,
        image_size=30, patch_size=15, num_labels=3,
    )  # fmt: skip
    pipeline = transformers.pipeline(
        "image-classification",
        model=transformers.ViTForImageClassification(made).eval(),
        image_processor=transformers.ViTImageProcessor(size={"height": 30, "width": 30}),
    )
    mlflow.transformers.save_model(pipeline, folder, pip_requirements=[])
    texts = []
    for color in ("red", "blue"):
        file = io.BytesIO()
        Image.new("RGB", (30, 30), color).save(file, "PNG")
        texts.append(base64.b64encode(file.getvalue()).decode())
    return {"image": texts}


def _openai(folder: str) -> Any:
    import mlflow.openai
    import openai

    mlflow.openai.save_model(
        "any",
        openai.chat.completions,
        folder,
        messages=[{"role": "user", "content": "Say {word} in {language}"}],
        pip_requirements=[],
    )
    return {"word": ["day", "night"], "language": ["German", "French"]}


def _openai_embeddings(folder: str) -> Any:
    import mlflow.openai
    import openai

    mlflow.openai.save_model("any", openai.embeddings, folder, pip_requirements=[])
    return {"text": ["a good day", "bad"]}


def _arima(folder: str) -> Any:
    import mlflow.statsmodels
    from mlflow.models import infer_signature
    from statsmodels.tsa.arima.model import ARIMA

    model = ARIMA(_TARGET[:60], order=(1, 0, 0)).fit()
    asked = {"start": [60], "end": [64]}
    signature = infer_signature(pd.DataFrame(asked), model.predict(start=60, end=64))
    mlflow.statsmodels.save_model(model, folder, signature=signature, pip_requirements=[])
    return asked


def _pmdarima(folder: str) -> Any:
    import mlflow.pmdarima
    import pmdarima
    from mlflow.models import infer_signature

    model = pmdarima.ARIMA(order=(1, 0, 0)).fit(_TARGET[:60])
    asked = {"n_periods": [5]}
    forecast = pd.DataFrame({"yhat": model.predict(n_periods=5)})
    signature = infer_signature(pd.DataFrame(asked), forecast)
    mlflow.pmdarima.save_model(model, folder, signature=signature, pip_requirements=[])
    return asked


def _h2o(folder: str) -> Any:
    import h2o
    import mlflow.h2o
    from h2o.estimators import H2OGeneralizedLinearEstimator
    from mlflow.models import infer_signature

    h2o.init(max_mem_size="512m", port=54621, bind_to_localhost=True)
    frame = h2o.H2OFrame(_TABLE.assign(y=_TARGET))
    model = H2OGeneralizedLinearEstimator(seed=7)
    model.train(x=list(_NAMES), y="y", training_frame=frame)
    signature = infer_signature(_TABLE)
    mlflow.h2o.save_model(model, folder, signature=signature, pip_requirements=[])
    h2o.cluster().shutdown()
    return _ASKED


def _spark(folder: str) -> Any:
    import mlflow.spark
    from mlflow.models import infer_signature
    from pyspark.ml import Pipeline
    from pyspark.ml.feature import VectorAssembler
    from pyspark.ml.regression import LinearRegression
    from pyspark.sql import SparkSession

    session = SparkSession.builder.master("local[1]").getOrCreate()
    table = session.createDataFrame(_TABLE.assign(label=_TARGET))
    steps = [VectorAssembler(inputCols=list(_NAMES), outputCol="features"), LinearRegression()]
    model = Pipeline(stages=steps).fit(table)
    signature = infer_signature(_TABLE)
    mlflow.spark.save_model(model, folder, signature=signature, pip_requirements=[])
    session.stop()
    return _ASKED


def _paddle(folder: str) -> Any:
    import mlflow.paddle
    import paddle

    paddle.seed(7)
    model = paddle.nn.Linear(4, 1)
    static = paddle.jit.to_static(
        model, input_spec=[paddle.static.InputSpec([None, 4], "float32", "x")]
    )
    mlflow.paddle.save_model(static, folder, input_example=_ARRAY, pip_requirements=[])
    return _ARRAY.tolist()


_GRAPH = """
from typing import TypedDict

from langchain_core.messages import AIMessage
from langgraph.graph import END, START, StateGraph
from mlflow.models import set_model


class State(TypedDict):
    messages: list


def answered(state):
    return {"messages": [AIMessage("Hello there", id="m-1")]}


graph = StateGraph(State)
graph.add_node("model", answered)
graph.add_edge(START, "model")
graph.add_edge("model", END)
set_model(graph.compile())
"""


def _langgraph(folder: str) -> Any:
    import mlflow.langchain

    code = Path(f"{folder}-graph.py")
    code.write_text(_GRAPH)
    example = {"messages": [{"role": "user", "content": "Hi"}]}
    mlflow.langchain.save_model(str(code), folder, input_example=example, pip_requirements=[])
    return {"messages": [example["messages"]]}


def _dspy(folder: str) -> Any:
    import dspy
    import mlflow.dspy

    class Answering(dspy.Module):  # type: ignore[misc]
        def forward(self, question: str) -> Any:
            return dspy.Prediction(answer=f"You asked: {question}", sources=["a", "b"])

    example = {"question": "Why?"}
    mlflow.dspy.save_model(Answering(), folder, input_example=example, pip_requirements=[])
    return {"question": ["Why?"]}


def _dspy_chat(folder: str) -> Any:
    import dspy
    import mlflow.dspy

    class Chatting(dspy.Module):  # type: ignore[misc]
        def forward(self, messages: Any) -> Any:
            return dspy.Prediction(answer="You said: " + messages[-1]["content"])

    mlflow.dspy.save_model(Chatting(), folder, task="llm/v1/chat", pip_requirements=[])
    return {"messages": [[{"role": "user", "content": "Hi"}]]}


_CHAIN = """
from langchain_core.runnables import RunnableLambda
from mlflow.models import set_model

set_model(RunnableLambda(lambda asked: "You asked: " + asked["question"]))
"""


def _langchain(folder: str) -> Any:
    import mlflow.langchain

    code = Path(f"{folder}-chain.py")
    code.write_text(_CHAIN)
    example = {"question": "Why?"}
    mlflow.langchain.save_model(str(code), folder, input_example=example, pip_requirements=[])
    return {"question": ["Why?"]}


def _python_model(folder: str) -> Any:
    import mlflow.pyfunc

    class Sum(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return model_input.sum(axis=1)

    from mlflow.models import infer_signature

    signature = infer_signature(_TABLE, _TABLE.sum(axis=1))
    mlflow.pyfunc.save_model(folder, python_model=Sum(), signature=signature, pip_requirements=[])
    return _ASKED


_CHUNKER = """
import mlflow
from mlflow.pyfunc import PythonModel


class Chunker(PythonModel):
    def predict(self, model_input: list[str]) -> list[str]:
        return [word for text in model_input for word in text.split()]


mlflow.models.set_model(Chunker())
"""


def _chunker(folder: str) -> Any:
    import mlflow.pyfunc

    code = Path(f"{folder}-chunker.py")
    code.write_text(_CHUNKER)
    mlflow.pyfunc.save_model(folder, python_model=str(code), pip_requirements=[])
    return {"text": ["one text of five words"]}


def _keras_model() -> Any:
    import keras

    keras.utils.set_random_seed(7)
    layers = [keras.layers.Dense(256, "relu"), keras.layers.Dense(256), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((4,)), *layers])


def _keras(folder: str) -> Any:
    import mlflow.keras
    from mlflow.models import infer_signature

    model = _keras_model()
    # No example: MLflow 3.17 writes it into the folder before it makes that.
    signature = infer_signature(_ARRAY, model.predict(_ARRAY, verbose=0))
    mlflow.keras.save_model(model, folder, signature=signature, pip_requirements=[])
    return _ARRAY.tolist()


def _tensorflow(folder: str) -> Any:
    import mlflow.tensorflow

    mlflow.tensorflow.save_model(_keras_model(), folder, input_example=_ARRAY, pip_requirements=[])
    return _ARRAY.tolist()


def _onnx(folder: str) -> Any:
    import mlflow.onnx
    import onnxruntime
    import skl2onnx
    from mlflow.models import infer_signature
    from sklearn.ensemble import RandomForestRegressor

    model = RandomForestRegressor(20, random_state=7).fit(_ROWS, _TARGET)
    inputs = [("x", skl2onnx.common.data_types.FloatTensorType([None, 4]))]
    made = skl2onnx.convert_sklearn(model, initial_types=inputs)
    session = onnxruntime.InferenceSession(made.SerializeToString())
    answer = {"variable": session.run(None, {"x": _ARRAY})[0]}
    signature = infer_signature(_ARRAY, answer)  # as `log_model` does it of an input example
    mlflow.onnx.save_model(made, folder, signature=signature, pip_requirements=[])
    return _ARRAY.tolist()


def _prophet(folder: str) -> Any:
    import mlflow.prophet
    import prophet

    days = pd.date_range("2024-01-01", periods=len(_TARGET))
    model = prophet.Prophet(uncertainty_samples=0)
    model.fit(pd.DataFrame({"ds": days, "y": _TARGET}))
    asked = pd.DataFrame({"ds": pd.to_datetime(["2025-01-01", "2025-01-02"])})
    mlflow.prophet.save_model(model, folder, input_example=asked, pip_requirements=[])
    return {"ds": ["2025-01-01", "2025-01-02"]}


def _spacy(folder: str) -> Any:
    import mlflow.spacy
    import spacy

    model = spacy.blank("en")
    classes = model.add_pipe("textcat")
    for each in ("GOOD", "BAD"):
        classes.add_label(each)  # type: ignore[attr-defined]
    model.initialize()
    example = pd.DataFrame({"text": ["a good day"]})
    mlflow.spacy.save_model(model, folder, input_example=example, pip_requirements=[])
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
    **{flavor: globals()[flavor.replace("mlflow.", "_")] for flavor in PACKAGES},
    "mlflow.transformers zero-shot-classification": _zero_shot,
    "mlflow.transformers feature-extraction": _features,
    "mlflow.transformers llm/v1/embeddings": _embeddings,
    "mlflow.sentence_transformers": _sentence_transformers,
    "mlflow.sentence_transformers llm/v1/embeddings": _sentence_embeddings,
    "mlflow.transformers image-classification": _images,
    "mlflow.openai": _openai,
    "mlflow.openai embeddings": _openai_embeddings,
    "mlflow.statsmodels forecast": _arima,
    "mlflow.pmdarima": _pmdarima,
    "mlflow.h2o": _h2o,
    "mlflow.spark": _spark,
    "mlflow.paddle": _paddle,
    "mlflow.langchain": _langchain,
    "mlflow.langchain LangGraph": _langgraph,
    "mlflow.dspy": _dspy,
    "mlflow.dspy llm/v1/chat": _dspy_chat,
    "mlflow.pyfunc.model": _python_model,
    "mlflow.pyfunc.loaders.code_model": _chunker,
}


def save(flavor: str, folder: str, *then: str) -> None:
    """Save the flavor's model, and its input beside it; `then` print its answer."""
    asked = _SAVE[flavor](folder)
    (Path(folder) / INPUT).write_text(json.dumps(asked))
    for each in then:
        _COMMANDS[each](folder)


def _answer(folder: str) -> Any:
    import mlflow.pyfunc

    asked = json.loads((Path(folder) / INPUT).read_text())
    model = mlflow.pyfunc.load_model(folder)
    if not isinstance(asked, dict):
        return model.predict(np.array(asked, "f4"))
    if model.metadata._is_signature_from_type_hint():
        return model.predict(next(iter(asked.values())))
    return model.predict(_typed(pd.DataFrame(asked), model.metadata.get_input_schema()))


def _typed(table: Any, schema: Any) -> Any:
    """The table with dates that are dates, as the server makes them."""
    dates = [c.name for c in schema or () if str(c.type) == "DataType.datetime" and c.name in table]
    return table.assign(**{name: pd.to_datetime(table[name]) for name in dates})


def answer(folder: str) -> None:
    """Print what `mlflow.pyfunc` answers in this process, by column."""
    table = pd.DataFrame(_answer(folder))
    sys.stdout.write(json.dumps([table[name].tolist() for name in table], default=str) + "\n")


def predictions(folder: str) -> None:
    """Print what `mlflow.pyfunc` answers in this process, as MLflow's own server writes it."""
    from mlflow.pyfunc.scoring_server import predictions_to_json

    predictions_to_json(_answer(folder), sys.stdout)
    sys.stdout.write("\n")  # H2O has a last word


_COMMANDS: dict[str, Callable[..., None]] = {
    "save": save,
    "answer": answer,
    "predictions": predictions,
}

if __name__ == "__main__":
    _COMMANDS[sys.argv[1]](*sys.argv[2:])
