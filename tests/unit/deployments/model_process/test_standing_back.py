"""What a process answers that stands back."""

from __future__ import annotations

from deployments.model_process.framing import Message
from deployments.model_process.messages import UNSUPPORTED, Outcome, packed_outcome
from deployments.model_process.standing_back import bounded

MESSAGE = Message(b"", b"")
SMALL = packed_outcome(Outcome("ok", ("values", [1.0])))
LARGE = packed_outcome(Outcome("ok", ("values", ["x" * 3_000_000])))


def test_an_answer_too_large_to_be_compared_does_not_travel() -> None:
    """It is said instead, as of an answer that has no form; any other comes as it is."""
    assert bounded(lambda message: SMALL)(MESSAGE) == SMALL
    assert bounded(lambda message: LARGE)(MESSAGE) == LARGE
    said = bounded(lambda message: LARGE, most_bytes=1_000_000)(MESSAGE)
    assert len(said) < 1000
    assert UNSUPPORTED.encode() in said
    assert b"3 MB, more than is compared" in said
