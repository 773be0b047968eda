"""Agents whose requests MLflow's own classes refuse: told as a refusal, with the place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.pyfunc import ChatAgent, ChatModel, PythonModel, ResponsesAgent
from mlflow.types.agent import ChatAgentMessage, ChatAgentResponse
from mlflow.types.llm import ChatChoice, ChatCompletionResponse, ChatMessage
from mlflow.types.responses import ResponsesAgentResponse

from gateway.errors import InvalidInput, ModelFailed
from tests.support.saved_models import SavedModel

# What MLflow says of its own classes is no fault of these agents.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

FAIL = "fail"


def _checked(said: Any) -> None:
    if said == FAIL:
        raise ValueError(said)


class Chat(ChatModel):  # type: ignore[misc]
    def predict(self, context: Any, messages: Any, params: Any) -> Any:
        _checked(messages[0].content)
        answer = ChatMessage(role="assistant", content="Hello")
        return ChatCompletionResponse(choices=[ChatChoice(message=answer)])


class Agent(ChatAgent):  # type: ignore[misc]
    def predict(self, messages: Any, context: Any = None, custom_inputs: Any = None) -> Any:
        _checked(messages[0].content)
        answer = ChatAgentMessage(role="assistant", content="Hello", id="1")
        return ChatAgentResponse(messages=[answer])


class Responses(ResponsesAgent):  # type: ignore[misc]
    def predict(self, request: Any) -> Any:
        _checked(request.input[0].content)
        return ResponsesAgentResponse(output=[])


def _saved(model: PythonModel, folder: Path) -> SavedModel:
    mlflow.pyfunc.save_model(path=str(folder), python_model=model, pip_requirements=[])
    return SavedModel(folder)


@pytest.mark.parametrize(
    ("agent", "body", "places"),
    [
        (Chat, {"messages": [{"role": "user"}]}, {"/messages/0"}),
        (Agent, [{"messages": [{"role": "user"}]}], {"/0/messages/0"}),
        (Responses, {"input": [{"role": "user"}]}, {"/input/0/content", "/input/0/type"}),
        (Responses, {"input": [{"role": "user", "content": "Hi"}], "tools": [{"type": "function"}]},
         {"/tools/0/name", "/tools/0/parameters"}),
    ],
)  # fmt: skip
def test_what_mlflow_s_classes_refuse_is_told_by_its_place(
    tmp_path: Path, agent: Any, body: Any, places: set[str]
) -> None:
    """What the signature leaves open and MLflow's loader doesn't take is no failure of the
    model's."""
    with pytest.raises(InvalidInput) as refused:
        _saved(agent(), tmp_path / "model").answer(body)
    assert {each.pointer for each in refused.value.violations} == places


@pytest.mark.parametrize(
    ("agent", "of"), [(Chat, "messages"), (Agent, "messages"), (Responses, "input")]
)
def test_what_fails_on_a_good_request_is_the_model(tmp_path: Path, agent: Any, of: str) -> None:
    """A request that MLflow's classes take isn't blamed for what the agent's code raises."""
    model = _saved(agent(), tmp_path / "model")
    with pytest.raises(ModelFailed):
        model.answer({of: [{"role": "user", "content": FAIL}]})
