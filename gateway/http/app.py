"""The FastAPI application: routes of a few lines over the prediction service and the catalog.

Must not import ray or mlflow. Everything that decides lives in `gateway.prediction`,
`gateway.catalog` and `gateway.contract`; everything that fails is rendered by
`gateway.http.problems`.
"""

from __future__ import annotations

from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from gateway.errors import CatalogUnavailable
from gateway.http.access_control import (
    METRICS_PATH,
    Access,
    AccessControl,
    require_admin,
    require_sight,
    visible_part,
)
from gateway.http.access_log import AccessJournal
from gateway.http.boundary import Boundary
from gateway.http.openapi import Document, DocumentLibrary, require_key
from gateway.http.pages.routes import page_router
from gateway.http.predict.body import HttpLimits
from gateway.http.predict.dialect import Dialect
from gateway.http.predict.endpoint import PredictEndpoint
from gateway.http.predict.path import PREDICT_PATH
from gateway.http.predict.routes import PredictionRoutes
from gateway.http.problems import install_handlers, problem_of, problem_responses
from gateway.http.prometheus import metrics_router
from gateway.http.protocols import mlflow_scoring
from gateway.http.protocols.mlflow_scoring import MlflowScoring
from gateway.http.views import ModelDetail, ModelList, describe_model, list_models
from gateway.http.webhook import webhook_router
from gateway.metrics.collection import Measurements
from gateway.metrics.counters import Traffic
from gateway.ports import CatalogFeed
from gateway.prediction import PredictionService
from gateway.security.webhook_signatures import DeliveryCheck, SyncTrigger

if TYPE_CHECKING:
    from gateway.http.tracing import RequestTracing  # OpenTelemetry: only where tracing is on

DIALECTS: tuple[tuple[str, Dialect], ...] = (
    (PREDICT_PATH, Dialect()),
    *((path, MlflowScoring()) for path in mlflow_scoring.PATHS),
)
"""The paths of predictions, and in which protocol each has them."""

ASSETS = Path(__file__).parent / "assets"
SYNC_PATH = "/registry/sync"

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
) -> FastAPI:
    """The gateway's ASGI application over a prediction service and a catalog feed.

    `app.state.predictions` takes what asks for a prediction, for whoever brings it there by a
    shorter way. `answers_request_id` and `journal` are of the `Boundary` around the routes. Where
    `access` is None nothing needs a key; without `webhook_secret` no webhook is taken. Predictions
    are counted in `traffic` and have spans where there is `tracing`; `/metrics` tells what
    `measurements` give, or the catalog alone.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)

    def endpoint(dialect: Dialect) -> PredictEndpoint:
        return PredictEndpoint(
            service,
            limits=limits,
            access=access,
            traffic=traffic,
            tracing=tracing,
            dialect=dialect,
        )

    predictions = PredictionRoutes([(path, endpoint(dialect)) for path, dialect in DIALECTS])
    if access is not None:
        app.add_middleware(AccessControl, access=access)
    app.add_middleware(Boundary, journal=journal, answers_request_id=answers_request_id)
    install_handlers(app)
    app.state.predictions = predictions
    app.router.routes += predictions.routes
    check = None if webhook_secret is None else DeliveryCheck(webhook_secret)
    webhook = webhook_router(check, SyncTrigger(feed))
    metrics = metrics_router(service, feed, measurements)
    mlflow = mlflow_scoring.mlflow_router(service)
    routers = (_models(service, feed), _operation(service, feed), metrics, webhook, mlflow)
    for router in routers:
        app.include_router(router)
    library = DocumentLibrary(_base_document(app, access), needs_keys=access is not None)
    app.include_router(_documentation(service, library, access))
    app.include_router(page_router(service, feed, access))
    app.mount("/docs/assets", _Assets(directory=ASSETS), name="assets")
    return app


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

    @router.get("/models", summary="All served models", responses=problem_responses(503))
    def models(request: Request) -> ModelList:
        visible = visible_part(request, service.catalog())
        return list_models(visible, service.unloadable, feed.registry)

    @router.get(
        "/models/{name}",
        summary="One model: versions, compatibility, schemas",
        responses=problem_responses(404, 503),
    )
    def model(name: str, request: Request) -> ModelDetail:
        require_sight(request, name)
        return describe_model(service.catalog(), name, service.unloadable)

    return router


def _operation(service: PredictionService, feed: CatalogFeed) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", summary="Whether the process is alive")
    async def healthz() -> Health:
        return Health()

    @router.head("/readyz", include_in_schema=False, response_model=None)
    @router.get(
        "/readyz",
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
    service: PredictionService, library: DocumentLibrary, access: Access | None
) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/openapi.json")
    async def openapi(request: Request) -> Response:
        catalog = service.catalog()
        await library.prepare(catalog)
        visible = visible_part(request, catalog)
        if visible is not catalog:
            return _conditional(request, library.document_of(visible.models.values()))
        return _conditional(request, library.document(catalog))

    @router.get("/models/{name}/openapi.json")
    async def model_openapi(name: str, request: Request) -> Response:
        require_sight(request, name)
        return _conditional(request, library.document(service.catalog(), name))

    @router.get("/docs")
    async def docs(request: Request) -> Response:
        if access is not None and not access.is_open("/openapi.json"):
            return FileResponse(ASSETS / "docs-with-key.html")
        root = request.scope.get("root_path", "").rstrip("/")
        return get_swagger_ui_html(
            openapi_url=f"{root}/openapi.json",
            title="modelmux",
            swagger_js_url=f"{root}/docs/assets/swagger-ui-bundle.js",
            swagger_css_url=f"{root}/docs/assets/swagger-ui.css",
            swagger_favicon_url=f"{root}/docs/assets/favicon.svg",
            swagger_ui_parameters={"docExpansion": "list", "defaultModelsExpandDepth": 0},
        )

    return router


def _base_document(app: FastAPI, access: Access | None) -> dict[str, Any]:
    document = get_openapi(
        title="modelmux",
        version=distribution_version("modelmux"),
        summary="Every model of the MLflow registry, by its name alone.",
        routes=app.routes,
    )
    for path, operations in document["paths"].items():
        for operation in operations.values():
            # FastAPI documents a validation error that its own handlers would send: ours don't.
            operation["responses"].pop("422", None)
            if access is not None and not access.is_open(path):
                require_key(operation, _NEEDS.get(path, _READ))
    for schema in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(schema, None)
    return document


def _conditional(request: Request, document: Document) -> Response:
    """304 where the caller has this document already (RFC 9110, section 13.1.2)."""
    headers = {"ETag": document.etag, "Cache-Control": "no-cache"}
    given = request.headers.get("if-none-match", "").split(",")
    known = {tag.strip().removeprefix("W/") for tag in given}  # compared weakly, as the RFC says
    if document.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(document.content, headers=headers, media_type="application/json")
