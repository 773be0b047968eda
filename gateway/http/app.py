"""The FastAPI application: routes of a few lines over the prediction service and the catalog.

Must not import ray or mlflow. Everything that decides lives in `gateway.prediction`,
`gateway.catalog` and `gateway.contract`; everything that fails is rendered by
`gateway.http.problems`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from gateway.capture.journal import CaptureJournal
from gateway.errors import CatalogUnavailable
from gateway.http.access_control import (
    METRICS_PATH,
    Access,
    AccessControl,
    may_read_data,
    require_admin,
    require_sight,
    visible_part,
)
from gateway.http.access_log import AccessJournal
from gateway.http.boundary import Boundary
from gateway.http.compressed_answers import CompressedAnswers
from gateway.http.cross_origin import CrossOrigin
from gateway.http.openapi import Document, DocumentLibrary
from gateway.http.pages.mlflow_links import MlflowLinks
from gateway.http.pages.routes import page_router
from gateway.http.placement import Placed, Placement, prefix_of, relative_root
from gateway.http.predict.answering import Around
from gateway.http.predict.body import HttpLimits
from gateway.http.predict.dialect import Dialect
from gateway.http.predict.endpoint import PredictEndpoint
from gateway.http.predict.path import PREDICT_PATH
from gateway.http.predict.routes import PredictionRoutes, PredictionsFirst
from gateway.http.problem_schemas import problem_responses, without_titles
from gateway.http.problems import MEDIA_TYPE, install_handlers, problem_of
from gateway.http.prometheus import metrics_router
from gateway.http.protocols import mlflow_scoring
from gateway.http.protocols.inference_v2.dialect import INFER_PATHS, InferenceV2
from gateway.http.protocols.inference_v2.routes import inference_v2_router
from gateway.http.protocols.mlflow_scoring import MlflowScoring
from gateway.http.protocols.openai.endpoint import PATHS as OPENAI_PATHS
from gateway.http.protocols.openai.endpoint import OpenAIEndpoint
from gateway.http.protocols.openai.routes import openai_router
from gateway.http.shadow_view import ShadowView, describe_shadow
from gateway.http.shared_components import refer_to_problems, require_key
from gateway.http.views import (
    ModelDetail,
    ModelHistory,
    ModelList,
    describe_history,
    describe_model,
    list_models,
)
from gateway.http.webhook import webhook_router
from gateway.metrics.collection import Measurements
from gateway.metrics.counters import Traffic
from gateway.ports import CatalogFeed
from gateway.prediction import PredictionService
from gateway.security.webhook_signatures import DeliveryCheck, SyncTrigger

if TYPE_CHECKING:
    from gateway.http.tracing import RequestTracing  # OpenTelemetry: only where tracing is on

DIALECTS: tuple[tuple[str, Dialect], ...] = (
    *((path, MlflowScoring()) for path in mlflow_scoring.PATHS),
    *((path, InferenceV2()) for path in INFER_PATHS),
)
"""The paths of predictions beside the typed route, and in which protocol each has them."""

ASSETS = Path(__file__).parent / "assets"
ASSETS_PATH = "/docs/assets"
SYNC_PATH = "/registry/sync"

_DESCRIPTION = """\
Each model has a typed operation below. The same models answer other protocols' clients, whose own
documents describe the bodies; errors and keys are those of the operations here.

| clients | base address | routes |
| --- | --- | --- |
| OpenAI's, of agents and chat models, named as `model` | `/v1` | `POST /v1/chat/completions`, \
`/v1/responses`, `/v1/completions`, `/v1/embeddings`; `GET /v1/models` |
| MLflow's scoring server | `/models/{name}` | `POST /models/{name}/invocations` |
| Open Inference Protocol (Triton, KServe) | `/` | `POST /v2/models/{name}/infer` |

With `Accept: text/event-stream` the typed operation streams what a model's `predict_stream` yields.
"""

_LICENSE = {"name": "Apache 2.0", "identifier": "Apache-2.0"}
_ERRORS = 400
_PLACE = re.compile(r"\{\{ (BASE|KEYS) \}\}")

_ADMIN = "Needs a key with the scope `admin`."
_READ = "Needs a key. One with the scope `predict` alone is shown the models that it may call."
_NEEDS = {SYNC_PATH: _ADMIN, METRICS_PATH: "Needs a key with the scope `read`."}


class Health(BaseModel):
    """The process is alive."""

    status: str = "ok"


class Readiness(BaseModel):
    """A catalog is there; how long ago the registry last answered, in seconds."""

    status: str = "ready"
    generation: int
    models: int
    registry_silent_for_s: float | None
    registry_problem: str | None
    snapshot_problem: str | None


class SyncView(BaseModel):
    """What one look at the registry changed."""

    generation: int
    added: list[str]
    changed: list[str]
    removed: list[str]
    problem: str | None


def create_app(
    *,
    service: PredictionService,
    feed: CatalogFeed,
    limits: HttpLimits,
    answers_request_id: bool = True,
    journal: AccessJournal | None = None,
    access: Access | None = None,
    webhook_secret: str | None = None,
    traffic: Traffic | None = None,
    measurements: Measurements | None = None,
    tracing: RequestTracing | None = None,
    placement: Placement | None = None,
    origins: Collection[str] = (),
    captured: CaptureJournal | None = None,
    mlflow_url: str | None = None,
) -> FastAPI:
    """The gateway's ASGI application over a prediction service and a catalog feed.

    `app.state.predictions` takes what asks for a prediction, for whoever brings it there by a
    shorter way. `answers_request_id` and `journal` are of the `Boundary` around the routes. Where
    `access` is None nothing needs a key; without `webhook_secret` no webhook is taken. Predictions
    are counted in `traffic` and have spans where there is `tracing`; `/metrics` tells what
    `measurements` give, or the catalog alone. `placement` says where callers find all this, and
    pages of `origins` may read it. What models' tags say is kept goes to `captured`; pages lead to
    MLflow at `mlflow_url`.
    """
    placement = placement or Placement()
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    around: Around = {
        "limits": limits,
        "access": access,
        "traffic": traffic,
        "tracing": tracing,
        "captured": captured,
    }
    predictions = PredictionRoutes(
        [
            (PREDICT_PATH, PredictEndpoint(service, **around)),
            *(
                (path, PredictEndpoint(service, route=path, dialect=dialect, **around))
                for path, dialect in DIALECTS
            ),
            *((path, OpenAIEndpoint(path, service, **around)) for path in OPENAI_PATHS),
        ]
    )
    check = None if webhook_secret is None else DeliveryCheck(webhook_secret)
    routers = (
        _models(service, feed),
        _operation(service, feed),
        metrics_router(service, feed, measurements),
        webhook_router(check, SyncTrigger(feed)),
    )
    base = _base_document([route for router in routers for route in router.routes], access)
    library = DocumentLibrary(base, needs_keys=access is not None)
    undocumented = (
        _documentation(service, library, access, placement),
        page_router(service, feed, access, measurements, MlflowLinks(mlflow_url)),
        openai_router(service),
        inference_v2_router(service),
        mlflow_scoring.mlflow_router(service),
    )
    for router in (*routers, *undocumented):
        _answer_head(router)
        app.include_router(router)
    app.state.predictions = predictions
    app.router.routes += predictions.routes
    app.mount(ASSETS_PATH, _Assets(directory=ASSETS), name="assets")
    install_handlers(app)
    app.add_middleware(CompressedAnswers)
    if access is not None:
        app.add_middleware(AccessControl, access=access)
    app.add_middleware(PredictionsFirst, predictions=predictions)
    app.add_middleware(Placed, placement=placement, own=_own_segments(routers))
    app.add_middleware(Boundary, journal=journal, answers_request_id=answers_request_id)
    if origins:
        app.add_middleware(CrossOrigin, origins=origins)
    return app


def _answer_head(router: APIRouter) -> None:
    """Have each route that answers GET answer HEAD (RFC 9110, section 9.3.2), which servers send
    without the body; after the document is made, which would have both."""
    for route in router.routes:
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            route.methods = {*(route.methods or ()), "HEAD"}


def _own_segments(routers: Iterable[APIRouter]) -> frozenset[str]:
    """What the paths of the application begin with."""
    paths = [
        route.path for router in routers for route in router.routes if isinstance(route, Route)
    ]
    return frozenset(path.split("/")[1] for path in (*paths, ASSETS_PATH))


class _Assets(StaticFiles):
    """Files that are small enough to be sent whole: a `Range` is not looked at (RFC 9110, 14.2),
    because Starlette answers a bad one with words of its own."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or an HTTPException."""
        headers = [header for header in scope["headers"] if header[0] != b"range"]
        scope["headers"] = headers
        response = await super().get_response(path, scope)
        # A page and its files change together: a browser asks each time, and mostly hears 304.
        response.headers["Cache-Control"] = "no-cache"
        return response


def _models(service: PredictionService, feed: CatalogFeed) -> APIRouter:
    # Not `async`: in threads of FastAPI's, since predictions would wait for a list of thousands.
    router = APIRouter(tags=["catalog"])

    @router.get(
        "/models",
        operation_id="list_models",
        summary="All served models",
        responses=problem_responses(503),
    )
    def models(request: Request) -> ModelList:
        visible = visible_part(request, service.catalog())
        below = prefix_of(request.scope)
        return list_models(visible, service.unloadable, feed.registry, below=below)

    @router.get(
        "/models/{name}",
        operation_id="describe_model",
        summary="One model: versions, compatibility, schemas",
        responses=problem_responses(404, 503),
    )
    def model(name: str, request: Request) -> ModelDetail:
        require_sight(request, name)
        below = prefix_of(request.scope)
        return describe_model(service.catalog(), name, service.unloadable, below=below)

    @router.get(
        "/models/{name}/history",
        operation_id="list_history",
        summary="What happened to a model's default, the newest first",
        responses=problem_responses(404, 422, 500, 503),
    )
    async def history(
        name: str, request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> ModelHistory:
        require_sight(request, name)
        service.catalog().model(name)
        return describe_history(name, await feed.history(name, limit=limit))

    @router.get(
        "/models/{name}/shadow",
        operation_id="compare_shadow",
        summary="How often a model's shadow answers as its default version does",
        responses=problem_responses(404, 500, 503),
    )
    async def shadow(name: str, request: Request) -> ShadowView:
        require_sight(request, name)
        served = service.catalog().model(name)
        figures = await feed.shadow(name)
        return describe_shadow(served, figures, with_inputs=may_read_data(request))

    return router


def _operation(service: PredictionService, feed: CatalogFeed) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/healthz", operation_id="check_health", summary="Whether the process is alive")
    async def healthz() -> Health:
        return Health()

    @router.get(
        "/readyz",
        operation_id="check_readiness",
        summary="Whether a catalog is there",
        response_model=Readiness,
        responses=problem_responses(503),
    )
    async def readyz(request: Request) -> Readiness | Response:
        registry = feed.registry
        try:
            catalog = service.catalog()
        except CatalogUnavailable as error:
            error.registry_problem = registry.problem
            return problem_of(request.scope, error)
        return Readiness(
            generation=catalog.generation,
            models=len(catalog.models),
            registry_silent_for_s=registry.silent_for_s,
            registry_problem=registry.problem,
            snapshot_problem=registry.snapshot_problem,
        )

    @router.post(
        SYNC_PATH,
        operation_id="look_at_registry",
        summary="Look at the registry now",
        responses=problem_responses(500),
        dependencies=[Depends(require_admin)],
    )
    async def sync() -> SyncView:
        report = await feed.synchronize()
        return SyncView(
            generation=report.generation,
            added=list(report.added),
            changed=list(report.changed),
            removed=list(report.removed),
            problem=report.problem,
        )

    return router


def _documentation(
    service: PredictionService,
    library: DocumentLibrary,
    access: Access | None,
    placement: Placement,
) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    page = (ASSETS / "docs.html").read_text()
    needs_key = access is not None and not access.is_open("/openapi.json")

    @router.get("/openapi.json")
    async def openapi(request: Request) -> Response:
        catalog = service.catalog()
        await library.prepare(catalog)
        visible = visible_part(request, catalog)
        if visible is not catalog:
            document = library.document_of(visible.models.values())
        else:
            document = library.document(catalog)
        return _conditional(request, document, placement)

    @router.get("/models/{name}/openapi.json")
    async def model_openapi(name: str, request: Request) -> Response:
        require_sight(request, name)
        return _conditional(request, library.document(service.catalog(), name), placement)

    @router.get("/docs")
    async def docs(request: Request) -> Response:
        told = {"BASE": relative_root(request.scope), "KEYS": "on" if needs_key else "off"}
        return HTMLResponse(_PLACE.sub(lambda found: told[found[1]], page))

    return router


def _drop_unless_a_problem(responses: dict[str, Any], status: str) -> None:
    if MEDIA_TYPE not in responses.get(status, {}).get("content", {}):
        responses.pop(status, None)


def _base_document(routes: Sequence[BaseRoute], access: Access | None) -> dict[str, Any]:
    document: dict[str, Any] = without_titles(
        get_openapi(
            title="modelmux",
            version=distribution_version("modelmux"),
            summary="Every model of the MLflow registry, by its name alone.",
            description=_DESCRIPTION,
            license_info=_LICENSE,
            routes=routes,
        )
    )
    document["info"]["title"] = "modelmux"
    document["security"] = []  # what needs a key says so itself
    for path, operations in document["paths"].items():
        for operation in operations.values():
            # FastAPI documents a validation error that its own handlers would send: ours don't.
            _drop_unless_a_problem(operation["responses"], "422")
            refer_to_problems(operation, _problems_of(operation))
            if access is not None and not access.is_open(path):
                require_key(operation, _NEEDS.get(path, _READ))
    for schema in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(schema, None)
    return document


def _problems_of(operation: dict[str, Any]) -> list[int]:
    return [int(status) for status in operation["responses"] if int(status) >= _ERRORS]


def _conditional(request: Request, document: Document, placement: Placement) -> Response:
    """304 where the caller has this document already (RFC 9110, section 13.1.2)."""
    server = placement.server(request.scope)
    etag = document.etag_at(server)
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    given = request.headers.get("if-none-match", "").split(",")
    known = {tag.strip().removeprefix("W/") for tag in given}  # compared weakly, as the RFC says
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(document.content_at(server), headers=headers, media_type="application/json")
