"""Agents as teams write them: MLflow's three agent classes, and models that stream."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import mlflow
from mlflow.models import ModelSignature
from mlflow.pyfunc import ChatAgent, ChatModel, PythonModel, ResponsesAgent
from mlflow.types.agent import ChatAgentChunk, ChatAgentMessage, ChatAgentResponse
from mlflow.types.llm import (
    ChatChoice,
    ChatChoiceDelta,
    ChatChunkChoice,
    ChatCompletionChunk,
    ChatCompletionResponse,
    ChatMessage,
)
from mlflow.types.responses import (
    ResponsesAgentRequest,
    ResponsesAgentResponse,
    ResponsesAgentStreamEvent,
)

from tests.support.registering import client, columns, log

WORDS = ("one ", "two ", "three")


class EchoChat(ChatModel):
    """Answers with the params that it was given, and streams `WORDS`."""

    def predict(self, context: Any, messages: Any, params: Any) -> ChatCompletionResponse:
        given = {key: value for key, value in vars(params).items() if value is not None}
        given.pop("tools", None)
        told = ChatMessage(role="assistant", content=f"{messages[-1].content}: {given}")
        return ChatCompletionResponse(choices=[ChatChoice(message=told)], custom_outputs={"a": 1})

    def predict_stream(
        self, context: Any, messages: Any, params: Any
    ) -> Iterator[ChatCompletionChunk]:
        for word in WORDS:
            delta = ChatChoiceDelta(role="assistant", content=word)
            yield ChatCompletionChunk(choices=[ChatChunkChoice(delta=delta)])


class EchoAgent(ChatAgent):
    """Answers with what it was asked, and streams `WORDS`."""

    def predict(self, messages: Any, context: Any = None, custom_inputs: Any = None) -> Any:
        told = f"{messages[-1].content} {context} {custom_inputs}"
        answer = ChatAgentMessage(role="assistant", content=told, id="m-1")
        return ChatAgentResponse(messages=[answer])

    def predict_stream(self, messages: Any, context: Any = None, custom_inputs: Any = None) -> Any:
        for word in WORDS:
            delta = ChatAgentMessage(role="assistant", content=word, id="m-1")
            yield ChatAgentChunk(delta=delta)


class EchoResponses(ResponsesAgent):
    """Answers with all that it was sent, and streams `WORDS` as MLflow's documentation does."""

    def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        told = str(request.model_dump(exclude_none=True))
        item = self.create_text_output_item(text=told, id="m-1")
        return ResponsesAgentResponse(output=[item])

    def predict_stream(self, request: ResponsesAgentRequest) -> Iterator[ResponsesAgentStreamEvent]:
        for word in WORDS:
            yield ResponsesAgentStreamEvent(**self.create_text_delta(delta=word, item_id="m-1"))
        item = self.create_text_output_item(text="".join(WORDS), id="m-1")
        yield ResponsesAgentStreamEvent(type="response.output_item.done", item=item)


class WholeChat(ChatModel):
    """Can't stream, though MLflow notes that it can."""

    def predict(self, context: Any, messages: Any, params: Any) -> ChatCompletionResponse:
        told = ChatMessage(role="assistant", content="all at once")
        return ChatCompletionResponse(choices=[ChatChoice(message=told)])


class SlowChat(ChatModel):
    """Takes a moment, and says how many calls went on beside each other at most."""

    def __getstate__(self) -> dict[str, Any]:
        """MLflow loads and asks it before it is pickled."""
        return {}

    def load_context(self, context: Any) -> None:
        self._lock, self._going_on, self._most = threading.Lock(), 0, 0
        self._main = threading.current_thread() is threading.main_thread()

    def predict(self, context: Any, messages: Any, params: Any) -> ChatCompletionResponse:
        if messages[-1].content == "hang":
            time.sleep(3600)
        with self._lock:
            self._going_on += 1
            self._most = max(self._most, self._going_on)
        time.sleep(0.3)
        with self._lock:
            self._going_on -= 1
        told = ChatMessage(role="assistant", content=f"{self._most} {self._main}")
        return ChatCompletionResponse(choices=[ChatChoice(message=told)])


class Ticker(PythonModel):
    """Streams as its input says: `count` ticks, `pause_s` between them, `fails_at` one of them. In
    `log` it writes what becomes of it."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return ["whole"] * len(model_input)

    def predict_stream(self, context: Any, model_input: Any, params: Any = None) -> Any:
        log = Path(model_input["log"])
        try:
            for tick in range(int(model_input["count"])):
                if tick == int(model_input["fails_at"]):
                    raise RuntimeError("secret internal text")
                with log.open("a") as file:
                    file.write(f"{tick}\n")
                yield {"tick": tick, "nan": float("nan")}
                time.sleep(float(model_input["pause_s"]))
        except GeneratorExit:
            with log.open("a") as file:
                file.write("closed\n")
            raise


AGENTS = {
    "chat": EchoChat,
    "chat agent": EchoAgent,
    "responses": EchoResponses,
    "whole": WholeChat,
    "slow": SlowChat,
}


def register_agents(uri: str, folder: Path, names: Collection[str] = AGENTS.keys()) -> None:
    """Log and register some of `AGENTS`, and the ticker, in the registry at `uri`, their artifacts
    in `folder`."""
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    mlflow.create_experiment("agents", artifact_location=str(folder / "artifacts"))
    mlflow.set_experiment("agents")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow says of ChatModel that it is old
        for name in names:
            log(uri, name, AGENTS[name]())
    if "slow" in names:
        client(uri).set_registered_model_tag("slow", "modelmux.concurrency", "4")
        client(uri).set_registered_model_tag("slow", "modelmux.timeout_s", "4")
    register_ticker(uri, "ticker")
    mlflow.set_experiment(experiment_id="0")  # the one that other tests' servers have


def register_ticker(uri: str, name: str) -> None:
    """Log and register a `Ticker`, whose deadline is short."""
    inputs = columns(
        ("log", "string"), ("count", "long"), ("pause_s", "double"), ("fails_at", "long")
    )
    log(uri, name, Ticker(), signature=ModelSignature(inputs))
    client(uri).set_registered_model_tag(name, "modelmux.timeout_s", "2")
