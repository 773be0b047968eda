"""What is used of Ray, uvicorn and MLflow without a promise of theirs (docs/11-ray-internals.md).

Each pin fails where a name has moved, or does something else. They are run in a process of their
own, in the environment of the fast path, because unit tests that run in this one must not find ray
imported. None needs a Ray that runs.
"""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing
import os
import re
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from deployments.cluster.ray_environment import fast_path_environment

PINS: dict[str, Callable[[], None]] = {}
"""By the name that stands on the page."""

_RAYLET = "core/src/ray/raylet/raylet"
_PORTS = range(20_000, 20_099)


def pin(*names: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """The decorated function fails where these names are no more what they were."""

    def named(check: Callable[[], None]) -> Callable[[], None]:
        PINS.update(dict.fromkeys(names, check))
        return check

    return named


# --- Serve's client, Ray's node ---------------------------------------------------------------


@pin("ray.serve.context._get_global_client")
def _client_of_none() -> None:
    from ray.serve import context
    from ray.serve.schema import ApplicationStatus

    from deployments.serve.client import application_status, serve_client

    with pytest.MonkeyPatch.context() as patching:
        # The real one starts a Ray where there is none.
        patching.setattr(context, "_connect", lambda raises: "raised" if raises else None)
        assert serve_client() is None
        assert application_status("any") is ApplicationStatus.NOT_STARTED


@pin("ray.serve._private.client.ServeControllerClient")
def _client() -> None:
    from ray.serve._private.application_state import ApplicationStatusInfo, StatusOverview
    from ray.serve._private.client import ServeControllerClient
    from ray.serve.schema import ApplicationStatus

    asked = inspect.signature(ServeControllerClient.get_serve_status)
    assert list(asked.parameters) == ["self", "name"]
    assert asked.return_annotation is StatusOverview
    running = ApplicationStatusInfo(ApplicationStatus.RUNNING)
    overview = StatusOverview(app_status=running, name="any")
    assert overview.app_status.status is ApplicationStatus.RUNNING
    assert isinstance(ServeControllerClient.http_config, property)
    assert callable(ServeControllerClient.get_serve_details)


@pin("ray._private.parameter.RayParams")
def _parameters() -> None:
    import ray
    from ray._private import node, parameter, worker

    from deployments.cluster.lean_ray import without_monitors

    with without_monitors():
        lean = parameter.RayParams(redirect_output=None)
    usual = parameter.RayParams(redirect_output=None)
    assert (lean.no_monitor, lean.include_log_monitor) == (True, False)
    assert usual.no_monitor is False
    assert "ray._private.parameter.RayParams(" in inspect.getsource(worker.init)
    started = inspect.getsource(node.Node)
    assert "if not self._ray_params.no_monitor:" in started
    assert "if self._ray_params.include_log_monitor:" in started
    assert ray._private.parameter is parameter


@pin("ray._private.node.Node.start_api_server")
def _dashboard_server() -> None:
    from ray._private import node, services

    from deployments.cluster.lean_ray import _start_nothing, without_monitors

    usual = node.Node.start_api_server
    with without_monitors():
        assert node.Node.start_api_server is _start_nothing
    assert node.Node.start_api_server is usual
    assert inspect.signature(usual).parameters.keys() == (
        inspect.signature(_start_nothing).parameters.keys() - {"node"} | {"self"}
    )
    assert "self.start_api_server(" in inspect.getsource(node.Node.start_head_processes)
    # All that it leaves behind; nobody of ours asks for it.
    started = inspect.getsource(usual)
    assert set(re.findall(r"self\.(\w+) = |self\.(\w+), \w+ = ", started)) == {("", "_webui_url")}
    assert 'b"webui:url"' in started
    assert "--modules-to-load=UsageStatsHead" in inspect.getsource(services.start_api_server)


@pin("ray._private.worker._global_node")
def _node() -> None:
    import ray
    from ray._private.node import Node

    from deployments.cluster.launch import ended_ray_process

    assert ray._private.worker._global_node is None, "without a Ray"
    assert ended_ray_process() is None
    one, other = (SimpleNamespace(process=SimpleNamespace(poll=lambda r=r: r)) for r in (None, -9))
    node = SimpleNamespace(all_processes={"log_monitor": [other], "raylet": [other, one]})
    kinds = [kind for kind, _ in Node.dead_processes(cast(Node, node))]
    assert kinds == ["log_monitor", "raylet"]
    assert "PROCESS_TYPE_GCS_SERVER" in inspect.getsource(Node)
    assert ray._private.ray_constants.PROCESS_TYPE_GCS_SERVER == "gcs_server"
    assert ray._private.ray_constants.PROCESS_TYPE_RAYLET == "raylet"


@pin(
    "ray._private.state",
    "ray.experimental.internal_kv._internal_kv_get",
    "ray.experimental.internal_kv._internal_kv_put",
    "ray.experimental.internal_kv._internal_kv_del",
)
def _owner() -> None:
    from ray._private import state
    from ray._private.state import GlobalState
    from ray.experimental import internal_kv

    assert inspect.signature(state.jobs).parameters == {}
    told = inspect.getsource(GlobalState.job_table)
    assert 'job_info["JobID"] = entry.job_id.hex()' in told
    assert 'job_info["IsDead"] = entry.is_dead' in told
    put = inspect.signature(internal_kv._internal_kv_put).parameters
    assert list(put) == ["key", "value", "overwrite", "namespace"]
    for name in ("_internal_kv_get", "_internal_kv_del"):
        assert "namespace" in inspect.signature(getattr(internal_kv, name)).parameters


@pin("address_info")
def _address_info() -> None:
    from ray._private.node import Node
    from ray._private.worker import RayContext

    assert "self.address_info = address_info" in inspect.getsource(RayContext)
    told = cast(property, Node.address_info).fget
    assert '"session_dir": self._session_dir' in inspect.getsource(cast(Any, told))


# --- replicas ---------------------------------------------------------------------------------


@pin(
    "ray.serve._private.replica",
    "ray.serve._private.replica.add_port_to_grpc_server",
    "ray.serve._private.replica.Replica._maybe_start_direct_ingress_servers",
)
def _ports() -> None:
    from ray.serve._private import replica

    initialized = inspect.getsource(replica.Replica._on_initialized)
    assert 'add_port_to_grpc_server(self._server, "[::]:0")' in initialized
    assert "await self._maybe_start_direct_ingress_servers()" in initialized
    added = replica.add_port_to_grpc_server
    assert list(inspect.signature(added).parameters) == ["server", "address"]
    started = replica.Replica._maybe_start_direct_ingress_servers
    assert inspect.iscoroutinefunction(started)
    assert list(inspect.signature(started).parameters) == ["self"]


@pin("__serve_build_asgi_app__")
def _late_application() -> None:
    from ray import serve
    from ray.serve._private import replica

    assert replica.SERVE_BUILD_ASGI_APP_METHOD == "__serve_build_asgi_app__"
    with pytest.raises(ValueError, match="to define `__serve_build_asgi_app__`"):
        serve.ingress()(type("WithoutIt", (), {}))
    serve.ingress()(type("WithIt", (), {"__serve_build_asgi_app__": lambda self: None}))


@pin("__del__", "record_autoscaling_stats")
def _methods_that_ray_calls() -> None:
    from ray.serve._private.replica import UserCallableWrapper

    source = inspect.getsource(UserCallableWrapper)
    # Awaited: a model's replica has an `async def __del__`.
    assert re.search(r"await self\._call_func_or_gen\(\s*self\._callable\.__del__", source)
    assert 'self._callable, "record_autoscaling_stats", None' in source


@pin("AutoscalingContext")
def _autoscaling() -> None:
    from ray.serve.config import AutoscalingConfig, AutoscalingContext

    from deployments.ingress.autoscaling import IN_FLIGHT, replicas_by_requests

    given: dict[str, Any] = dict.fromkeys(inspect.signature(AutoscalingContext).parameters)
    given |= {
        "config": AutoscalingConfig(target_ongoing_requests=2, max_replicas=9),
        "aggregated_metrics": lambda: {IN_FLIGHT: {"a": 3.0, "b": 4.0}},
    }
    assert replicas_by_requests(AutoscalingContext(**given)) == (4, {})
    given |= {"aggregated_metrics": {}, "target_num_replicas": 3}
    assert replicas_by_requests(AutoscalingContext(**given)) == (3, {})


# --- handles ----------------------------------------------------------------------------------


@pin("broadcast")
def _broadcast() -> None:
    from ray.serve.handle import DeploymentBroadcastResponse, DeploymentHandle

    made = inspect.signature(DeploymentHandle.broadcast).return_annotation
    assert DeploymentBroadcastResponse.__name__ in str(made)
    results = DeploymentBroadcastResponse.results_async
    assert "return_exceptions" in inspect.signature(results).parameters
    assert inspect.iscoroutinefunction(results)


@pin("request_serialization")
def _serialization() -> None:
    from ray.serve._private.serialization import RPCSerializer
    from ray.serve.handle import DeploymentHandle

    options = inspect.signature(DeploymentHandle.options).parameters
    assert {"request_serialization", "response_serialization", "multiplexed_model_id"} <= {*options}
    serializer = RPCSerializer("pickle", "pickle")
    assert serializer.loads_request(serializer.dumps_request((1, "a"))) == (1, "a")


@pin("grpc.aio.AioRpcError")
def _grpc_errors() -> None:
    import grpc
    from ray import ActorID
    from ray.exceptions import ActorUnavailableError
    from ray.serve._private.replica_result import gRPCReplicaResult

    def error_for(code: grpc.StatusCode) -> type[BaseException]:
        def fails(_: object) -> None:
            raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())

        result = SimpleNamespace(_actor_id=ActorID.nil())
        try:
            gRPCReplicaResult._process_grpc_response(fails)(result)
        except Exception as error:  # noqa: BLE001 - its type is what is asked
            return type(error)
        raise AssertionError("no error")

    assert error_for(grpc.StatusCode.UNAVAILABLE) is ActorUnavailableError
    assert error_for(grpc.StatusCode.CANCELLED) is grpc.aio.AioRpcError


@pin(
    "ray.serve._private.router",
    "ray.serve._private.router.AsyncioRouter._route_and_send_request_once",
    "ray.serve._private.request_router.replica_wrapper",
    "ray.serve._private.request_router.replica_wrapper.init_grpc_channel",
)
def _channels() -> None:
    from ray.serve._private import router
    from ray.serve._private.request_router import replica_wrapper

    from deployments.serve.channels import reach_replicas_anew

    sent = router.AsyncioRouter._route_and_send_request_once
    assert inspect.iscoroutinefunction(sent)
    assert list(inspect.signature(sent).parameters) == ["self", "pr", "response_id", "is_retry"]
    sending = inspect.getsource(router.AsyncioRouter.route_and_send_request)
    assert "await self._route_and_send_request_once(" in sending
    assert "is_retry = True" in sending
    made = replica_wrapper.init_grpc_channel
    assert list(inspect.signature(made).parameters)[:2] == ["address", "options"]
    assert "self._channel = init_grpc_channel(" in inspect.getsource(replica_wrapper)
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(replica_wrapper, "init_grpc_channel", made)
        patching.setattr(router.AsyncioRouter, "_route_and_send_request_once", sent)
        reach_replicas_anew()
        assert replica_wrapper.init_grpc_channel is not made
        assert router.AsyncioRouter._route_and_send_request_once is not sent


@pin(
    "RouterMetricsManager.push_autoscaling_metrics_to_controller",
    "RouterMetricsManager._add_autoscaling_metrics_point",
)
def _queue_reports() -> None:
    from ray.serve._private import router

    from deployments.serve.queue_reports import report_who_waits

    manager = router.RouterMetricsManager
    push = manager.push_autoscaling_metrics_to_controller
    assert list(inspect.signature(push).parameters) == ["self"]
    assert list(inspect.signature(manager._add_autoscaling_metrics_point).parameters) == ["self"]
    waiting = inspect.getsource(manager.wrap_queued_request)
    assert waiting.index("self.inc_num_queued_requests()") < waiting.index(f"self.{push.__name__}")
    # Once it has the number itself, there is nothing to be done here.
    assert "self.metrics_store.data.get(" in inspect.getsource(manager._get_metrics_report)
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(manager, "push_autoscaling_metrics_to_controller", push)
        report_who_waits()
        assert manager.push_autoscaling_metrics_to_controller is not push


@pin("ray._private.services.canonicalize_bootstrap_address")
def _bootstrap_address() -> None:
    from ray._private import services, worker

    found = services.canonicalize_bootstrap_address
    assert next(iter(inspect.signature(found).parameters)) == "addr"
    assert found("192.0.2.1:6379") == "192.0.2.1:6379"
    assert "services.canonicalize_bootstrap_address(address" in inspect.getsource(worker.init)


# --- versions in a replica --------------------------------------------------------------------


@pin("multiplexed")
def _lru() -> None:
    from ray.serve import multiplex

    from deployments.model_replica.replica import _ray_lru
    from deployments.model_replica.residents import Resident

    events: list[str] = []

    async def take(key: str) -> Resident:
        events.append(f"takes {key}")
        return Resident(lambda: events.append(f"evicts {key}"))

    async def use() -> None:
        keep = _ray_lru(2)(take)
        kept = {key: await keep(key) for key in "ab"}
        assert await keep("a") is kept["a"]
        assert events == ["takes a", "takes b"]
        await keep("c")
        assert events == ["takes a", "takes b", "evicts b", "takes c"], "though `kept` has it"

    replica = SimpleNamespace(app_name="a", deployment="d", replica_id="r")
    silent = SimpleNamespace(register_or_update_task=lambda *_: None, start=lambda: None)
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(multiplex, "_get_internal_replica_context", lambda: replica)
        patching.setattr(multiplex, "MetricsPusher", lambda: silent)
        patching.setattr(multiplex.ServeUsageTag.MULTIPLEXED_API_USED, "record", lambda _: None)
        asyncio.run(use())


# --- HTTP -------------------------------------------------------------------------------------


@pin("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH")
def _middlewares() -> None:
    from ray.serve._private.http_util import configure_http_middlewares
    from ray.serve.config import HTTPOptions
    from uvicorn.config import HTTP_PROTOCOLS

    from deployments.ingress.serve_middleware import RequestFront

    with pytest.MonkeyPatch.context() as patching:
        patching.setitem(HTTP_PROTOCOLS, "auto", HTTP_PROTOCOLS["auto"])
        found = configure_http_middlewares(HTTPOptions()).middlewares
    assert [each.cls for each in found] == [RequestFront]


@pin("x-request-timeout-seconds", "x-request-disconnect-disabled", "serve_multiplexed_model_id")
def _headers() -> None:
    from ray.serve._private import constants, http_util, proxy

    from deployments.ingress import serve_middleware
    from gateway.http.predict.version_header import RAY_HEADER

    deadline = constants.SERVE_HTTP_REQUEST_TIMEOUT_S_HEADER
    assert deadline.encode() == serve_middleware._RAY_DEADLINE
    unwatched = constants.SERVE_HTTP_REQUEST_DISCONNECT_DISABLED_HEADER
    assert unwatched.encode() == serve_middleware._UNWATCHED
    assert RAY_HEADER == constants.SERVE_MULTIPLEXED_MODEL_ID
    assert "SERVE_HTTP_REQUEST_TIMEOUT_S_HEADER.encode" in inspect.getsource(http_util)
    assert "SERVE_MULTIPLEXED_MODEL_ID" in inspect.getsource(proxy)


@pin("ray.serve._private.http_util.RequestIdMiddleware")
def _request_id() -> None:
    from ray.serve._private import http_util

    source = inspect.getsource(http_util.RequestIdMiddleware)
    assert "SERVE_HTTP_REQUEST_ID_HEADER" in source
    assert http_util.SERVE_HTTP_REQUEST_ID_HEADER == "x-request-id"


@pin(
    "uvicorn.config.HTTP_PROTOCOLS",
    "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol",
    "HttpToolsProtocol._start_asgi_task",
    "uvicorn.protocols.http.httptools_impl.RequestResponseCycle",
)
def _uvicorn() -> None:
    from ray.serve._private import http_util
    from uvicorn import Config
    from uvicorn.config import HTTP_PROTOCOLS
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
    from uvicorn.server import ServerState

    from gateway.http.server.protocol import GatewayProtocol

    served = inspect.getsource(http_util.start_asgi_http_server)
    assert "uvicorn.Config(" in served
    assert "http=" not in served
    with pytest.MonkeyPatch.context() as patching:
        name = f"{GatewayProtocol.__module__}:{GatewayProtocol.__name__}"
        patching.setitem(HTTP_PROTOCOLS, "auto", name)
        config = Config(lambda: None, factory=True, log_config=None)
        config.load()
    assert config.http_protocol_class is GatewayProtocol, "what is used where nobody says more"
    for name, parameters in {
        "send_400_response": ["self", "msg"],
        "_should_upgrade": ["self"],
        "connection_made": ["self", "transport"],
        "on_headers_complete": ["self"],
        "on_body": ["self", "body"],
        "on_message_complete": ["self"],
        "on_response_complete": ["self"],
        "_start_asgi_task": ["self", "cycle", "app"],
    }.items():
        found = inspect.signature(getattr(HttpToolsProtocol, name))
        assert list(found.parameters) == parameters, name
    made = HttpToolsProtocol(config, ServerState(), {}, asyncio.new_event_loop())
    for name in (
        "cycle", "scope", "headers", "flow", "limit_concurrency", "root_path",
        "timeout_keep_alive_task",
    ):  # fmt: skip
        assert hasattr(made, name), name
    begun = inspect.getsource(HttpToolsProtocol.on_message_begin)
    set_then = {*re.findall(r"self\.(\w+) = ", begun)}
    assert set_then == {"url", "expect_100_continue", "headers", "scope"}, "without a parser, too"
    ended = inspect.getsource(HttpToolsProtocol.on_response_complete)
    assert {*re.findall(r"self\.(\w+(?:\.\w+)?)\(", ended)} == {
        "transport.is_closing", "_unset_keepalive_if_required", "flow.resume_reading",
        "pipeline.pop", "_start_asgi_task", "loop.call_later",
    }  # fmt: skip
    looked_at = {"response_complete", "disconnected", "keep_alive", "message_event"}
    source = inspect.getsource(HttpToolsProtocol)
    assert set(re.findall(r"self\.cycle\.(\w+)", source)) == looked_at | {"body", "more_body"}
    cycle = inspect.signature(RequestResponseCycle)
    assert {"on_response", "keep_alive", "message_event", "expect_100_continue"} <= set(
        cycle.parameters
    )


@pin(
    "PrestartWorkers",
    "ray._private.grpc_utils.init_grpc_channel",
    "gcs_client.cluster_id",
    "ray::IDLE",
    "default_worker",
)
def _spare_worker() -> None:
    from ray._private import grpc_utils, services
    from ray._private.authentication import grpc_authentication_client_interceptor as interceptor
    from ray.core.generated import node_manager_pb2, node_manager_pb2_grpc

    from deployments.serve import spare_worker

    fields = node_manager_pb2.PrestartWorkersRequest.DESCRIPTOR.fields_by_name
    wanted = {"language", "job_id", "runtime_env_info", "keep_alive_duration_secs", "num_workers"}
    assert wanted == set(fields)
    assert "PrestartWorkers" in inspect.getsource(node_manager_pb2_grpc.NodeManagerServiceStub)
    assert "address" in inspect.signature(grpc_utils.init_grpc_channel).parameters
    assert hasattr(interceptor, "SyncAuthenticationMetadataClientInterceptor")
    assert spare_worker._STARTING in inspect.getsource(services)
    package = Path(str(distribution("ray").locate_file("ray")))
    read = b"".join((package / name).read_bytes() for name in ("_raylet.so", _RAYLET))
    for name in (b"ray_cluster_id", spare_worker._WAITING.encode()):
        assert name in read, name


# --- The front door, HAProxy and the environment ------------------------------------------------


@pin("uvicorn.server.ServerState", "uvicorn.Server.startup")
def _own_server() -> None:
    import uvicorn

    made = inspect.getsource(uvicorn.server.ServerState.__init__)
    for name in ("connections", "tasks", "default_headers", "total_requests"):
        assert f"self.{name}" in made
    assert "self.server_state = ServerState()" in inspect.getsource(uvicorn.Server.__init__)
    startup = inspect.getsource(uvicorn.Server.startup)
    assert "server_state=self.server_state" in startup
    assert "self.servers.append(server)" in startup


@pin("HttpToolsProtocol._unsupported_upgrade_warning")
def _upgrade() -> None:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    source = inspect.getsource(HttpToolsProtocol.data_received)
    stopped = source.partition("except httptools.HttpParserUpgrade:")[2]
    assert "self._unsupported_upgrade_warning()" in stopped


@pin("RAY_SERVE_ENABLE_DIRECT_INGRESS")
def _no_proxy() -> None:
    from ray.serve._private import constants, controller

    source = inspect.getsource(constants)
    assert 'get_env_bool(\n        "RAY_SERVE_ENABLE_DIRECT_INGRESS", "1"' in source
    assert "elif self._direct_ingress_enabled:" in inspect.getsource(controller)


@pin("http_frontend", "bind", "http-request", "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM")
def _template() -> None:
    from ray.serve._private.haproxy import HAProxyConfig
    from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE as TEMPLATE

    lines = [line.strip() for line in TEMPLATE.splitlines()]
    front = lines.index("frontend http_frontend")
    assert lines[front + 1] == "bind {{ config.frontend_host }}:{{ config.frontend_port }}"
    balance = lines.index("balance {{ config.balance_algorithm }}")
    assert lines[balance + 1].startswith("frontend "), "the last of the defaults"
    assert "errorfile 504 {{ config.error_file_path }}" in lines[:balance]
    refusing = lines[lines.index("backend default_backend") + 1]
    assert refusing.startswith("http-request return status 404 ")
    assert refusing.endswith('"')
    assert sum(line.startswith("http-request return status 404 ") for line in lines) == 1
    algorithm = inspect.signature(HAProxyConfig).parameters["balance_algorithm"].default
    assert algorithm.startswith("leastconn\n"), "taken from the environment as it is"
    assert {line for line in lines if line.startswith("bind ") and "grpc" not in line} == {
        lines[front + 1],
        "bind :{{ config.metrics_port }}",
        "bind *:{{ config.stats_port }}",
    }


@pin("RAY_SERVE_HAPROXY_SOCKET_PATH")
def _admin_socket() -> None:
    from ray.serve._private import haproxy

    source = inspect.getsource(haproxy)
    assert "os.path.join(d, self._node_id, f)" in source
    assert "_per_node(RAY_SERVE_HAPROXY_SOCKET_PATH)" in source


@pin("RAY_…")
def _variables() -> None:
    package = Path(str(distribution("ray").locate_file("ray")))
    binaries = [package / "_raylet.so", package / _RAYLET]
    read = b"".join(path.read_bytes() for path in [*package.rglob("*.py"), *binaries])
    variables = [
        *fast_path_environment(Path(), _PORTS, proxied=True),
        *fast_path_environment(Path(), _PORTS, proxied=False),
    ]
    unread = [name for name in variables if name.encode() not in read]
    # A setting of Ray's core has its name without the prefix.
    assert [name for name in unread if name.removeprefix("RAY_").encode() not in read] == []


# --- MLflow -----------------------------------------------------------------------------------


@pin(
    "MlflowClient._get_registry_client",
    "ModelRegistryClient.store",
    "RegisteredModel._is_prompt",
    "ArtifactRepository._download_file",
    "PyFuncModel._model_meta",
)
def _mlflow() -> None:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel
    from mlflow.pyfunc import PyFuncModel
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    client = MlflowClient("http://127.0.0.1:1")._get_registry_client()
    parameters = inspect.signature(client.get_model_version_download_uri).parameters
    assert list(parameters) == ["name", "version"]
    searched = inspect.signature(client.store.search_registered_models).parameters
    assert {"filter_string", "max_results", "page_token"} <= set(searched)
    assert not RegisteredModel("m")._is_prompt()
    for repository in (ArtifactRepository, MlflowArtifactsRepository):
        found = inspect.signature(repository._download_file)
        assert list(found.parameters) == ["self", "remote_file_path", "local_path"]
    metadata = object()
    model = PyFuncModel.__new__(PyFuncModel)
    model._model_meta = metadata
    assert model.metadata is metadata


# --- all of them ------------------------------------------------------------------------------


def _prepare() -> None:
    """As in a process of the ingress; before ray is imported."""
    warnings.simplefilter("ignore")
    os.environ.update(fast_path_environment(Path("folder"), _PORTS, proxied=True))
    os.environ["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = (
        "deployments.ingress.serve_middleware:middlewares"
    )


def _check(name: str) -> None:
    PINS[name]()


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Executor]:
    """A process that has the fast path's environment, and may import ray."""
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawning, initializer=_prepare) as process:
        yield process


@pytest.mark.parametrize("name", PINS)
def test_what_has_no_promise_is_as_it_was(elsewhere: Executor, name: str) -> None:
    """What the page names is there, and does what it is used for."""
    elsewhere.submit(_check, name).result(120)
