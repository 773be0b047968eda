"""An extractive question answerer as an MLflow model, stored as this very file.

Its ``model_config``:

- ``context``: the text in which the answers are found. What doesn't fit into the model's window
  beside the question is cut off at its end.
- ``hfhub_name`` (optional): a Hub model name such as
  ``distilbert/distilbert-base-cased-distilled-squad``, or a folder. Without it the weights come
  from the version's own artifacts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import mlflow
import pandas as pd
import torch
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

DEFAULT_MAX_ANSWER_LEN = 15


class Span(NamedTuple):
    """An answer: its probability, and the characters `start` to `end` of the context."""

    score: float
    start: int
    end: int
    answer: str


class QuestionAnswerer(PythonModel):
    """Column ``question`` in; ``score``, ``start``, ``end`` and ``answer`` out, row for row.

    ``start`` and ``end`` count characters: ``context[start:end]`` is the answer.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load tokenizer and weights, once per process."""
        config: dict[str, Any] = context.model_config
        weights = config.get("hfhub_name") or context.artifacts["weights"]
        self.text: str = config["context"]
        self.tokenizer = AutoTokenizer.from_pretrained(weights)
        self.model = AutoModelForQuestionAnswering.from_pretrained(
            weights, dtype=torch.float32
        ).eval()

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Answer all rows as one padded batch, with no more than `max_answer_len` tokens each."""
        longest = (params or {}).get("max_answer_len", DEFAULT_MAX_ANSWER_LEN)
        if longest < 1:
            raise ValueError("max_answer_len must be at least 1")
        questions = list(model_input["question"])
        spans = self._answer(questions, longest) if questions else []
        columns = {"score": "float64", "start": "int64", "end": "int64", "answer": "object"}
        return pd.DataFrame(spans, columns=list(columns)).astype(columns)

    def _answer(self, questions: list[str], longest: int) -> list[Span]:
        batch = self.tokenizer(
            questions,
            [self.text] * len(questions),
            padding=True,
            truncation="only_second",
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        offsets = batch.pop("offset_mapping")
        with torch.inference_mode():
            output = self.model(**batch)
        return [
            self._best_span(
                output.start_logits[row], output.end_logits[row], offsets[row], inside, longest
            )
            for row, inside in enumerate(self._tokens_of_context(batch, len(questions)))
        ]

    @staticmethod
    def _tokens_of_context(batch: Any, rows: int) -> list[torch.Tensor]:
        return [
            torch.tensor([part == 1 for part in batch.sequence_ids(row)]) for row in range(rows)
        ]

    def _best_span(
        self,
        start_logits: torch.Tensor,
        end_logits: torch.Tensor,
        offsets: torch.Tensor,
        inside: torch.Tensor,
        longest: int,
    ) -> Span:
        """The likeliest pair of a start and an end that lies in the context and is short enough."""
        impossible = float("-inf")
        starts = start_logits.masked_fill(~inside, impossible).softmax(-1)
        ends = end_logits.masked_fill(~inside, impossible).softmax(-1)
        # Entry (i, j) is the span of tokens i to j; a band above the diagonal holds the short ones.
        spans = torch.outer(starts, ends).triu().tril(longest - 1)
        first, last = divmod(int(spans.argmax()), len(starts))
        start, end = int(offsets[first, 0]), int(offsets[last, 1])
        return Span(float(spans[first, last]), start, end, self.text[start:end])


mlflow.models.set_model(QuestionAnswerer())
