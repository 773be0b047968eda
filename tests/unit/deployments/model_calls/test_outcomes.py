"""What a replica's outcomes, and those of processes, mean to callers."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.model_calls.outcomes import answered_by_replica, call_result
from deployments.model_process.framing import Message
from deployments.serve.ports import CallLost, Loss
from gateway.contract.outputs import joined_output, mark_of, split_output
from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    InternalError,
    InvalidInput,
    InvalidModelOutput,
    ModelFailed,
    ModelUnavailable,
    Violation,
)
from tests.support.fake_serve import answered

TROUBLE = {"retry_after_s": 7.0, "reason": "ModuleNotFoundError: No module named 'skops'"}


@pytest.mark.parametrize(
    ("outcome", "error", "load_failed"),
    [
        (("load_failed", TROUBLE), ModelUnavailable, True),
        (("suspended", TROUBLE), ModelUnavailable, False),
        (("loading", None), ModelUnavailable, False),
        (("of another release", None), InternalError, None),
    ],
)
def test_each_outcome_of_a_replica_has_its_error(
    outcome: Any, error: type[GatewayError], load_failed: bool | None
) -> None:
    """Only a load that failed is said to be one; a version that isn't tried says why and for how
    long."""
    with pytest.raises(error) as raised:
        answered_by_replica(outcome)
    assert getattr(raised.value, "load_failed", None) is load_failed
    if outcome[1] is TROUBLE:
        assert raised.value.retry_after_s == 7.0  # type: ignore[attr-defined]
        assert raised.value.by_model
        assert "No module named 'skops'" in str(raised.value)


def test_a_call_whose_process_ended_is_lost_inside() -> None:
    """So it is sent again, but not for ever."""
    with pytest.raises(CallLost) as raised:
        answered_by_replica(("lost", None))
    assert raised.value.loss is Loss.INSIDE


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("late", DeadlineExceeded),
        ("model_failed", ModelFailed),
        ("unsupported_output", InvalidModelOutput),
        ("ambiguous_output", InvalidModelOutput),
    ],
)
def test_each_outcome_of_a_process_has_its_error(kind: str, error: type[GatewayError]) -> None:
    """What the model's own process said of the call."""
    message, _, _ = answered_by_replica(answered(kind))
    with pytest.raises(error):
        call_result(message)


def test_what_a_model_refuses_is_told_by_row_and_member() -> None:
    """Pointers begin with the row's number, for the request's rows are known elsewhere."""
    header = b'{"k": "refused", "w": [[1, ["a/b", 0], "Expected a number."]], "s": 0, "b": 0}'
    with pytest.raises(InvalidInput) as raised:
        call_result(Message(header, bytearray()))
    assert raised.value.violations == (
        Violation(pointer="/1/a~1b/0", message="Expected a number."),
    )


@pytest.mark.parametrize(
    "header",
    [
        b"", b"{", b"[]", b'{"k": "ok", "o": 1, "s": 0, "b": 0}',
        b'{"k": "refused", "w": [1], "s": 0, "b": 0}',
    ],
)  # fmt: skip
def test_what_is_no_outcome_is_an_invalid_output(header: bytes) -> None:
    """A process may say anything: it is answered in the envelope."""
    with pytest.raises(InvalidModelOutput):
        call_result(Message(header, bytearray()))


@pytest.mark.parametrize(
    ("answer", "mark", "joined"),
    [
        (("values", [1.0, 2.0], ("alone",)), ("alone",), ()),
        (("columns", ["a"], [[1, 2]], ("dict",)), ("dict",), ("dict",)),
        (("columns", ["a"], [[1, 2]]), (), ()),
    ],
)
def test_what_an_answer_was_crosses_and_stays_with_its_parts(
    answer: Any, mark: Any, joined: Any
) -> None:
    """Of callers who shared a call each has an answer with the mark of the whole; what was alone
    in each part of a list is so no more."""
    message, _, _ = answered_by_replica(answered(value=answer))
    output = call_result(message).output
    parts = split_output(output, [1, 1])
    assert [mark_of(each) for each in (output, *parts)] == [mark] * 3
    whole = joined_output(parts)
    assert whole is not None
    assert tuple(mark_of(whole)) == joined


def test_what_went_well_is_the_result() -> None:
    """The output as it came, with the times that the process and the replica measured."""
    message, address, load_s = answered_by_replica(answered())
    result = call_result(message, load_s=load_s)
    assert (result.output, result.timings_ms) == (("values", [1.0]), {"model": 2.0, "load": 500.0})
    assert address == "@none"
