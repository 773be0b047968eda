"""Main program of a model's process: fetches a version's artifacts, or loads it and answers.

A job is a dict of plain values. All have `kind`, `parent` (the process that started this one),
`supervisor` (the address where it listens), `token` (what tells this process from others there),
`tracking_uri` and `registry_uri`. One of kind `serve` has `folder` (the artifacts), `listen` (the
address at which calls are taken) and `mark` (the file of a `Mark`); one of kind `fetch` has
`model`, `number`, `fingerprint` and `into`.

What the process has to tell are lines of JSON to the supervisor, each with an `event`: `hello` with
its `pid`; then `ready`; or `failed`, with the `reason` that may be told to anybody, and for the log
`text` and `stack`; and of a call that failed `call_failed`, with `what` and `stack`.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Any

from . import lifetime
from .channel import connected, line_of, listening
from .framing import MalformedMessage, Message
from .mark import Mark
from .messages import (
    AMBIGUOUS,
    LATE,
    MODEL_FAILED,
    OK,
    REFUSED,
    UNSUPPORTED,
    Outcome,
    packed_outcome,
    unpacked_call,
)
from .stacks import stack_lines

_LONGEST_TEXT = 2000
_LONGEST_REASON = 300


def main(_: list[str]) -> None:
    """Be a process that was started anew: its job comes by its standard input."""
    run(json.loads(sys.stdin.buffer.read()))


def run(job: dict[str, Any]) -> None:
    """Do the job, in a process that is made fit for it; ends the process."""
    _become_own_process(job)
    control = connected(job["supervisor"])
    control.sendall(line_of({"token": job["token"], "event": "hello", "pid": os.getpid()}))
    _send_output_to(job)
    tell = _Teller(control)
    if job["kind"] == "fetch":
        _fetch(job, tell)
    else:
        _serve(job, control, tell)
    # As Python ends a program: what the model has registered for its end comes about.
    sys.exit(0)


def _become_own_process(job: dict[str, Any]) -> None:
    lifetime.die_with_parent(job["parent"])
    lifetime.lead_group()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _draw_anew()
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)


def _draw_anew() -> None:
    """Have no random numbers in common with other forks: those generators begin anew that were
    imported ahead and don't see to it themselves, as Python's own does."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    torch = sys.modules.get("torch")
    if torch is not None:
        # Not `torch.seed()`: of a GPU's generators, all processes have the same seed at first.
        torch.default_generator.seed()


def _send_output_to(job: dict[str, Any]) -> None:
    """Standard output and error are lines that the supervisor reads."""
    output = connected(job["supervisor"])
    output.sendall(line_of({"token": job["token"], "event": "output"}))
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    output.close()
    # Made anew: what the template had may have been a file, which can be sought in.
    sys.stdout, sys.stderr = _lines_to(1), _lines_to(2)
    faulthandler.enable()  # who is killed by a fault of memory says where


def _lines_to(descriptor: int) -> Any:
    """A text stream that is written line by line."""
    return open(
        descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )


class _Teller:
    """Tells the supervisor events; one that is gone is told nothing."""

    def __init__(self, control: Any) -> None:
        self._control = control

    def __call__(self, event: str, **said: Any) -> None:
        with suppress(OSError):
            self._control.sendall(line_of(dict(said, event=event)))


def _failure(error: BaseException) -> dict[str, Any]:
    """What is told of an exception that a load ended with. Its class is no secret, nor is the name
    of a module that is missing; its text is for the log."""
    return {
        "reason": _reason(error),
        "text": str(error)[:_LONGEST_TEXT],
        "stack": stack_lines(error)[-60:],
    }


def _reason(error: BaseException) -> str:
    """The class of the exception that the others came from: MLflow puts its own around it."""
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    for each in (error, root):
        missing = getattr(each, "name", None)
        if isinstance(each, ModuleNotFoundError) and missing:
            return "ModuleNotFoundError: No module named %r" % str(missing)[:200]
    return type(root).__name__


def _set_registry(job: dict[str, Any]) -> None:
    import mlflow

    mlflow.set_tracking_uri(job["tracking_uri"])
    mlflow.set_registry_uri(job["registry_uri"])


def _fetch(job: dict[str, Any], tell: _Teller) -> None:
    try:
        from .artifacts import fetch_artifacts

        fetch_artifacts(
            job["model"],
            job["number"],
            into=job["into"],
            fingerprint=job["fingerprint"],
            tracking_uri=job["tracking_uri"],
            registry_uri=job["registry_uri"],
        )
    # A boundary: fetching fails in as many ways as there are stores.
    except BaseException as error:  # noqa: BLE001
        tell("failed", **_failure(error))
    else:
        tell("ready")


def _serve(job: dict[str, Any], control: Any, tell: _Teller) -> None:
    from .call_server import CallServer

    mark = Mark(job["mark"])
    try:
        _set_registry(job)
        model = _LoadedModel(job["folder"], mark, tell)
    # A boundary: a model's own code may raise anything while it is loaded.
    except BaseException as error:  # noqa: BLE001
        tell("failed", **_failure(error))
        return
    server = CallServer(listening(job["listen"]), control, model.answer)
    tell("ready")
    server.serve()


class _LoadedModel:
    """A model in memory, which answers calls on the thread that asks."""

    def __init__(self, folder: str, mark: Mark, tell: _Teller) -> None:
        import mlflow.pyfunc

        # What MLflow would warn of is what `deployments.environments` decides and tells. To look
        # for it, it reads all installed packages: half a second of each load.
        model = mlflow.pyfunc.load_model(folder, suppress_warnings=True)
        self._predict = model.predict
        self._mark = mark
        self._tell = tell
        from .answers import AmbiguousOutput, Reading
        from .hinted import TypeHint
        from .input import Inputs, rows_of, taken
        from .output import UnsupportedOutput, plain_output, settled
        from .tracing import within_trace

        self._inputs = Inputs.of(model)
        self._rows_of = rows_of
        self._taken = taken
        self._hint = TypeHint.of(model)
        self._reading = Reading.of(model)
        self._ambiguous = AmbiguousOutput
        self._settled = settled
        self._plain_output = plain_output
        self._within_trace = within_trace
        self._unsupported = UnsupportedOutput

    def answer(self, message: Message) -> bytes:
        """A call's outcome, packed."""
        try:
            call = unpacked_call(message)
        except MalformedMessage:
            self._tell("call_failed", what="malformed", stack=[])
            return packed_outcome(Outcome(MODEL_FAILED))
        now = time.monotonic()
        if now >= call.give_up_at:
            return packed_outcome(Outcome(LATE))
        begun_at = time.time_ns()
        self._mark.begin(now, call.patience_s)
        try:
            with self._within_trace(call.traceparent):
                answer = self._called(call)
            outcome = Outcome(OK, answer, time.monotonic() - now, begun_at)
            return packed_outcome(outcome)
        except (self._unsupported, RecursionError, TypeError) as error:
            self._tell("call_failed", what=UNSUPPORTED, text=str(error)[:_LONGEST_TEXT], stack=[])
            why = str(error)[:_LONGEST_REASON] if isinstance(error, self._unsupported) else None
            return packed_outcome(Outcome(UNSUPPORTED, why, time.monotonic() - now, begun_at))
        except self._ambiguous:
            text = "it can't be told whether the lists in its answer are of rows or of outputs"
            self._tell("call_failed", what=UNSUPPORTED, text=text, stack=[])
            return packed_outcome(Outcome(AMBIGUOUS, None, time.monotonic() - now, begun_at))
        except _Refused as refused:
            spent = time.monotonic() - now
            return packed_outcome(Outcome(REFUSED, refused.refusals, spent, begun_at))
        except _ModelRaised as raised:
            self._tell("call_failed", what=MODEL_FAILED, stack=stack_lines(raised.__cause__)[-60:])
            return packed_outcome(Outcome(MODEL_FAILED, None, time.monotonic() - now, begun_at))
        finally:
            self._mark.end()

    def _called(self, call: Any) -> Any:
        try:
            answer = self._answer(call.frame, call.params)
            read = self._reading.read(
                answer, self._rows_of(call.frame), lambda rows: self._asked_again(call, rows)
            )
            return self._plain_output(read)
        except (self._unsupported, self._ambiguous):
            raise
        # A boundary: the model's own code may raise anything.
        except BaseException as error:
            refusals = self._hint.refusals(call.frame[2][0]) if self._hint else []
            if refusals:
                raise _Refused(refusals) from error
            raise _ModelRaised from error

    def _answer(self, frame: Any, params: Any) -> Any:
        data = self._inputs.made_of(*frame)
        answer = self._predict(data, params=dict(params)) if params else self._predict(data)
        return self._settled(answer)

    def _asked_again(self, call: Any, rows: tuple[int, ...]) -> Any:
        """What the model answers to some rows of the call alone; None where it fails on them, which
        says nothing of what it answered before."""
        try:
            return self._answer(self._taken(call.frame, rows), call.params)
        # A boundary: the model's own code may raise anything.
        except Exception:  # noqa: BLE001
            return None


class _Refused(Exception):
    """The model's type hint doesn't take what it was called with."""

    def __init__(self, refusals: list[Any]) -> None:
        super().__init__()
        self.refusals = refusals


class _ModelRaised(Exception):
    """The model's own code raised, whatever it was: it is the cause."""
