"""OpenAI's routes: the endpoint's, and the list of the models that it can ask."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from gateway.catalog import ServedModel
from gateway.errors import GatewayError, ModelNotFound
from gateway.http.access_control import require_sight, visible_part
from gateway.http.protocols.openai.endpoint import problem_with_error
from gateway.http.protocols.openai.requests import named, path_of
from gateway.prediction import PredictionService

MODELS_PATH = "/v1/models"


def openai_router(service: PredictionService) -> APIRouter:
    """`/v1/models`, of the agents and chat models that the caller may know of."""
    router = APIRouter(include_in_schema=False)

    @router.get(MODELS_PATH)
    async def models(request: Request) -> dict[str, Any]:
        visible = visible_part(request, service.catalog()).models.values()
        told = [_described(model, model.name) for model in visible if _is_spoken(model)]
        return {"object": "list", "data": sorted(told, key=lambda each: each["id"])}

    @router.get(MODELS_PATH + "/{model:path}", response_model=None)
    async def model(model: str, request: Request) -> Response | dict[str, Any]:
        try:
            name, selector = named(service.catalog(), model)
            require_sight(request, name)
            found = service.resolve(name, selector).model
            if not _is_spoken(found):
                raise ModelNotFound("It is no agent and no chat model.", model=name)
        except GatewayError as error:
            return problem_with_error(request.scope, error)
        return _described(found, model)

    return router


def _is_spoken(model: ServedModel) -> bool:
    return model.default is not None and path_of(model.default.task) is not None


def _described(model: ServedModel, name: str) -> dict[str, Any]:
    created = model.created_at_ms // 1000
    return {"id": name, "object": "model", "created": created, "owned_by": "modelmux"}
