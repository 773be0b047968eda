"""Versions of a model beside each other: what the second costs; where one hangs or crashes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.memory import own_bytes
from benchmarks.scenarios.finding import Finding, Say
from benchmarks.scenarios.world import CHAMPION, VERSION_HEADER, world
from benchmarks.work import COLUMNS, register_model
from tests.support.processes import Gateway, poll

_MODEL, _HANGS = "two-versions", "hangs"
_BODY = dict.fromkeys(COLUMNS, 1.0)
_VERSION = VERSION_HEADER.replace("-", "_")
_TIMEOUT_S = 2.0
_GRACE_S = 5.0
_HANG, _CRASH = -1.0, -2.0
_MIB = 1024 * 1024


class VersionProcesses:
    """Scikit-learn models for what a version costs; one of Python that hangs on a request, or ends
    its process."""

    name = "version-processes"

    def run(self, folder: Path, say: Say) -> Sequence[Finding]:
        """All in one gateway."""
        with world(folder, _register) as (started, _):
            return [*_second_version(started, say), *_hang(started, say), _crash(started, say)]


def _register(uri: str) -> None:
    from tests.support.registering import client, columns, register

    for _ in range(2):
        register_model(uri, _MODEL)
    client(uri).set_registered_model_alias(_MODEL, CHAMPION, "1")
    for _ in range(2):
        register(uri, _HANGS, _misbehave, columns(("x", "double")), columns(("pid", "long")))
    client(uri).set_registered_model_alias(_HANGS, CHAMPION, "1")
    client(uri).set_registered_model_tag(_HANGS, "modelmux.timeout_s", str(_TIMEOUT_S))


def _misbehave(rows: Any, params: Any) -> Any:
    import os
    import signal
    import time

    # `_HANG` and `_CRASH`, which aren't where it runs.
    if (rows["x"] == -1.0).any():
        time.sleep(600)
    if (rows["x"] == -2.0).any():
        os.kill(os.getpid(), signal.SIGSEGV)
    return [os.getpid()] * len(rows)


def _second_version(started: Gateway, say: Say) -> list[Finding]:
    _asked(started, _MODEL, _BODY, "1")
    before = set(own_bytes(started.process.pid))
    began = time.perf_counter()
    _asked(started, _MODEL, _BODY, "2")
    took_s = time.perf_counter() - began
    (of_second,) = (own for pid, own in own_bytes(started.process.pid).items() if pid not in before)
    say(f"  second version: {took_s:.2f} s, {of_second / _MIB:.0f} MiB")
    return [
        Finding(
            what="second version of a running scikit-learn model, first answer",
            measured=f"{took_s:.2f} s",
            bar="0.5 s",
            met=took_s <= 0.5,
        ),
        Finding(
            what="memory of its own, second scikit-learn version in a replica",
            measured=f"{of_second / _MIB:.0f} MiB",
            bar="40 MB",
            met=of_second <= 40e6,
        ),
    ]


def _hang(started: Gateway, say: Say) -> list[Finding]:
    with _neighbour(started) as waits:
        response = started.predict(_HANGS, {"x": _HANG}, **{_VERSION: "2"})
        assert response.status_code == 504, response.text
        ended = time.perf_counter()
        while started.predict(_HANGS, {"x": 1.0}, **{_VERSION: "2"}).status_code != 200:
            pass
        again_s = time.perf_counter() - ended
    say(f"  a hang: neighbour's longest wait {max(waits):.2f} s, again after {again_s:.1f} s")
    return [
        _longest_wait("hangs", waits),
        Finding(
            what="the hung version answers again after its 504",
            measured=f"{again_s:.1f} s",
            bar=f"grace of {_GRACE_S:g} s + 1 s",
            met=again_s <= _GRACE_S + 1.0,
        ),
    ]


def _crash(started: Gateway, say: Say) -> Finding:
    with _neighbour(started) as waits:
        response = started.predict(_HANGS, {"x": _CRASH}, **{_VERSION: "2"})
        assert response.status_code == 503, response.text
    say(f"  a crash: neighbour's longest wait {max(waits):.2f} s")
    return _longest_wait("ends its process", waits)


@contextmanager
def _neighbour(started: Gateway) -> Iterator[list[float]]:
    """One caller at the other version meanwhile; how long each of his calls took."""
    for version in ("1", "2"):
        poll(
            lambda asked=version: _answers(started, {"x": 1.0}, asked),  # type: ignore[misc]
            what="both versions in memory",
        )
    waits: list[float] = []
    is_over = threading.Event()

    def keep_asking() -> None:
        while not is_over.is_set():
            began = time.perf_counter()
            _asked(started, _HANGS, {"x": 1.0}, "1")
            waits.append(time.perf_counter() - began)

    neighbour = threading.Thread(target=keep_asking)
    neighbour.start()
    try:
        yield waits
    finally:
        is_over.set()
        neighbour.join()


def _longest_wait(does: str, waits: Sequence[float]) -> Finding:
    return Finding(
        what=f"another version of the same model while one {does}: longest wait",
        measured=f"{max(waits):.2f} s ({len(waits)} calls)",
        bar="0.5 s",
        met=max(waits) <= 0.5,
    )


def _answers(started: Gateway, body: Any, version: str) -> bool:
    return started.predict(_HANGS, body, **{_VERSION: version}).status_code == 200


def _asked(started: Gateway, model: str, body: Any, version: str) -> None:
    response = started.predict(model, body, **{_VERSION: version})
    assert response.status_code == 200, response.text
