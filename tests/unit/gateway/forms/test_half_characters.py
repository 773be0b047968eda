"""What a model answers with half a character, which no form of an answer can say."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
from mlflow.types import ColSpec, DataType
from mlflow.types.schema import AnyType

from gateway.contract import Output
from gateway.contract.answer_text import dumped
from gateway.errors import InvalidModelOutput
from gateway.ports import Call, CallResult
from tests.support.echo_gateway import Echo, EchoGateway, signature

INPUTS = [ColSpec(DataType.string, "t")]
OUTPUTS = {
    "texts": [ColSpec(DataType.string, "o")],
    "one": [ColSpec(DataType.string)],
    "anything": [ColSpec(AnyType(), "o")],
    "undeclared": [],
}
JSON = {"Content-Type": "application/json"}
REQUESTS = {
    "predict": ("/models/m/predict", {}),
    "invocations": ("/models/m/invocations", {}),
    "v2": ("/v2/models/m/infer", {}),
    "csv": ("/models/m/predict", {"Accept": "text/csv"}),
    "arrow": ("/models/m/predict", {"Accept": "application/vnd.apache.arrow.stream"}),
    "parquet": ("/models/m/predict", {"Accept": "application/vnd.apache.parquet"}),
    "columns": ("/models/m/predict", {"Accept": "application/vnd.modelmux-columns+json"}),
    "binary": ("/v2/models/m/infer", {}),
}
TENSOR = {"name": "t", "datatype": "BYTES", "shape": [1], "data": ["s"]}


async def _half(_: Echo, call: Call) -> CallResult:
    """Answers each row with half a character."""
    output: Output = ("columns", ["o"], [["\ud800x"] * call.frame.rows])
    return CallResult(output=output)


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("asked", REQUESTS)
async def test_half_a_character_is_told_in_every_form(
    asked: str, outputs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The problem is the model's answer, and says what is wrong with it; never the gateway's fault,
    and no advice to ask for another form."""
    monkeypatch.setattr(Echo, "call", _half)
    gateway = EchoGateway(signature(INPUTS, OUTPUTS[outputs]))
    path, headers = REQUESTS[asked]
    bodies = {
        "invocations": {"dataframe_records": [{"t": "s"}]},
        "v2": {"inputs": [TENSOR]},
        "binary": {"inputs": [TENSOR], "parameters": {"binary_data_output": True}},
    }
    async with gateway.client() as client:
        response: httpx.Response = await client.post(
            path, json=bodies.get(asked, {"t": "s"}), headers={**JSON, **headers}
        )
    problem = response.json()
    assert problem["code"] == "invalid_model_output", problem
    assert "half a character" in problem["detail"]


@pytest.mark.parametrize(
    "value",
    ["\udc00", ["a", {"b": ["\ud800"]}], {"\ud800": 1}, [np.array(["\ud800"], object)]],
    ids=("text", "within", "name", "array"),
)
def test_the_reason_is_found_wherever_the_half_is(value: object) -> None:
    """In lists, objects, names of members and arrays of objects."""
    with pytest.raises(InvalidModelOutput, match="half a character"):
        dumped(value)


@pytest.mark.parametrize("value", [2**70, {1: 2}, ["a", 1j]])
def test_what_json_cannot_say_for_another_reason_is_not_called_half_a_character(
    value: object,
) -> None:
    """Numbers of more than 64 bits, members without texts for names, and other kinds of values."""
    with pytest.raises(InvalidModelOutput, match="nothing that JSON can say"):
        dumped(value)
