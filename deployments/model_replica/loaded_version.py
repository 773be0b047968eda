"""A version in memory, and calling it: one call at a time.

Travels to the replica by value with `deployments.model_replica.versions`, and like it imports
nothing else of ours."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from mlflow.pyfunc import PyFuncModel

from deployments.model_replica.input import model_input
from deployments.model_replica.output import UnsupportedOutput, plain_output
from deployments.model_replica.watchdog import HostWatch

if TYPE_CHECKING:
    from deployments.model_replica.call_tracing import CallTrace


class ModelRaised(Exception):
    """The model's own code raised, whatever it was: it is the cause."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CallLimits:
    """When a call that has not begun is given up (`give_up_at`, of the monotonic clock), for how
    many seconds one that has begun may go on before it counts as hung, and the turn that it needs
    beside its version's own, if any. `trace` is the call's, where tracing is on."""

    give_up_at: float
    patience_s: float
    alone: threading.Lock | None = None
    trace: CallTrace | None = None


class LoadedVersion:
    """A model in memory. Calls are one at a time: most models are not thread-safe."""

    def __init__(self, key: str, model: PyFuncModel, watch: HostWatch) -> None:
        self.key = key
        self.model = model
        self._watch = watch
        self.used_at = time.monotonic()
        # Calls from the event loop wait here, so that of each version at most one waits in a
        # thread for the lock that is the rule.
        self._turn = asyncio.Lock()
        self._one_at_a_time = threading.Lock()

    async def predict(
        self,
        threads: ThreadPoolExecutor,
        frame: tuple[str, tuple[Any, ...], tuple[Any, ...]],
        params: Mapping[str, Any],
        limits: CallLimits,
    ) -> tuple[str, Any] | None:
        """Answer one frame, as a plain output; None where its turn didn't come in time. Raises
        UnsupportedOutput and ModelRaised.

        A caller who leaves while waiting costs nothing; one who leaves while the model computes
        does not let the next call in before that is done.
        """
        if not await self._take_turn(limits.give_up_at):
            return None
        try:
            call = asyncio.get_running_loop().run_in_executor(
                threads, self.predict_here, frame, params, limits
            )
        except RuntimeError:  # somebody has shut the threads down, and it wasn't us
            self._turn.release()
            self._watch.give_up("the threads that call models are gone")
            raise
        call.add_done_callback(self._end_turn)
        return await asyncio.shield(call)

    async def _take_turn(self, give_up_at: float) -> bool:
        if not self._turn.locked():
            return await self._turn.acquire()
        try:
            async with asyncio.timeout(give_up_at - time.monotonic()):
                return await self._turn.acquire()
        except TimeoutError:
            return False

    def predict_here(
        self,
        frame: tuple[str, tuple[Any, ...], tuple[Any, ...]],
        params: Mapping[str, Any],
        limits: CallLimits,
    ) -> tuple[str, Any] | None:
        """The same on the calling thread."""
        with contextlib.ExitStack() as turns:
            for turn in (limits.alone, self._one_at_a_time):
                if turn is None:
                    continue
                left_s = limits.give_up_at - time.monotonic()
                if left_s <= 0 or not turn.acquire(timeout=left_s):
                    return None
                turns.callback(turn.release)
            self._watch.begin_call(self.key, limits.patience_s)
            turns.callback(self._watch.end, self.key)
            if limits.trace is not None:
                turns.enter_context(limits.trace.running())
            return _answer(self.model, frame, params)

    def _end_turn(self, call: asyncio.Future[Any]) -> None:
        self._turn.release()
        if not call.cancelled():
            call.exception()  # mark as seen: its caller may have left


@contextlib.contextmanager
def whatever_it_raises() -> Iterator[None]:
    """What the model's own code raises comes as ModelRaised: out of a thread neither StopIteration
    nor CancelledError comes as what it is, and KeyboardInterrupt is not for this process."""
    try:
        yield
    except UnsupportedOutput:
        raise
    # A boundary: the model's own code may raise anything.
    except BaseException as error:
        raise ModelRaised from error


def _answer(
    model: PyFuncModel,
    frame: tuple[str, tuple[Any, ...], tuple[Any, ...]],
    params: Mapping[str, Any],
) -> tuple[str, Any]:
    with whatever_it_raises():
        return plain_output(model.predict(model_input(*frame), params=dict(params) or None))
