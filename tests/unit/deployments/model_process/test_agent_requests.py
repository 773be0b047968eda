"""What agents are asked and MLflow's own classes refuse, with the place."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.model_process.hinted import AgentRequest

CHAT, AGENT, RESPONSES = (
    AgentRequest(f"mlflow.pyfunc.loaders.{name}")
    for name in ("chat_model", "chat_agent", "responses_agent")
)
SAID = {"role": "user", "content": "Hi"}


def _tool(kind: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"x": {"type": kind}}}
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


@pytest.mark.parametrize(
    ("agent", "request_", "places"),
    [
        (CHAT, {"messages": [SAID, {"role": "user"}]}, [["messages", 1]]),
        (CHAT, {"messages": [SAID], "tools": [_tool("string"), _tool("text")]}, [["tools", 1]]),
        (CHAT, {"messages": [SAID], "n": "two", "stop": ["a", 1]}, [["n"], ["stop", 1]]),
        (AGENT, {"messages": [SAID, {"role": "user"}]}, [["messages", 1]]),
        (AGENT, {"messages": [SAID], "context": {"user_id": [1]}}, [["context", "user_id"]]),
        (AGENT, {"messages": [{"content": "Hi"}]}, [["messages", 0, "role"]]),
        (RESPONSES, {"input": [{"role": "user"}]}, [["input", 0, "content"], ["input", 0, "type"]]),
        (RESPONSES, {"input": [SAID], "tools": [{"type": "function"}]},
         [["tools", 0, "name"], ["tools", 0, "parameters"]]),
    ],
)  # fmt: skip
def test_what_mlflow_s_classes_refuse_has_its_place(
    agent: AgentRequest, request_: dict[str, Any], places: list[Any]
) -> None:
    """Within the request, without the names of pydantic's branches."""
    good = {"input" if agent is RESPONSES else "messages": [SAID]}
    refusals = agent.refusals([good, request_])
    assert [(row, path) for row, path, _ in refusals] == [(1, place) for place in places]


@pytest.mark.parametrize("agent", [CHAT, AGENT, RESPONSES])
def test_a_good_request_is_not_refused(agent: AgentRequest) -> None:
    """So that what the agent's own code raises on it is told as the agent's failure."""
    said: dict[str, Any] = {"input" if agent is RESPONSES else "messages": [SAID]}
    if agent is not RESPONSES:
        said |= {"tools": [_tool("string")], "context": {"user_id": "u"}, "unknown": 1}
    assert agent.refusals([said]) == []
