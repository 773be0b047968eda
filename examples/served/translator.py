"""A sequence-to-sequence translator as an MLflow model, stored as this very file.

Its ``model_config``:

- ``lang_from``, ``lang_to``: language codes (``en``), or a language's English name as T5 wants it.
- ``input_label``: the name of the input column.
- ``hfhub_name`` (optional): a Hub model name such as ``google-t5/t5-small``, or a folder.
  Without it the weights come from the version's own artifacts.
"""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd
import torch
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

LANGUAGE_NAMES = {"de": "German", "en": "English", "fr": "French", "ro": "Romanian"}
MAX_NEW_TOKENS = 64


class Translator(PythonModel):
    """Column ``input_label`` of text in, column ``translation_text`` out, row for row."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load tokenizer and weights, once per process."""
        config: dict[str, Any] = context.model_config
        weights = config.get("hfhub_name") or context.artifacts["weights"]
        source, target = (
            LANGUAGE_NAMES.get(config[key], config[key]) for key in ("lang_from", "lang_to")
        )
        self.prefix = f"translate {source} to {target}: "
        self.input_label: str = config["input_label"]
        self.tokenizer = AutoTokenizer.from_pretrained(weights)
        self.model = AutoModelForSeq2SeqLM.from_pretrained(weights, dtype=torch.float32).eval()

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Translate all rows as one padded batch, greedily: the same text gives the same answer."""
        texts = [self.prefix + text for text in model_input[self.input_label]]
        if not texts:
            return pd.DataFrame({"translation_text": pd.Series(dtype=str)})
        batch = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            tokens = self.model.generate(
                **batch, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, num_beams=1
            )
        translations = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return pd.DataFrame({"translation_text": translations})


mlflow.models.set_model(Translator())
