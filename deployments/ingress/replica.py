"""The ingress: the gateway's FastAPI application as a Serve deployment."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.api_key_source import keys_of
from deployments.application_names import MODEL_HOST
from deployments.ingress.autoscaling import IN_FLIGHT
from deployments.ingress.canary_reports import CanaryReports
from deployments.ingress.catalog_feed import RayCatalogFeed
from deployments.ingress.front_door import FrontDoorServer, serve_at
from deployments.ingress.metrics_collection import RayMeasurements
from deployments.ingress.serve_middleware import Front
from deployments.ingress.shadow_reports import ShadowReports
from deployments.logs import PACKAGES, LogOptions, configure_logging, writer
from deployments.model_calls.activation import SyncActivation
from deployments.model_calls.backend import RayBackend
from deployments.placement import placement_by
from deployments.serve.channels import reach_replicas_anew
from deployments.serve.front_door import tells_callers
from deployments.serve.handles import RayHandle, own_replicas, replica_handle
from deployments.serve.queue_reports import report_who_waits
from deployments.serve.replica_ports import listen_on_own_address
from deployments.settings import Settings
from gateway.admission import Admission
from gateway.batching.batcher import MicroBatcher
from gateway.canary import Trials
from gateway.capture.files import CaptureUnusable, store_at
from gateway.capture.journal import CaptureJournal
from gateway.contract.signature import import_ahead
from gateway.http.access_control import Access
from gateway.http.access_log import PROBES, AccessJournal
from gateway.http.app import create_app
from gateway.http.boundary import Boundary
from gateway.http.cross_origin import CrossOrigin, told_without_origin
from gateway.http.placement import Placement
from gateway.http.predict.body import HttpLimits
from gateway.http.predict.direct.predictions import DirectPredictions
from gateway.http.server.protocol import GatewayProtocol
from gateway.metrics.counters import Traffic, TrafficCounter
from gateway.metrics.families import Reading
from gateway.metrics.snapshots import ReplicaNumbers
from gateway.ports import PredictionBackend
from gateway.prediction import PredictionService
from gateway.security.key_usage import KeyUsage
from gateway.shadow.shadowing import Shadowing

if TYPE_CHECKING:
    from deployments.ingress.span_export import SpanExport
    from gateway.http.protocols.inference_v2.grpc_server import InferenceServer
    from gateway.http.tracing import RequestTracing

_logger = logging.getLogger(__name__)

_LAST_WORDS_S = 1.0
# For what is captured, when the replica is stopped.
_LAST_FILES_S = 10.0
# For calls by gRPC that are under way when the replica is stopped; it waits for those by HTTP.
_GRPC_GRACE_S = 5.0

# How long a new replica takes no requests because it knows no models: longer than a sync service
# that was lost at the same moment takes to be back.
_FIRST_NEWS_S = 30.0


# How many objects more than before make Python look for cycles among the young ones: its default
# of 700 is reached by a few requests, and took 8% of the ingress' time (docs/5-performance.md).
_GC_THRESHOLD = 50_000


def _collect_less_often() -> None:
    """Requests leave few cycles behind, and what start-up made lives for ever: to look at all of it
    takes 30 ms, in which nobody is answered."""
    gc.set_threshold(_GC_THRESHOLD, 20, 50)
    gc.collect()
    gc.freeze()


@serve.ingress()
class Ingress:
    """Takes every HTTP request: builds the gateway's application over Ray's side of its ports."""

    def __init__(
        self,
        settings: Settings,
        environment: dict[str, str],
        logs: LogOptions,
        sync: DeploymentHandle[Any],
        door: str | None,
    ) -> None:
        os.environ.update(environment)
        listen_on_own_address()
        reach_replicas_anew()
        report_who_waits()
        configure_logging(logs, *PACKAGES)
        self._placement = Placement(
            root_path=settings.root_path,
            proxies=settings.trusted_proxies,
            front_door_tells=tells_callers(),
        )
        self._journal = AccessJournal(
            writer(logs),
            as_json=logs.as_json,
            without=frozenset() if settings.access_log_probes else PROBES,
            client_of=self._placement.client,
        )
        self._last_words = writer(logs, wait_s=_LAST_WORDS_S)
        import_ahead()
        self._settings = settings
        self._spans: SpanExport | None = None
        if settings.tracing:
            from deployments.ingress.span_export import SpanExport

            self._spans = SpanExport("ingress")
        self._captured = _capture_journal(settings)
        self._sync = RayHandle(sync)
        self._admission = Admission(settings.admission_limits)
        self._traffic = Traffic()
        self._numbers: ReplicaNumbers | None = None
        self._grpc: InferenceServer | None = None
        self._door = door
        self._served: FrontDoorServer | None = None
        self._feed = RayCatalogFeed(self._sync, take_used=self._admission.take_used)
        self._keys = keys_of(settings)
        self._usage = KeyUsage()
        self._trials = Trials()
        reports = CanaryReports(self._sync, self._trials, lambda: self._feed.catalog)
        loop = asyncio.get_running_loop()
        self._following = [
            loop.create_task(self._feed.follow()),
            loop.create_task(reports.follow()),
        ]
        if self._keys is not None:
            self._following.append(loop.create_task(self._keys.follow()))

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called by Ray once the replica is constructed; it gets requests only after that."""
        await self._feed.wait_for_news(timeout_s=_FIRST_NEWS_S)
        if self._keys is not None:
            # However long: a replica that knows no keys would answer 401 to good ones, for ever and
            # beside others that know them.
            await self._keys.wait_until_read()
        settings = self._settings
        backend = RayBackend(
            SyncActivation(self._sync), _models_of, placement=placement_by(settings)
        )
        calls: PredictionBackend = TrafficCounter(backend, self._traffic)
        tracing = None
        if self._spans is not None:
            from gateway.http.tracing import CallTracing, RequestTracing, TraceOrigins

            tracer = self._spans.tracer()
            tracing, calls = RequestTracing(tracer), CallTracing(calls, tracer)
        batcher = MicroBatcher(calls)
        shadowing = Shadowing(backend, streaming=backend, inside=self._admission.inside)
        reports = ShadowReports(self._sync, shadowing.take)
        self._following.append(asyncio.create_task(reports.follow()))
        service = PredictionService(
            feed=self._feed,
            submit=batcher.submit if tracing is None else TraceOrigins(batcher.submit).submit,
            queue=batcher,
            streaming=backend,
            default_timeout_s=settings.request_timeout_s,
            max_timeout_s=settings.max_request_timeout_s,
            max_rows=settings.max_rows,
            admission=self._admission,
            trials=self._trials,
            shadowing=shadowing,
        )
        self._numbers = ReplicaNumbers(
            feed=self._feed,
            service=service,
            traffic=self._traffic,
            admission=self._admission,
            batcher=batcher,
            lost_lines=lambda: self._journal.lost,
            usage=self._usage,
            captured=self._captured,
        )
        limits = HttpLimits(
            max_body_bytes=settings.max_body_bytes, body_timeout_s=settings.body_timeout_s
        )
        secret = settings.webhook_secret
        journal = self._journal if settings.access_log else None
        app = create_app(
            service=service,
            feed=self._feed,
            limits=limits,
            # Ray's RequestIdMiddleware answers with the id that it gave to or got from the caller.
            answers_request_id=self._door is not None,
            journal=journal,
            access=self._access(),
            webhook_secret=None if secret is None else secret.get_secret_value(),
            traffic=self._traffic,
            measurements=RayMeasurements(
                replicas=own_replicas(), sync=self._sync, own=self._reading
            ),
            tracing=tracing,
            placement=self._placement,
            origins=settings.cors_origins,
            captured=self._captured,
            mlflow_url=settings.mlflow_address,
        )
        if settings.grpc_port is not None:
            await self._listen_for_grpc(service, limits, journal, tracing)

        def around(application: ASGIApp) -> ASGIApp:
            bounded = Boundary(application, journal=journal)
            if not settings.cors_origins:
                return bounded
            return CrossOrigin(bounded, settings.cors_origins)

        routes, predictions = app.state.predictions, around(app.state.predictions)
        if tracing is None and service.small is not None:
            GatewayProtocol.direct = DirectPredictions(
                service,
                service.small,
                app.state.predictions,
                access=self._access(),
                journal=journal,
                around=around,
                head=told_without_origin(settings.cors_origins),
            )

        if self._door is None:
            # For what comes to Ray's HTTP server in this process, behind HAProxy.
            Front.routes, Front.predictions = routes, predictions
        else:

            async def served(scope: Scope, receive: Receive, send: Send) -> None:
                answering = predictions if routes.takes(scope) else app
                await answering(scope, receive, send)

            patience_s = settings.request_timeout_s
            self._served = await serve_at(self._door, served, patience_s=patience_s)

        # Not the application itself: Ray would look for each request's route in it, too, and put
        # handlers into it that answer in plain text. A function, by which uvicorn knows ASGI 3.
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await app(scope, receive, send)

        _collect_less_often()
        return application

    async def _listen_for_grpc(
        self,
        service: PredictionService,
        limits: HttpLimits,
        journal: AccessJournal | None,
        tracing: RequestTracing | None,
    ) -> None:
        from gateway.http.protocols.inference_v2.grpc_server import InferenceServer, InferEndpoint

        settings, access = self._settings, self._access()
        infer = InferEndpoint(
            service,
            limits=limits,
            access=access,
            traffic=self._traffic,
            tracing=tracing,
            captured=self._captured,
        )
        self._grpc = InferenceServer(
            service,
            infer,
            access=access,
            journal=journal,
            limits=limits,
        )
        host = settings.grpc_host or settings.host
        host = f"[{host}]" if ":" in host and host[0] != "[" else host
        await self._grpc.start(f"{host}:{settings.grpc_port}")

    async def reading(self) -> tuple[str, Reading]:
        """This replica's short id, and all of its numbers; for whichever replica is scraped."""
        return self._reading()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What Ray's controller decides by how many replicas there should be (see
        `deployments.ingress.autoscaling`); asked where `ingress_max_replicas` is set."""
        return {IN_FLIGHT: sum(load.requests for load in self._admission.loads.values())}

    def _reading(self) -> tuple[str, Reading]:
        if self._keys is not None:
            self._usage.forget_all_but(self._keys.keyring.names)
        numbers = {} if self._numbers is None else self._numbers.reading()
        return serve.get_replica_context().replica_tag, numbers

    async def __del__(self) -> None:
        """Called by Ray when the replica is stopped and has answered nearly everything. It awaits
        this only where the method itself is a coroutine's (`serve.ingress`, Ray 2.60)."""
        server, self._grpc = self._grpc, None
        captured, self._captured = self._captured, None
        if self._served is not None:
            await self._served.close()
        if server is not None:
            await server.stop(_GRPC_GRACE_S)
        if captured is not None:
            await asyncio.to_thread(captured.close, _LAST_FILES_S)
        self._close()

    def _close(self) -> None:
        self._journal.close(self._last_words)
        if self._spans is not None:
            self._spans.close(timeout_s=_LAST_WORDS_S)

    def _access(self) -> Access | None:
        if self._keys is None:
            return None
        return Access(keys=self._keys, public=frozenset(self._settings.public), usage=self._usage)


def _capture_journal(settings: Settings) -> CaptureJournal | None:
    """Where to keep what models' tags say; None where nothing is kept, or can be on this node."""
    if settings.capture_url is None:
        return None
    try:
        return CaptureJournal(store_at(settings.capture_url), settings.capture_limits)
    except CaptureUnusable as problem:
        _logger.error("nothing is captured: %s", problem)
        return None


def _models_of(application: str) -> RayHandle:
    """See `Connect`."""
    return replica_handle(MODEL_HOST, application)
