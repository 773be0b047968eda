"""Counting what one ingress process has to do."""

from __future__ import annotations

import numpy as np

from gateway.contract import Frame
from gateway.deadline import Deadline
from gateway.metrics.counters import UNKNOWN, Traffic, TrafficCounter
from gateway.metrics.families import (
    CALL_DURATION,
    CALL_ROWS,
    REQUEST_DURATION,
    REQUEST_ROWS,
    REQUESTS,
)
from gateway.ports import Call, CallResult
from tests.support.catalogs import catalog, served, version


def test_answers_are_counted_by_version_and_status() -> None:
    """A good answer has a duration and rows, another one only its status."""
    traffic = Traffic()
    traffic.note_answer("m", 1, 0.0011, 3)
    traffic.note_answer("m", 1, 99.0, 2)
    traffic.note_failure("m", 1, 500)
    traffic.note_failure("m", None, 413)
    told = traffic.reading()
    assert dict(told[REQUESTS.name]) == {
        ("m", "1", "200", "modelmux"): 2,
        ("m", "1", "500", "modelmux"): 1,
        ("m", "", "413", "modelmux"): 1,
    }
    assert told[REQUEST_ROWS.name] == [(("m", "1", "modelmux"), 5)]
    ((_, (counts, total)),) = told[REQUEST_DURATION.name]
    assert counts[1] == counts[-1] == 1
    assert sum(counts) == 2
    assert total == 99.0011


def test_what_the_catalog_lacks_is_forgotten() -> None:
    """Models and versions that are gone leave no series; what was never known stays as one."""
    traffic = Traffic()
    for name, number in (("m", 1), ("m", 2), ("gone", 1)):
        traffic.note_answer(name, number, 0.1, 1)
        traffic.note_call(name, number, 1, 0.1)
    traffic.note_failure("m", None, 413)
    traffic.note_failure(UNKNOWN, None, 404)
    traffic.forget_all_but(catalog(served(version(2))))
    told = traffic.reading()
    left = {labels for labels, _ in told[REQUESTS.name]}
    assert left == {
        (*labels, "modelmux")
        for labels in (("m", "2", "200"), ("m", "", "413"), (UNKNOWN, "", "404"))
    }
    for family in (REQUEST_DURATION, REQUEST_ROWS, CALL_ROWS, CALL_DURATION):
        assert [labels[:2] for labels, _ in told[family.name]] == [("m", "2")]
    assert traffic.models == {"m"}


async def test_calls_are_counted_with_their_rows_and_the_models_time() -> None:
    """What a backend answers passes unchanged."""
    answer = CallResult(output=("list", [1.0, 2.0]), timings_ms={"model": 30.0})

    class Backend:
        async def call(self, call: Call) -> CallResult:
            return answer

    traffic = Traffic()
    one = version(1)
    call = Call(
        model=served(one),
        version=one,
        frame=Frame(
            layout="table", names=("x",), columns=(np.array([1.0, 2.0]),), rows=2, key=None
        ),
        params={},
        deadline=Deadline.after(1.0),
    )
    assert await TrafficCounter(Backend(), traffic).call(call) is answer
    ((_, (rows, total_rows)),) = traffic.reading()[CALL_ROWS.name]
    ((_, (_, spent_s)),) = traffic.reading()[CALL_DURATION.name]
    assert (rows[1], total_rows, spent_s) == (1, 2, 0.03)
