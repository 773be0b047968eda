"""A call as it is sent to a version's process, and what its outcome means. Must not import ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployments.model_process import messages
from deployments.model_process.framing import MalformedMessage, Message
from deployments.serve.ports import CallLost, Loss
from gateway.contract import Frame
from gateway.contract.text_formats import pointer
from gateway.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    InvalidModelOutput,
    ModelFailed,
    ModelUnavailable,
    Violation,
)
from gateway.ports import LOAD_STEP, MODEL_STEP, Call, CallResult

_STARTING_RETRY_AFTER_S = 2.0


def packed_call(
    frame: Frame,
    params: Mapping[str, Any],
    *,
    give_up_at: float,
    patience_s: float,
    traceparent: str | None = None,
    slots: int = 1,
    streams: bool = False,
) -> bytes:
    """A call as it travels; see `messages.Call` for the times and what it asks."""
    called = (frame.layout, frame.names, frame.columns)
    return messages.packed_call(
        messages.Call(called, params, give_up_at, patience_s, traceparent, slots, streams)
    )


def packed(call: Call, *, streams: bool = False) -> bytes:
    """A gateway's call as it travels."""
    return packed_call(
        call.frame,
        call.params,
        give_up_at=call.deadline.at_s,
        patience_s=call.patience_s,
        traceparent=call.traceparent,
        slots=call.model.concurrency_of(call.version),
        streams=streams,
    )


def streamed(message: Message) -> CallResult | None:
    """What came next in a stream that a process answers with, None at its end; raises the error
    that anything else means."""
    outcome = _outcome(message)
    return None if outcome.kind == messages.END else _result(outcome, None)


def call_result(message: Message, *, load_s: float | None = None) -> CallResult:
    """The result of a call that a process has answered; raises the error that it means."""
    return _result(_outcome(message), load_s)


def _outcome(message: Message) -> messages.Outcome:
    try:
        return messages.unpacked_outcome(message)
    except MalformedMessage as error:
        raise InvalidModelOutput("The model's process answered what can't be read.") from error


def _result(outcome: messages.Outcome, load_s: float | None) -> CallResult:
    match outcome.kind:
        case messages.OK | messages.EVENT:
            timings_ms = {MODEL_STEP: outcome.model_s * 1e3}
            if load_s is not None:  # else its process was asked directly, with no load to wait for
                timings_ms[LOAD_STEP] = load_s * 1e3
            return CallResult(
                output=outcome.value, timings_ms=timings_ms, begun_at_ns=outcome.begun_at
            )
        case messages.LATE:
            raise DeadlineExceeded("The model was busy with others until the deadline.")
        case messages.UNSUPPORTED:
            raise InvalidModelOutput(_without_form(outcome.value))
        case messages.REFUSED:
            raise _refused(outcome.value)
        case messages.AMBIGUOUS:
            raise InvalidModelOutput(
                "It can't be told whether the lists in the model's answer are one per row or one "
                "per output. Let it answer with a DataFrame or with one array, or log it with an "
                "output signature that only one of both fits."
            )
        case _:
            raise ModelFailed(
                "The model's own code failed on this request; its log has the reason."
            )


def _refused(refusals: Any) -> InvalidInput:
    """With pointers that begin with the row's number: `gateway.contract.hinted` locates them."""
    return InvalidInput(
        tuple(
            Violation(pointer=pointer((row, *path)), message=message)
            for row, path, message in refusals
        )
    )


def answered_by_replica(outcome: tuple[str, Any]) -> tuple[Message, str, float]:
    """What a replica has of a process that answered: the packed outcome, the process's address and
    how long a load was waited for. Raises the error that any other outcome means, and CallLost.
    """
    kind, value = outcome
    match kind:
        case "answered":
            header, body, address, load_s = value
            return Message(header, body), address, load_s
        case "lost":
            raise CallLost(Loss.INSIDE)
        case "loading":
            raise still_starting()
        case "load_failed":
            raise ModelUnavailable(
                f"This version can't be loaded: {value['reason']}.",
                retry_after_s=value["retry_after_s"],
                load_failed=True,
            )
        case "building":
            raise ModelUnavailable(
                f"This version can't be asked yet: {value['reason']}.",
                retry_after_s=value["retry_after_s"],
            )
        case "suspended":
            raise ModelUnavailable(
                f"This version isn't tried for a while: {value['reason']}.",
                retry_after_s=value["retry_after_s"],
                by_model=True,
            )
        case _:
            raise InternalError("The model's replica is of another release.")


def _without_form(why: object) -> str:
    """What is said of an answer that has no plain form: `why` is the process's own sentence."""
    if not isinstance(why, str) or not why:
        return "The model answered something that has no JSON form."
    return f"{why[0].upper()}{why[1:]}."


def still_starting() -> ModelUnavailable:
    """The version will be there, but not within this request's deadline."""
    return ModelUnavailable("The model is still starting.", retry_after_s=_STARTING_RETRY_AFTER_S)
