"""The gRPC service, over models that answer what they were given, on a real port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from mlflow.types import ColSpec, DataType, ParamSpec, TensorSpec
from mlflow.types.schema import Array

from gateway.canary import Canary, CanaryRule
from gateway.errors import ModelUnavailable
from gateway.http.access_control import Access
from gateway.http.access_log import AccessEntry, AccessJournal, answered
from gateway.http.predict.body import HttpLimits
from gateway.http.protocols.inference_v2.grpc_messages import SERVICE, message
from gateway.http.protocols.inference_v2.grpc_server import InferenceServer, InferEndpoint
from gateway.metrics.families import REQUESTS
from gateway.ports import Call, CallResult
from gateway.security.api_keys import Keyring, entry_of, parse_keys
from tests.support.echo_gateway import EchoGateway, signature

COLUMNS = signature(
    [
        ColSpec("double", "d"),
        ColSpec("long", "l"),
        ColSpec("string", "s"),
        ColSpec("boolean", "b"),
        ColSpec("binary", "bin"),
        ColSpec(Array(DataType.double), "list"),
        ColSpec("string", "note", required=False),
    ],
    params=[ParamSpec("times", "long", 1), ParamSpec("weights", "double", [1.0], shape=(-1,))],
)
TENSOR = signature([TensorSpec(np.dtype("float16"), (-1, 2))])


class Journal(AccessJournal):
    """A journal that keeps its entries."""

    def __init__(self) -> None:
        self.entries: list[AccessEntry] = []

    def add(self, entry: AccessEntry) -> None:
        self.entries.append(entry)


class Keys:
    """Where keys come from that never change."""

    def __init__(self, *entries: str) -> None:
        self.keyring: Keyring = parse_keys("\n".join(entries))


class Caller:
    """A client of the service, by its messages."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    async def __call__(
        self, method: str, metadata: tuple[tuple[str, str], ...] = (), **fields: Any
    ) -> Any:
        call = self._channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=message(f"{method}Request").SerializeToString,
            response_deserializer=message(f"{method}Response").FromString,
        )
        request = fields.pop("request", None) or message(f"{method}Request")(**fields)
        return await call(request, metadata=metadata, timeout=fields.pop("timeout", 20))


@asynccontextmanager
async def served(
    gateway: EchoGateway,
    *,
    access: Access | None = None,
    journal: AccessJournal | None = None,
    body_timeout_s: float = 60.0,
) -> AsyncIterator[Caller]:
    limits = HttpLimits(max_body_bytes=1024 * 1024, body_timeout_s=body_timeout_s)
    infer = InferEndpoint(gateway.service, limits=limits, access=access, traffic=gateway.traffic)
    server = InferenceServer(gateway.service, infer, access=access, journal=journal, limits=limits)
    port = await server.start("127.0.0.1:0")
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Caller(channel)
    finally:
        await server.stop(0)


def typed(**more: Any) -> Any:
    """A request of two rows with typed contents."""
    request = message("ModelInferRequest")(model_name="m", **more)
    for name, datatype, contents, values in (
        ("d", "FP64", "fp64_contents", [0.5, float("nan")]),
        ("l", "INT64", "int64_contents", [2**53 + 1, -1]),
        ("s", "BYTES", "bytes_contents", ["grün".encode(), b""]),
        ("b", "BOOL", "bool_contents", [True, False]),
        ("bin", "BYTES", "bytes_contents", [b"\0\xff", b"AP8="]),
    ):
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[2])
        getattr(tensor.contents, contents).extend(values)
    tensor = request.inputs.add(name="list", datatype="FP64", shape=[2, 2])
    tensor.contents.fp64_contents.extend([1, 2, 3, 4])
    return request


async def refused(answer: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await answer
    return refusal.value


async def test_typed_contents_are_answered_with_typed_contents() -> None:
    """Elements of each type go in and out, under the request's id and the version's number."""
    async with served(EchoGateway(COLUMNS)) as call:
        answer = await call("ModelInfer", request=typed(id="7"))
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", "7")
    outputs = {output.name: output for output in answer.outputs}
    assert not answer.raw_output_contents
    assert list(outputs["l"].contents.int64_contents) == [2**53 + 1, -1]
    assert list(outputs["s"].contents.bytes_contents) == ["grün".encode(), b""]
    assert list(outputs["b"].contents.bool_contents) == [True, False]
    assert list(outputs["bin"].contents.bytes_contents) == [b"\0\xff", b"AP8="]
    assert list(outputs["list"].contents.bytes_contents) == [b"[1.0,2.0]", b"[3.0,4.0]"]
    np.testing.assert_equal(list(outputs["d"].contents.fp64_contents), [0.5, float("nan")])


async def test_a_session_in_the_metadata_is_on_its_side_of_a_canary() -> None:
    """As the header is of HTTP; a version in the message is what answers."""
    canary = Canary(rule=CanaryRule(selector="2", percent=50), version=2, state="running")
    async with served(EchoGateway(COLUMNS, COLUMNS, default=1, canary=canary)) as call:
        for session, asked, version in (("s0", "", "1"), ("s2", "", "2"), ("s2", "1", "1")):
            request = typed(model_version=asked)
            answer = await call("ModelInfer", (("x-session-id", session),), request=request)
            assert answer.model_version == version


async def test_raw_contents_are_answered_with_raw_contents() -> None:
    """Raw contents go in and out as they are, of half precision too, which has no typed form."""
    values = np.array([[1, 2], [3, 4]], "<f2")
    request = message("ModelInferRequest")(model_name="m")
    request.inputs.add(name="x", datatype="FP16", shape=[2, 2])
    request.raw_input_contents.append(values.tobytes())
    async with served(EchoGateway(TENSOR)) as call:
        answer = await call("ModelInfer", request=request)
        assert list(answer.raw_output_contents) == [values.tobytes()]
        request.raw_input_contents.append(b"")
        refusal = await refused(call("ModelInfer", request=request))
    assert refusal.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "/raw_input_contents" in refusal.details()


async def test_parameters_and_outputs_are_as_by_rest() -> None:
    """Parameters are the model's params, lists as JSON texts; outputs come as they are named."""
    gateway = EchoGateway(COLUMNS)
    request = typed()
    request.parameters.add(key="times").value.int64_param = 3
    request.parameters.add(key="weights").value.string_param = "[0.5, 1]"
    request.outputs.add(name="s")
    request.outputs.add(name="d")
    async with served(gateway) as call:
        answer = await call("ModelInfer", request=request)
    assert [output.name for output in answer.outputs] == ["s", "d"]
    assert gateway.backend.calls[-1].params == {"times": 3, "weights": [0.5, 1.0]}


async def test_what_is_wrong_has_a_status_and_its_places() -> None:
    """Refusals have gRPC's statuses, with the pointers of what doesn't fit in the words."""
    wrong = typed()
    del wrong.inputs[0]
    noted = typed()
    tensor = noted.inputs.add(name="note", datatype="BYTES", shape=[2])
    tensor.contents.bytes_contents.extend([b"a", b"b"])
    async with served(EchoGateway(COLUMNS)) as call:
        missing = await refused(call("ModelInfer", request=wrong))
        unknown = await refused(call("ModelInfer", model_name="nope"))
        version = await refused(call("ModelInfer", request=typed(model_version="9")))
        assert (await call("ModelInfer", request=noted)).outputs[-1].name == "note"
    assert missing.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Required, and missing: 'd'." in missing.details()
    assert unknown.code() is version.code() is grpc.StatusCode.NOT_FOUND


async def test_an_output_with_null_is_refused() -> None:
    """The messages have no null: an answer with one is refused, and never another value."""

    async def lacking(call: Call) -> CallResult:
        return CallResult(output=("columns", ["s"], [["a", None]]))

    gateway = EchoGateway(
        signature([ColSpec("double", "d")], [ColSpec("string", "s", required=False)])
    )
    gateway.service._submit = lacking
    request = message("ModelInferRequest")(model_name="m")
    request.inputs.add(name="d", datatype="FP64", shape=[2]).contents.fp64_contents.extend([1, 2])
    async with served(gateway) as call:
        refusal = await refused(call("ModelInfer", request=request))
    assert refusal.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_server_and_model_tell_of_themselves() -> None:
    """Health, metadata, readiness and the index are those of REST."""
    gateway = EchoGateway(COLUMNS)
    async with served(gateway) as call:
        assert (await call("ServerLive")).live
        assert (await call("ServerReady")).ready
        assert "binary_tensor_data" in (await call("ServerMetadata")).extensions
        metadata = await call("ModelMetadata", name="m")
        assert next((t.name, t.datatype, list(t.shape)) for t in metadata.inputs) == (
            "d", "FP64", [-1],
        )  # fmt: skip
        assert (await call("ModelReady", name="m", version="1")).ready
        assert (await refused(call("ModelReady", name="nope"))).code() is (
            grpc.StatusCode.NOT_FOUND
        )
        gateway.backend.error = ModelUnavailable("It can't be loaded.", load_failed=True)
        failed = await refused(call("ModelInfer", request=typed()))
        assert failed.code() is grpc.StatusCode.UNAVAILABLE
        assert not (await call("ModelReady", name="m")).ready
        assert not (await call("RepositoryIndex", ready=True)).models
        (entry,) = (await call("RepositoryIndex")).models
    assert (entry.name, entry.version, entry.state) == ("m", "1", "UNAVAILABLE")


async def test_the_keys_are_those_of_http() -> None:
    """Without a good key in the metadata nothing is told but health; a key's globs hold."""
    keys = Keys(entry_of("all", "s" * 32, ["predict"]), entry_of("other", "o" * 32, ["predict:x*"]))
    good, other = ((("authorization", f"Bearer {letter * 32}"),) for letter in "so")
    async with served(EchoGateway(COLUMNS), access=Access(keys=keys)) as call:
        assert (await call("ServerLive")).live
        for method, fields in (
            ("ServerMetadata", {}),
            ("ModelReady", {"name": "m"}),
            ("ModelMetadata", {"name": "m"}),
            ("RepositoryIndex", {}),
            ("ModelInfer", {"model_name": "m"}),
        ):
            nobody = await refused(call(method, **fields))
            assert nobody.code() is grpc.StatusCode.UNAUTHENTICATED, method
        forbidden = await refused(call("ModelInfer", other, request=typed()))
        assert forbidden.code() is grpc.StatusCode.PERMISSION_DENIED
        assert not (await call("RepositoryIndex", other)).models
        assert (await call("ModelInfer", good, request=typed())).model_name == "m"


async def _never() -> AsyncIterator[bytes]:
    """A message that doesn't come."""
    await asyncio.Event().wait()
    yield b""


async def test_a_message_is_read_only_of_who_has_a_key() -> None:
    """Who has none is refused before the message is there, which may be large."""
    keys = Keys(entry_of("all", "s" * 32, ["predict"]))
    async with served(EchoGateway(COLUMNS), access=Access(keys=keys)) as call:
        send = call._channel.stream_unary(f"/{SERVICE}/ModelInfer")
        refusal = await refused(send(_never(), timeout=20))
    assert refusal.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_what_is_refused_before_its_model_is_known_is_counted() -> None:
    """Without a key and with what is no message: of no model, by its status and the protocol."""
    gateway = EchoGateway(COLUMNS)
    keys = Keys(entry_of("all", "s" * 32, ["predict"]))
    good = (("authorization", f"Bearer {'s' * 32}"),)
    async with served(gateway, access=Access(keys=keys)) as call:
        await refused(call("ModelInfer", request=typed()))
        unread = call._channel.unary_unary(f"/{SERVICE}/ModelInfer")
        await refused(unread(b"\xff", metadata=good, timeout=20))
        await call("ModelInfer", good, request=typed())
    assert sorted(gateway.traffic.reading()[REQUESTS.name]) == [
        (("", "", "400", "inference_v2_grpc"), 1),
        (("", "", "401", "inference_v2_grpc"), 1),
        (("m", "1", "200", "inference_v2_grpc"), 1),
    ]


async def test_a_message_that_does_not_come_is_given_up() -> None:
    """After the time that a body has, whatever the caller's own deadline is."""
    async with served(EchoGateway(COLUMNS), body_timeout_s=0.1) as call:
        send = call._channel.stream_unary(f"/{SERVICE}/ModelInfer")
        refusal = await refused(send(_never(), timeout=20))
    assert refusal.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "0.1 s" in refusal.details()


async def test_a_message_has_at_most_the_bytes_of_a_body() -> None:
    """More is refused by gRPC itself, before it is read."""
    async with served(EchoGateway(COLUMNS)) as call:
        send = call._channel.unary_unary(f"/{SERVICE}/ModelInfer")
        refusal = await refused(send(b"x" * (1024 * 1024 + 1), timeout=20))
    assert refusal.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_no_other_service_is_there() -> None:
    """There is no reflection, and what isn't a method is UNIMPLEMENTED."""
    async with served(EchoGateway(COLUMNS)) as call:
        for method in (
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            f"/{SERVICE}/RepositoryModelLoad",
        ):
            refusal = await refused(call._channel.unary_unary(method)(b"", timeout=20))
            assert refusal.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_calls_are_counted_and_noted() -> None:
    """A call is counted under its protocol, and has a line in the access log with its request's
    id, which is in the trailing metadata."""
    gateway, journal = EchoGateway(COLUMNS), Journal()
    async with served(gateway, journal=journal) as call:
        refusal = await refused(call("ModelInfer", (("x-request-id", "mine"),), model_name="m"))
    assert dict(refusal.trailing_metadata())["x-request-id"] == "mine"
    assert dict(gateway.traffic.reading()["modelmux_requests"]) == {
        ("m", "1", "422", "inference_v2_grpc"): 1
    }
    (entry,) = journal.entries
    assert (entry.status, entry.scope["path"]) == (422, f"/{SERVICE}/ModelInfer")
    assert answered(entry.scope)[:2] == ("m", 1)


async def test_a_caller_who_leaves_ends_the_call() -> None:
    """A call that is cancelled or late is cancelled in the gateway, and counted as such."""
    gateway = EchoGateway(COLUMNS)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def never(call: Call) -> CallResult:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    gateway.service._submit = never
    async with served(gateway) as call:
        waiting = asyncio.ensure_future(call("ModelInfer", request=typed()))
        await asyncio.wait_for(begun.wait(), 20)
        waiting.cancel()
        await asyncio.wait_for(ended.wait(), 20)
        late = await refused(call("ModelInfer", request=typed(), timeout=0.2))
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    counted = dict(gateway.traffic.reading()["modelmux_requests"])
    assert counted[("m", "", "499", "inference_v2_grpc")] >= 1
