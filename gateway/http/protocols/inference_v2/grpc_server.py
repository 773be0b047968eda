"""The gRPC service `inference.GRPCInferenceService`, over the same predictions as REST.

A call is one HTTP/2 request, and goes the way of one: each method is an ASGI application of a
message that answers with a message or a problem document, in the same `Boundary`, with the same
keys, limits, counts and lines in the log; a problem becomes a status of gRPC's at the very end.
There is no reflection, and no service but this one.

A message comes whole or not at all: nothing tells its size before. So it is read only once the key
is known, within the time that a body has, and no more calls are taken at once than `_CALLS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, MutableMapping
from functools import partial
from typing import Any, Unpack

import grpc
import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.admission import Visit
from gateway.catalog import Resolution
from gateway.contract import Form
from gateway.errors import ModelUnavailable, ModelUnservable, RequestTimeout, SignatureMismatch
from gateway.http.access_control import Access, AccessControl
from gateway.http.access_log import AccessJournal
from gateway.http.boundary import Boundary
from gateway.http.predict.answering import Answer, Around, Exchange
from gateway.http.predict.body import HttpLimits
from gateway.http.predict.deadline_header import TIMEOUT_HEADER
from gateway.http.predict.dialect import Dialect
from gateway.http.predict.endpoint import PredictEndpoint
from gateway.http.predict.version_header import RawHeaders
from gateway.http.protocols.inference_v2.grpc_messages import SERVICE, message
from gateway.http.protocols.inference_v2.grpc_translation import parsed, read, write
from gateway.http.protocols.inference_v2.model_metadata import (
    model_metadata,
    repository_index,
    require_ready,
    server_metadata,
)
from gateway.prediction import PredictionService


def _path_of(method: str) -> str:
    """The path of a call, as HTTP/2 has it."""
    return f"/{SERVICE}/{method}"


_OK, _SERVERS_FAULT = 200, 500
_EVER_S = 1e6
_CALLS = 2048
_NEED_NO_KEY = ("ServerLive", "ServerReady")
_TIMEOUT = TIMEOUT_HEADER.lower().encode()
# What describes the message as HTTP's body is gRPC's own.
_OF_THE_TRANSPORT = (b"content-", b"accept-encoding", b"grpc-")

_STATUSES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    406: grpc.StatusCode.UNIMPLEMENTED,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class GrpcInferenceV2(Dialect):
    """`ModelInfer` as a dialect of predictions: messages in and out."""

    protocol = "inference_v2_grpc"

    def form(self, headers: RawHeaders, resolution: Resolution) -> Form:
        """See `Dialect.form`."""
        return Form(read=read, write=partial(write, resolution=resolution))


class InferEndpoint(PredictEndpoint):
    """`ModelInfer`: the names are in the message, which is read once the key is known."""

    def __init__(self, service: PredictionService, **around: Unpack[Around]) -> None:
        super().__init__(service, route=_path_of("ModelInfer"), dialect=GrpcInferenceV2(), **around)
        # The same message without what is large.
        self._target = message("ModelReadyRequest")

    async def _answer(self, exchange: Exchange) -> tuple[Answer, Visit]:
        scope, receive = exchange.scope, exchange.receive
        if self._access is not None:
            self._access.identify(scope)
        pending = [await receive()]
        target = parsed(self._target, pending[0]["body"])
        scope["path_params"] = {"name": target.name, "selector": target.version or None}

        async def again() -> MutableMapping[str, Any]:
            return pending.pop() if pending else await receive()

        exchange.receive = again
        return await super()._answer(exchange)


Members = Callable[[Scope, Any], Awaitable[Mapping[str, Any]]]
"""Makes the members of the answer to a message; raises a GatewayError."""


class InferenceServer:
    """The service on a port of its own, for callers with the keys of `access`."""

    def __init__(
        self,
        service: PredictionService,
        infer: InferEndpoint,
        *,
        access: Access | None,
        journal: AccessJournal | None,
        limits: HttpLimits,
    ) -> None:
        """`infer` has the same `access` and `limits`."""
        self._service = service
        self._access = access
        self._journal = journal
        self._limits = limits
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", limits.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                # The replicas of a node have one port.
                ("grpc.so_reuseport", 1),
            ),
            maximum_concurrent_rpcs=_CALLS,
        )
        methods = {
            "ServerLive": self._method(self._live, "ServerLive"),
            "ServerReady": self._method(self._ready, "ServerReady"),
            "ServerMetadata": self._method(self._server_metadata, "ServerMetadata"),
            "ModelReady": self._method(self._model_ready, "ModelReady"),
            "ModelMetadata": self._method(self._model_metadata, "ModelMetadata"),
            "RepositoryIndex": self._method(self._index, "RepositoryIndex"),
            "ModelInfer": self._handler("ModelInfer", infer),
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, methods),)
        )

    async def start(self, address: str) -> int:
        """Listen at `host:port`; the port. Raises RuntimeError where that can't be."""
        port: int = self._server.add_insecure_port(address)
        await self._server.start()
        return port

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, and end those that are under way after so many seconds."""
        await self._server.stop(grace_s)

    def _method(self, answer: Members, name: str) -> Any:
        request, response = message(f"{name}Request"), message(f"{name}Response")

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            sent = parsed(request, (await receive())["body"])
            made = response(**await answer(scope, sent))
            await send({"type": "http.response.start", "status": _OK, "headers": []})
            await send({"type": "http.response.body", "body": made.SerializeToString()})

        if self._access is not None and name not in _NEED_NO_KEY:
            return self._handler(name, AccessControl(application, self._access))
        return self._handler(name, application)

    def _handler(self, name: str, application: ASGIApp) -> Any:
        bounded = Boundary(application, journal=self._journal)
        path, timeout_s = _path_of(name), self._limits.body_timeout_s

        async def call(messages: AsyncIterator[bytes], context: Any) -> bytes:
            return await _exchanged(bounded, path, _the_only(messages, timeout_s), context)

        # To a caller it is the same as a unary one; here the message waits until it is asked for.
        return grpc.stream_unary_rpc_method_handler(call)

    # What each method answers, as the members of its message.

    async def _live(self, scope: Scope, sent: Any) -> Mapping[str, Any]:
        return {"live": True}

    async def _ready(self, scope: Scope, sent: Any) -> Mapping[str, Any]:
        self._service.catalog()
        return {"ready": True}

    async def _server_metadata(self, scope: Scope, sent: Any) -> Mapping[str, Any]:
        if self._access is not None:
            self._access.identify(scope)
        return server_metadata()

    async def _model_ready(self, scope: Scope, sent: Any) -> Mapping[str, Any]:
        try:
            require_ready(self._resolved(scope, sent), self._service.unloadable)
        except (ModelUnavailable, ModelUnservable, SignatureMismatch):
            return {"ready": False}
        return {"ready": True}

    async def _model_metadata(self, scope: Scope, sent: Any) -> Mapping[str, Any]:
        resolution = self._resolved(scope, sent)
        said = model_metadata(self._service.catalog(), resolution)
        for tensor in (*said["inputs"], *said["outputs"]):
            tensor.pop("parameters", None)  # the messages have no place for them
        return said

    async def _index(self, scope: Scope, sent: Any) -> Mapping[str, Any]:
        catalog = self._service.catalog()
        if self._access is not None:
            key = self._access.identify(scope)
            catalog = catalog if key.sees_all else catalog.only(key.may_see)
        models = await asyncio.to_thread(
            repository_index, catalog, self._service.unloadable, only_ready=sent.ready
        )
        return {"models": models}

    def _resolved(self, scope: Scope, sent: Any) -> Resolution:
        if self._access is not None:
            self._access.identify(scope).require_sight(sent.name)
        return self._service.resolve(sent.name, sent.version or None)


async def _the_only(messages: AsyncIterator[bytes], timeout_s: float) -> bytes:
    """The message of a call; raises RequestTimeout."""
    try:
        async with asyncio.timeout(timeout_s):
            async for message in messages:
                return message
    except TimeoutError:
        raise RequestTimeout(f"The limit is {timeout_s:g} s for the whole message.") from None
    return b""


async def _exchanged(
    application: ASGIApp, path: str, coming: Coroutine[Any, Any, bytes], context: Any
) -> bytes:
    """The answer of an application to a message; aborts the call where that is a problem."""
    scope = _scope(path, context)
    pending = [coming]
    status, parts = 0, []

    async def receive() -> MutableMapping[str, Any]:
        if pending:
            return {"type": "http.request", "body": await pending.pop(), "more_body": False}
        if not context.cancelled():
            # gRPC cancels this task when the caller leaves.
            await asyncio.get_running_loop().create_future()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            context.set_trailing_metadata(_trailing(message["headers"]))
        else:
            parts.append(message.get("body", b""))

    try:
        await application(scope, receive, send)
    finally:
        coming.close()  # where nobody has asked for it
    answer = b"".join(parts)
    if status != _OK:
        usual = grpc.StatusCode.INVALID_ARGUMENT
        if status >= _SERVERS_FAULT:
            usual = grpc.StatusCode.INTERNAL
        code = _STATUSES.get(status, usual)
        await context.abort(code, orjson.loads(answer)["error"], context.trailing_metadata())
    return answer


def _scope(path: str, context: Any) -> Scope:
    headers = [
        (key.encode(), value.encode() if isinstance(value, str) else value)
        for key, value in context.invocation_metadata() or ()
    ]
    headers = [each for each in headers if not each[0].startswith(_OF_THE_TRANSPORT)]
    left_s = context.time_remaining()
    if left_s is not None and left_s < _EVER_S and all(name != _TIMEOUT for name, _ in headers):
        headers.append((_TIMEOUT, b"%.3f" % max(left_s, 0.001)))
    return {
        "type": "http",
        "http_version": "2",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
    }


def _trailing(headers: Any) -> tuple[tuple[str, str], ...]:
    """What HTTP's answers say in headers, and gRPC's in trailing metadata."""
    kept = ("x-model-version", "x-request-id", "server-timing", "retry-after")
    named = ((name.decode().lower(), value.decode("latin-1")) for name, value in headers)
    return tuple(each for each in named if each[0] in kept)
