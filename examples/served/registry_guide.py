"""An agent that answers from sentences that it was given, as an MLflow model, stored as this file.

It speaks MLflow's ResponsesAgent, which is OpenAI's Responses, and has no weights: of the sentences
in its ``model_config`` (``sentences``) it gives the one that has most words of the question.
"""

from __future__ import annotations

import re
from collections.abc import Generator

import mlflow
from mlflow.pyfunc.model import ResponsesAgent
from mlflow.types.responses import (
    ResponsesAgentRequest,
    ResponsesAgentResponse,
    ResponsesAgentStreamEvent,
)


class RegistryGuide(ResponsesAgent):
    """Answers the last message; streams word by word."""

    def __init__(self, sentences: list[str]) -> None:
        self._sentences = sentences

    def predict(  # type: ignore[override]  # agents have a signature of their own
        self, request: ResponsesAgentRequest
    ) -> ResponsesAgentResponse:
        """One message, with a whole sentence."""
        item = self.create_text_output_item(text=self._answer(request), id="answer")
        return ResponsesAgentResponse.model_validate({"output": [item]})

    def predict_stream(  # type: ignore[override]
        self, request: ResponsesAgentRequest
    ) -> Generator[ResponsesAgentStreamEvent, None, None]:
        """The same, a word at a time."""
        text = self._answer(request)
        for word in re.findall(r"\S+\s*", text):
            delta = self.create_text_delta(delta=word, item_id="answer")
            yield ResponsesAgentStreamEvent.model_validate(delta)
        item = self.create_text_output_item(text=text, id="answer")
        done = {"type": "response.output_item.done", "item": item}
        yield ResponsesAgentStreamEvent.model_validate(done)

    def _answer(self, request: ResponsesAgentRequest) -> str:
        asked = _words(str(request.input[-1].model_dump().get("content")))
        return max(self._sentences, key=lambda sentence: len(asked & _words(sentence)))


def _words(text: str) -> set[str]:
    """Those that say something: longer ones, without their endings."""
    return {word.rstrip("s")[:5] for word in re.findall(r"\w+", text.casefold()) if len(word) > 3}


config = mlflow.models.ModelConfig()
mlflow.models.set_model(RegistryGuide(config.get("sentences")))  # type: ignore[no-untyped-call]
