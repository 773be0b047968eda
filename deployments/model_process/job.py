"""Main program of a model's process: fetches a version's artifacts, or loads it and answers.

A job is a dict of plain values. All have `kind`, `parent` (the process that started this one),
`supervisor` (the address where it listens), `token` (what tells this process from others there),
`tracking_uri` and `registry_uri`. One of kind `serve` has `folder` (the artifacts), `listen` (the
address at which calls are taken) and `mark` (the file of a `Mark`), and where it is `aside` it is
a shadow's (see `standing_back`), where it `may_move` another environment may have what this one
lacks; one of kind `fetch` has
`model`, `number`, `fingerprint` and `into`.

What the process has to tell are lines of JSON to the supervisor, each with an `event`: `hello` with
its `pid`; then `ready`; or `failed`, with the `reason` that may be told to anybody, and for the log
`text` and `stack`; of a call that failed `call_failed`, with `what` and `stack`;
and `lacks`, with the `module` that a call wants and this environment hasn't, before it fails.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from . import lifetime, standing_back
from .attempt import attempted
from .channel import connected, line_of, listening
from .framing import MalformedMessage, Message
from .mark import Mark
from .messages import (
    AMBIGUOUS,
    END,
    EVENT,
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
_LONGEST_CHAIN = 1000
_LONGEST_NAME = 200
_MOVE_S = 10.0
_END_S = 10


def main(_: list[str]) -> None:
    """Be a process that was started anew: its job comes by its standard input."""
    run(json.loads(sys.stdin.buffer.read()))


def run(job: dict[str, Any]) -> None:
    """Do the job, in a process that is made fit for it; ends the process."""
    _become_own_process(job)
    control = connected(job["supervisor"])
    control.sendall(line_of({"token": job["token"], "event": "hello", "pid": os.getpid()}))
    # What the model forks is none of the supervisor's: its end must not wait for it.
    os.register_at_fork(after_in_child=control.close)
    _send_output_to(job)
    tell = _Teller(control)
    if job["kind"] == "fetch":
        _fetch(job, tell)
    else:
        _serve(job, control, tell)
    # As Python ends a program: what the model has registered for its end comes about. Whatever
    # takes longer (a thread that isn't a daemon never ends) is ended with it.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_END_S)
    sys.exit(0)


def _become_own_process(job: dict[str, Any]) -> None:
    lifetime.die_with_parent(job["parent"])
    lifetime.lead_group()
    lifetime.adopt_orphans()  # so that they are its template's only once it has ended
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
        self._lock = threading.Lock()  # a line is sent whole, whoever else has one

    def __call__(self, event: str, **said: Any) -> None:
        with suppress(OSError), self._lock:
            self._control.sendall(line_of(dict(said, event=event)))


def _failure(error: BaseException) -> dict[str, Any]:
    """What is told of an exception that a load ended with. Its class is no secret, nor is the name
    of a module that is missing; its text is for the log."""
    return {
        "reason": _reason(error),
        "lacks": _lacking(error),
        "text": _text(error)[:_LONGEST_TEXT],
        "stack": stack_lines(error)[-60:],
    }


def _text(error: BaseException) -> str:
    """What an exception says; its class where it can't even say it."""
    text: str | None = attempted(str, error)[0]
    return type(error).__name__ if text is None else text


def _root(error: BaseException) -> BaseException:
    for _ in range(_LONGEST_CHAIN):  # it may be a circle
        if error.__cause__ is None:
            break
        error = error.__cause__
    return error


def _lacking(error: BaseException) -> str | None:
    """The module that isn't there; None where that isn't what it is about."""
    for each in (error, _root(error)):
        if isinstance(each, ModuleNotFoundError) and isinstance(each.name, str):
            return each.name[:200]
    return None


def _reason(error: BaseException) -> str:
    """The class of the exception that the others came from: MLflow puts its own around it."""
    lacking = _lacking(error)
    if lacking is not None:
        return "ModuleNotFoundError: No module named %r" % lacking
    root = _root(error)
    # A class can be called anything, also by a text that it was made of.
    name = type(root).__name__
    return name if name.isidentifier() and len(name) <= _LONGEST_NAME else "an error without a name"


def _set_registry(job: dict[str, Any]) -> None:
    import mlflow

    mlflow.set_tracking_uri(job["tracking_uri"])
    mlflow.set_registry_uri(job["registry_uri"])


def _fetch(job: dict[str, Any], tell: _Teller) -> None:
    _, error = attempted(_fetch_artifacts, job)  # there are as many ways to fail as stores
    if error is None:
        tell("ready")
    else:
        tell("failed", **_failure(error))


def _fetch_artifacts(job: dict[str, Any]) -> None:
    from .artifacts import fetch_artifacts

    fetch_artifacts(
        job["model"],
        job["number"],
        into=job["into"],
        fingerprint=job["fingerprint"],
        tracking_uri=job["tracking_uri"],
        registry_uri=job["registry_uri"],
    )


def _serve(job: dict[str, Any], control: Any, tell: _Teller) -> None:
    from .call_server import Answering, CallServer

    mark = Mark(job["mark"])
    is_aside = bool(job.get("aside"))
    if is_aside:
        standing_back.while_loading()
    model, error = attempted(_loaded, job, mark, tell)
    if error is not None:
        tell("failed", **_failure(error))
        return
    answer = standing_back.bounded(model.answer) if is_aside else model.answer
    server = CallServer(listening(job["listen"]), control, Answering(answer, model.stream))
    os.register_at_fork(after_in_child=server.leave)
    if is_aside:
        standing_back.while_serving()
    tell("ready")
    server.serve()


def _loaded(job: dict[str, Any], mark: Mark, tell: _Teller) -> _LoadedModel:
    _set_registry(job)
    return _LoadedModel(job["folder"], mark, tell, may_move=bool(job.get("may_move")))


class _LoadedModel:
    """A model in memory, which answers calls on the thread that asks. With `may_move` a module that
    a call lacks is for the supervisor to see to, in another environment."""

    def __init__(self, folder: str, mark: Mark, tell: _Teller, *, may_move: bool) -> None:
        import mlflow.pyfunc

        from .answers import AmbiguousOutput, Reading
        from .exact_input import ExactInput
        from .hinted import AgentRequest, TypeHint, params_alone
        from .input import Inputs, rows_of, taken
        from .output import UnsupportedOutput, one_answer, plain_output, plain_value, settled
        from .tracing import within_trace

        # What MLflow would warn of is what `deployments.environments` decides and tells. To look
        # for it, it reads all installed packages: half a second of each load.
        model = mlflow.pyfunc.load_model(folder, suppress_warnings=True)
        self._inputs = Inputs.of(model)
        self._hint = TypeHint.of(model)
        self._asked: Any = self._hint
        self._reading = Reading.of(model)
        loader = _loader_of(model)
        if loader in _AGENT_LOADERS:
            self._asked = AgentRequest(loader)
            # They take the object as it was sent, and check it themselves. To enforce the signature
            # MLflow would make a table of it, and refuse what the signature leaves open (a tool has
            # more than the `type` that is declared).
            model.metadata.signature = None
        elif self._hint is not None and self._hint.checks:
            model.metadata.signature = params_alone(model.metadata.signature)
        self._model = model
        self._exact = ExactInput.of(model)
        self._mark = mark
        self._tell = tell
        self._may_move = may_move
        self._rows_of = rows_of
        self._taken = taken
        self._ambiguous = AmbiguousOutput
        self._settled = settled
        self._plain_output = plain_output
        self._plain_value = plain_value
        self._one_answer = one_answer
        self._within_trace = within_trace
        self._unsupported = UnsupportedOutput
        self._ours = (UnsupportedOutput, AmbiguousOutput, _Refused, _NoMore)

    def answer(self, message: Message) -> bytes:
        """A call's outcome, packed."""
        call = self._call_in(message)
        if isinstance(call, Outcome):
            return packed_outcome(call)
        with self._within_trace(call.traceparent):
            return self._done(call, OK, lambda: self._called(call))[1]

    def stream(self, message: Message) -> Iterator[bytes]:
        """The outcomes of a call that streams, packed, each when the model gives it. To be closed
        where nobody wants more: that ends the model's generator."""
        call = self._call_in(message)
        if isinstance(call, Outcome):
            yield packed_outcome(call)
            return
        pieces = self._pieces(call)
        with self._within_trace(call.traceparent):
            try:
                kind = EVENT
                while kind == EVENT:
                    kind, packed = self._done(call, EVENT, lambda: self._next(call, pieces))
                    yield packed
            finally:
                self._close(pieces)

    def _call_in(self, message: Message) -> Any:
        """The call, or what comes of it already."""
        try:
            call = unpacked_call(message)
        except MalformedMessage:
            self._tell("call_failed", what="malformed", stack=[])
            return Outcome(MODEL_FAILED)
        return Outcome(LATE) if time.monotonic() >= call.give_up_at else call

    def _done(self, call: Any, kind: str, work: Callable[[], Any]) -> tuple[str, bytes]:
        """What comes of work in the model's own code: the kind of the outcome, and it packed. It is
        of that kind, with what the work gives; the end where that is nothing; or a failure."""
        now, begun_at = time.monotonic(), time.time_ns()
        number = self._mark.begin(now, call.patience_s)

        def outcome(kind: str, value: Any = None) -> tuple[str, bytes]:
            spent_s = time.monotonic() - now
            return kind, packed_outcome(Outcome(kind, value, spent_s, begun_at))

        try:
            return outcome(kind, work())
        except _NoMore:
            return outcome(END)
        except (self._unsupported, RecursionError, TypeError) as error:
            self._tell("call_failed", what=UNSUPPORTED, text=_text(error)[:_LONGEST_TEXT], stack=[])
            why = _text(error)[:_LONGEST_REASON] if isinstance(error, self._unsupported) else None
            return outcome(UNSUPPORTED, why)
        except self._ambiguous:
            text = "it can't be told whether the lists in its answer are of rows or of outputs"
            self._tell("call_failed", what=UNSUPPORTED, text=text, stack=[])
            return outcome(AMBIGUOUS)
        except _Refused as refused:
            return outcome(REFUSED, refused.refusals)
        except _ModelRaised as raised:
            self._move_for(_lacking(raised.__cause__ or raised))
            self._tell("call_failed", what=MODEL_FAILED, stack=stack_lines(raised.__cause__)[-60:])
            return outcome(MODEL_FAILED)
        finally:
            self._mark.end(number)

    def _move_for(self, module: str | None) -> None:
        """Have the version moved to where the module is: the supervisor ends this process, and the
        call comes again there. Returns where it can't."""
        if module is not None and self._may_move:
            self._tell("lacks", module=module)
            time.sleep(_MOVE_S)

    def _called(self, call: Any) -> Any:
        return self._given(call, lambda: self._output(call))

    def _given(self, call: Any, work: Callable[[], Any]) -> Any:
        """What work in the model's own code gives; raises what it means that it raised."""
        output, error = attempted(work)
        if error is None:
            return output
        try:
            raise self._meant(call, error)
        finally:
            # Who is out of memory needs now what the failed call held (see `attempted`).
            del error

    def _output(self, call: Any) -> Any:
        answer = self._answer(call.frame, call.params)
        if _is_one(call):
            return self._one_answer(answer)
        read = self._reading.read(
            answer, self._rows_of(call.frame), lambda rows: self._asked_again(call, rows)
        )
        return self._plain_output(read)

    def _meant(self, call: Any, error: BaseException) -> BaseException:
        """What it means that the model raised on a call. Its classes may have raised, and do so
        again when they are asked: a check of the author's may raise anything."""
        if isinstance(error, self._ours):
            return error
        refusals = self._asked and attempted(self._asked.refusals, call.frame[2][0])[0]
        meant = _Refused(refusals) if refusals else _ModelRaised()
        meant.__cause__ = error
        return meant

    def _answer(self, frame: Any, params: Any) -> Any:
        data, predict = self._inputs.made_of(*frame), self._model.predict
        if self._exact is not None and not params and self._exact.is_made_of(*frame):
            predict = self._exact.predict
        return self._settled(predict(data, params=dict(params)) if params else predict(data))

    def _asked_again(self, call: Any, rows: tuple[int, ...]) -> Any:
        """What the model answers to some rows of the call alone; None where it fails on them, which
        says nothing of what it answered before. Who interrupts it, or ends the program, says
        nothing of these rows: the call fails."""
        rows_alone = self._taken(call.frame, rows)
        return attempted(self._answer, rows_alone, call.params, catching=Exception)[0]

    def _next(self, call: Any, pieces: Iterator[Any]) -> Any:
        return self._given(call, lambda: ("values", [self._piece(pieces)]))

    def _piece(self, pieces: Iterator[Any]) -> Any:
        """The next one in plain form. Raises _NoMore."""
        for piece in pieces:
            return self._plain_value(piece)
        raise _NoMore

    def _pieces(self, call: Any) -> Iterator[Any]:
        """What the model gives piece by piece; where it can't, its whole answer as one piece."""
        params = dict(call.params) or None
        try:
            pieces = self._model.predict_stream(self._single(call), params)
            first = next(pieces)
        except StopIteration:
            return
        except NotImplementedError:  # of MLflow's base classes, whose agents all claim to stream
            answer = self._answer(call.frame, call.params)
            yield self._one_answer(answer)[1][0] if _is_one(call) else answer
            return
        yield first
        yield from pieces

    def _single(self, call: Any) -> Any:
        """The one input of a call that streams: MLflow takes a table or one value, which may be a
        list itself where it is in one."""
        data = self._inputs.made_of(*call.frame)
        if self._hint is None:
            return data[0] if isinstance(data, list) else data
        if not self._hint.checks:
            return [data]  # as MLflow takes an object when it enforces the signature
        refusals = self._hint.refusals(data)
        if refusals:
            raise _Refused(refusals)
        return [self._hint.dicts(data[0])]

    def _close(self, pieces: Any) -> None:
        """End the model's generator; what it says to that is for the log."""
        stack = stack_lines(attempted(pieces.close)[1])
        if stack:
            self._tell("call_failed", what=MODEL_FAILED, stack=stack[-60:])


_AGENT_LOADERS = frozenset(
    "mlflow.pyfunc.loaders." + name for name in ("chat_agent", "chat_model", "responses_agent")
)


def _loader_of(model: Any) -> Any:
    """Read from the file, since MLflow 2.0's models don't tell it."""
    return (model.metadata.flavors or {}).get("python_function", {}).get("loader_module")


def _is_one(call: Any) -> bool:
    """Whether it is of one object, and not of rows (see `input.Inputs`)."""
    return bool(call.frame[0] == "record")


class _NoMore(Exception):
    """The model has given all that it has."""


class _Refused(Exception):
    """The model's type hint doesn't take what it was called with."""

    def __init__(self, refusals: list[Any]) -> None:
        super().__init__()
        self.refusals = refusals


class _ModelRaised(Exception):
    """The model's own code raised, whatever it was: it is the cause."""
