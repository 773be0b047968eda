"""The flavors of the suite: what each needs beside MLflow, and where it is tried."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flavor:
    """A model of `tests.support.flavor_models` and the packages of its environment.

    One that is `cheap` is tried by `make test`, all are by `make flavors`. `near` are packages of
    the gateway's own environment where it has them: then nothing is built.
    """

    name: str
    requirements: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    cheap: bool = False

    @property
    def loader(self) -> str:
        """The flavor's loader module, as an MLmodel file names it."""
        return self.name.partition(" ")[0]


_TORCH = ("torch>=2.13,<2.14", "transformers>=5,<6", "tokenizers")
_NEAR = ("torch", "transformers")

FLAVORS = (
    Flavor("mlflow.sklearn", ("scikit-learn", "skops"), ("sklearn", "skops"), cheap=True),
    Flavor("mlflow.xgboost", ("xgboost", "scikit-learn")),
    Flavor("mlflow.lightgbm", ("lightgbm",)),
    Flavor("mlflow.catboost", ("catboost",)),
    Flavor("mlflow.h2o", ("h2o",)),
    Flavor("mlflow.spark", ("pyspark", "setuptools")),
    Flavor("mlflow.pytorch", _TORCH[:1], _NEAR[:1]),
    Flavor("mlflow.tensorflow", ("tensorflow-cpu",)),
    Flavor("mlflow.keras", ("keras", "tensorflow-cpu")),
    Flavor("mlflow.paddle", ("paddlepaddle", "setuptools")),
    Flavor("mlflow.onnx", ("onnx", "onnxruntime", "skl2onnx", "scikit-learn")),
    Flavor("mlflow.transformers", _TORCH, _NEAR),
    Flavor("mlflow.transformers zero-shot-classification", _TORCH, _NEAR, cheap=True),
    Flavor("mlflow.transformers feature-extraction", _TORCH, _NEAR),
    Flavor("mlflow.transformers llm/v1/embeddings", _TORCH, _NEAR),
    Flavor("mlflow.transformers image-classification", (*_TORCH, "pillow"), (*_NEAR, "PIL")),
    Flavor("mlflow.sentence_transformers", (*_TORCH, "sentence-transformers")),
    Flavor("mlflow.sentence_transformers llm/v1/embeddings", (*_TORCH, "sentence-transformers")),
    Flavor("mlflow.spacy", ("spacy",)),
    Flavor("mlflow.pyfunc.model", (), ("mlflow",)),
    Flavor("mlflow.pyfunc.loaders.code_model", (), ("mlflow",), cheap=True),
    Flavor("mlflow.prophet", ("prophet",)),
    Flavor("mlflow.pmdarima", ("pmdarima",)),
    Flavor("mlflow.statsmodels", ("statsmodels",)),
    Flavor("mlflow.statsmodels forecast", ("statsmodels",)),
    Flavor("mlflow.langchain", ("langchain", "langchain-community")),
    Flavor("mlflow.langchain LangGraph", ("langchain", "langchain-community", "langgraph")),
    Flavor("mlflow.dspy", ("dspy",)),
    Flavor("mlflow.dspy llm/v1/chat", ("dspy",)),
    Flavor("mlflow.openai", ("openai", "tiktoken"), ("openai",)),
    Flavor("mlflow.openai embeddings", ("openai", "tiktoken"), ("openai",)),
)
"""All that docs/5-performance.md names, but for those that docs/13-flavors.md tells why not."""
