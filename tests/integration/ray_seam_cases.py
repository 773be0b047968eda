"""Where Ray's own things are used or replaced: they are there, and do what ours rely on. Starts no
Ray. Run by `test_ray_seam` in a process of its own: this one imports ray."""

from __future__ import annotations

import asyncio
import socket
import time
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from ray._private.grpc_utils import init_grpc_channel
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)
from ray.serve._private import router
from ray.serve._private.common import DeploymentID
from ray.serve._private.request_router import replica_wrapper
from ray.serve._private.request_router.common import PendingRequest
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.schema import ApplicationStatus as RayStatus

from deployments.serve import channels
from deployments.serve.handles import RayHandle
from deployments.serve.ports import ApplicationStatus, CallLost, Loss

_REQUEST: ContextVar[str | None] = ContextVar("_REQUEST", default=None)


class Response:
    """What a handle of Ray's gives: awaited, it does what it is told to."""

    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome

    def __await__(self) -> Any:
        yield from asyncio.sleep(0).__await__()
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome

    async def results_async(self, *, return_exceptions: bool) -> Any:
        assert return_exceptions
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


class Handle:
    """A handle like Ray's, whose calls all end with `outcome`; in which contexts they were made."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.contexts: list[str | None] = []
        self.made = 0

    def options(self, **_: Any) -> Handle:
        self.made += 1
        return self

    def remote(self, *_: Any) -> Response:
        self.contexts.append(_REQUEST.get())
        return Response(self.outcome)

    def broadcast(self, *_: Any) -> Response:
        self.contexts.append(_REQUEST.get())
        return Response(self.outcome)


def handle(outcome: Any) -> RayHandle:
    made: Any = Handle(outcome)
    return RayHandle(made)


def rpc_error(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())


@pytest.mark.parametrize(
    ("error", "loss"),
    [
        (ActorDiedError(), Loss.INSIDE),
        (ActorUnavailableError("away", None), Loss.INSIDE),
        (WorkerCrashedError(), Loss.INSIDE),
        (TaskCancelledError(), Loss.INSIDE),
        (RayTaskError("predict", "traceback", ValueError()), Loss.FAILED),
        (DeploymentUnavailableError(DeploymentID("ModelHost", "m")), Loss.NO_APPLICATION),
        (BackPressureError(1, 1), Loss.BUSY),
        (rpc_error(grpc.StatusCode.UNAVAILABLE), Loss.INSIDE),
        (rpc_error(grpc.StatusCode.CANCELLED), Loss.INSIDE),
        (rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED), Loss.FAILED),
        (RuntimeError("Unexpected error"), Loss.FAILED),
        (ValueError("of the method"), Loss.FAILED),
        (asyncio.CancelledError(), Loss.INSIDE),
    ],
)
async def test_nothing_of_ray_comes_through_a_handle(error: BaseException, loss: Loss) -> None:
    """Whatever a call or a broadcast raises is a CallLost that says how; nothing is taken for the
    cancellation of who waits."""
    for lost in (handle(error).call("predict"), handle(error).broadcast("load")):
        with pytest.raises(CallLost) as raised:
            await lost
        assert raised.value.loss is loss
        assert type(error).__name__ in str(raised.value)


async def test_a_broadcast_tells_what_each_replica_said() -> None:
    """One that went away doesn't take the others' answers along."""
    first, second = await handle(["ok", ActorDiedError()]).broadcast("load")
    assert first == "ok"
    assert isinstance(second, CallLost)
    assert second.loss is Loss.INSIDE


async def test_a_caller_who_leaves_is_cancelled() -> None:
    """And not told of a loss, which would be sent again."""
    caller = asyncio.create_task(handle(asyncio.CancelledError()).call("predict"))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_calls_belong_to_no_request() -> None:
    """Ray cancels what was called in the context of a request that is cancelled: nothing is."""
    _REQUEST.set("a request's")
    ray_handle = Handle(["answer"])
    made: Any = ray_handle
    ours = RayHandle(made)
    await ours.call("predict", multiplexed_model_id="1")
    await ours.call("predict", multiplexed_model_id="1")
    await ours.broadcast("load")
    assert ray_handle.contexts == [None] * 3
    assert ray_handle.made == 1


def test_serve_knows_no_other_status() -> None:
    """Each of Serve's has one of ours."""
    assert {each.value for each in RayStatus} == {each.value for each in ApplicationStatus}


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process reaches replicas as an ingress does."""
    for where, name in (
        (replica_wrapper, "init_grpc_channel"),
        (router.AsyncioRouter, "_route_and_send_request_once"),
    ):
        monkeypatch.setattr(where, name, getattr(where, name))
    channels.reach_replicas_anew()


async def test_a_new_replica_is_reached_at_a_port_that_was_used_before(replaced: None) -> None:
    """A channel to a replica that is gone, in gRPC's back-off, keeps nobody from reaching the next
    one that listens there."""
    port = _free_port()
    address = f"127.0.0.1:{port}"
    options = [("grpc.max_receive_message_length", 1024)]  # as in `RunningReplica.stub`
    left = init_grpc_channel(address, options=options, asynchronous=True)
    with pytest.raises(grpc.aio.AioRpcError):
        await left.unary_unary("/a/b")(b"")
    assert left.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE
    server = await _answering(address)
    try:
        new = replica_wrapper.init_grpc_channel(address, options=options, asynchronous=True)
        assert await new.unary_unary("/a/b")(b"") == b"answer"
        await new.close()
    finally:
        await left.close()
        await server.stop(None)


async def test_a_replica_that_cannot_be_reached_is_not_asked_in_a_tight_loop(
    replaced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's router tries again what a replica didn't take: with growing pauses, and for as long as
    somebody waits."""
    tries: list[bool] = []

    async def unavailable(self: Any, request: Any, response_id: str, is_retry: bool) -> Any:
        tries.append(is_retry)
        return "sent" if len(tries) == 12 else None

    monkeypatch.setattr(
        router.AsyncioRouter,
        "_route_and_send_request_once",
        channels._with_pauses(unavailable),
    )
    ready = asyncio.Event()
    ready.set()
    made = object.__new__(router.AsyncioRouter)
    made._request_router_initialized = ready
    metadata: Any = SimpleNamespace()
    request = PendingRequest(args=[], kwargs={}, metadata=metadata)
    started = time.monotonic()
    assert await made.route_and_send_request(request, "id") == "sent"
    assert tries == [False] + [True] * 11
    assert time.monotonic() - started > 0.11  # eleven pauses of a hundredth of a second or more


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _answering(address: str) -> grpc.aio.Server:
    async def answer(request: bytes, context: Any) -> bytes:
        return b"answer"

    server = grpc.aio.server()
    methods = {"b": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a", methods),))
    assert server.add_insecure_port(address)
    await server.start()
    return server
