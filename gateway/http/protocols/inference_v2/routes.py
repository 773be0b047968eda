"""The routes of the Open Inference Protocol but for `infer`: health, metadata, the index."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from gateway.admission import Admission, AdmissionLimits
from gateway.catalog import Resolution
from gateway.contract import malformed
from gateway.http.access_control import require_sight, visible_part
from gateway.http.predict.body import HttpLimits, read_body
from gateway.http.protocols.inference_v2.dialect import MODEL_PATH, VERSION_PATH
from gateway.http.protocols.inference_v2.model_metadata import (
    model_metadata,
    repository_index,
    require_ready,
    server_metadata,
)
from gateway.prediction import PredictionService

_INDEX_PATH = "/v2/repository/index"
# The body is one flag.
_LIMITS = HttpLimits(max_body_bytes=64 * 1024, body_timeout_s=10.0)


def inference_v2_router(service: PredictionService) -> APIRouter:
    """The routes over one prediction service."""
    router = APIRouter(include_in_schema=False)
    _add_server(router, service)
    _add_models(router, service)
    return router


def _add_server(router: APIRouter, service: PredictionService) -> None:
    admission = Admission(AdmissionLimits(body_bytes=1024 * 1024))

    @router.get("/v2")
    async def server() -> JSONResponse:
        return JSONResponse(server_metadata())

    @router.get("/v2/health/live")
    async def live() -> JSONResponse:
        return JSONResponse({"live": True})

    @router.get("/v2/health/ready")
    async def ready() -> JSONResponse:
        service.catalog()
        return JSONResponse({"ready": True, "live": True})

    # Not `async`, as the lists of `gateway.http.app`: there may be thousands.
    @router.get("/v2/models")
    def models(request: Request) -> JSONResponse:
        return JSONResponse({"models": sorted(visible_part(request, service.catalog()).models)})

    @router.post(_INDEX_PATH)
    async def index(request: Request) -> JSONResponse:
        with admission.arrive(_INDEX_PATH) as visit:
            headers = request.scope["headers"]
            body = await read_body(headers, request.receive, limits=_LIMITS, visit=visit)
        catalog = visible_part(request, service.catalog())
        found = await run_in_threadpool(
            repository_index, catalog, service.unloadable, only_ready=_only_ready(body)
        )
        return JSONResponse(found)


def _only_ready(body: bytes) -> bool:
    """The member `ready` of the request, which clients may leave out with all of it."""
    try:
        asked: Any = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError:
        raise malformed(body) from None
    return isinstance(asked, dict) and asked.get("ready") is True


def _add_models(router: APIRouter, service: PredictionService) -> None:
    def resolved(request: Request) -> Resolution:
        path = request.path_params
        require_sight(request, path["name"])
        return service.resolve(path["name"], path.get("selector"))

    def metadata(request: Request) -> JSONResponse:
        resolution = resolved(request)
        return JSONResponse(model_metadata(service.catalog(), resolution))

    def ready(request: Request) -> JSONResponse:
        resolution = resolved(request)
        require_ready(resolution, service.unloadable)
        return JSONResponse({"name": resolution.model.name, "ready": True})

    for path in (MODEL_PATH, VERSION_PATH):
        router.add_api_route(path, metadata, methods=["GET"])
        router.add_api_route(f"{path}/ready", ready, methods=["GET"])
