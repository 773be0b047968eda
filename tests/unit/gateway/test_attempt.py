from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.attempt import Attempt

_logger = logging.getLogger("tests.attempt")


def test_what_goes_wrong_is_logged_with_its_stack_and_goes_no_further(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An exception ends the attempt alone, is in the log with its stack, and can be asked for."""
    with Attempt(_logger, "round %d failed", 3) as attempt:
        raise ValueError
    assert attempt.has_failed
    (record,) = caplog.records
    assert record.getMessage() == "round 3 failed"
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError


@pytest.mark.parametrize("passing", [asyncio.CancelledError, SystemExit, KeyError])
def test_cancellations_and_what_is_to_pass_go_on(
    passing: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """What is no `Exception`, and a class that is named, reaches who is around."""
    attempt = Attempt(_logger, "failed", passes=(LookupError,))
    with pytest.raises(passing), attempt:
        raise passing
    assert not attempt.has_failed
    assert not caplog.records


def test_an_attempt_that_goes_well_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is logged, and nothing has failed."""
    with Attempt(_logger, "failed") as attempt:
        pass
    assert not attempt.has_failed
    assert not caplog.records
