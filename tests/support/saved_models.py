"""Models that MLflow has saved, asked in this process: as a gateway asks them, and as MLflow does.

All of a gateway's way is gone but for the processes: the MLmodel file, the contract, the packed
call, the code of a model's process, the packed outcome, the answer.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mlflow.pyfunc
from mlflow.pyfunc.scoring_server import _parse_json_data, invocations
from mlflow.pyfunc.utils.environment import _simulate_serving_environment

from deployments.model_calls.outcomes import call_result, packed_call, streamed
from deployments.model_process.framing import Inbox, Message
from deployments.model_process.job import _LoadedModel
from deployments.model_process.mark import Mark
from gateway.catalog import contract_of
from gateway.contract import Contract, Frame, Request
from gateway.contract.outputs import Output
from gateway.errors import InvalidInput
from gateway.forms import mlflow_answers, mlflow_json
from registry_sync.mlmodel import read_mlmodel


class SavedModel:
    """The model in a folder that `mlflow.<flavor>.save_model` has written."""

    def __init__(self, folder: Path) -> None:
        facts = read_mlmodel((folder / "MLmodel").read_text())
        assert facts.problem is None, facts.problem
        self.contract: Contract = contract_of(facts.signature or "")
        self.events: list[dict[str, Any]] = []
        mark = folder.with_name(f"{folder.name}-{uuid.uuid4().hex}.mark")
        mark.write_bytes(bytes(64))
        self._loaded = _LoadedModel(str(folder), Mark(str(mark)), self._hear, may_move=False)
        self._by_mlflow = mlflow.pyfunc.load_model(str(folder))

    def answer(self, body: Any) -> Any:
        """The gateway's answer to a body, as JSON; raises its errors."""
        request = self.contract.parse(json.dumps(body).encode())
        return json.loads(self.contract.render(self._outputs(request), request.rows))

    def _outputs(self, request: Request) -> list[tuple[Sequence[int], Output]]:
        try:
            return [
                (places, self.called(frame, request.params)) for places, frame in request.frames
            ]
        except InvalidInput as refusal:
            raise request.located(refusal) from None

    def called(self, frame: Frame, params: dict[str, Any]) -> Output:
        """What the model answers to one call."""
        message = packed_call(frame, params, give_up_at=time.monotonic() + 60.0, patience_s=60.0)
        return call_result(_unpacked(self._loaded.answer(_unpacked(message)))).output

    def streamed(self, body: Any) -> list[Any]:
        """The events that the gateway answers a body with, as JSON; raises its errors."""
        request = self.contract.parse(json.dumps(body).encode())
        ((_, frame),) = request.frames
        message = packed_call(
            frame, request.params, give_up_at=time.monotonic() + 60.0, patience_s=60.0
        )
        try:
            pieces = [
                streamed(_unpacked(piece)) for piece in self._loaded.stream(_unpacked(message))
            ]
        except InvalidInput as refusal:
            raise request.located(refusal) from None
        values = [piece.output[1][0] for piece in pieces if piece is not None]
        return [json.loads(self.contract.render_event(value)) for value in values]

    def invoked(self, **payload: Any) -> Any:
        """The gateway's answer to what MLflow's server is asked, of its `predictions`."""
        request = mlflow_json.read(self.contract, json.dumps(payload).encode(), None)
        outputs = self._outputs(request)
        answer = json.loads(mlflow_answers.write(self.contract, request, outputs).body)
        return answer["predictions"]

    def by_mlflow(self, **payload: Any) -> Any:
        """What MLflow's own server answers, of its `predictions` where it has them."""
        with _simulate_serving_environment():
            response = invocations(
                json.dumps(payload),
                "application/json",
                self._by_mlflow,
                self._by_mlflow.metadata.get_input_schema(),
            )
        assert response.status == 200, response.response
        answer = json.loads(response.response)
        return answer.get("predictions", answer) if isinstance(answer, dict) else answer

    def mlflow_stream(self, value: Any) -> Iterator[Any]:
        """What MLflow's `predict_stream` gives."""
        return self._by_mlflow.predict_stream(value)  # type: ignore[no-any-return]

    def mlflow_input(self, **payload: Any) -> Any:
        """What MLflow's own server makes of a body, before the signature is enforced."""
        schema = self._by_mlflow.metadata.get_input_schema()
        return _parse_json_data(json.dumps(payload), self._by_mlflow.metadata, schema).data

    def _hear(self, event: str, **said: Any) -> None:
        self.events.append({"event": event, **said})


def _unpacked(message: bytes) -> Message:
    inbox = Inbox()
    inbox.feed(message)
    found = inbox.next()
    assert found is not None
    return found
