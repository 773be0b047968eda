"""`POST /webhooks/mlflow`: a genuine delivery is answered at once, and the registry looked at then.

Must not import ray or mlflow.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from gateway.admission import Admission, AdmissionLimits
from gateway.errors import Forbidden
from gateway.http.access_control import WEBHOOK_PATH
from gateway.http.predict.body import HttpLimits, read_body
from gateway.http.predict.dialect import require_json
from gateway.http.problem_schemas import problem_responses
from gateway.security.webhook_signatures import Delivery, DeliveryCheck, SyncTrigger

# MLflow's payloads are a name, a version, tags and a description.
_LIMITS = HttpLimits(max_body_bytes=1024 * 1024, body_timeout_s=10.0)
_WAITING = AdmissionLimits(body_bytes=16 * 1024 * 1024)

_HEADERS = ("X-MLflow-Delivery-Id", "X-MLflow-Timestamp", "X-MLflow-Signature")


def webhook_router(check: DeliveryCheck | None, trigger: SyncTrigger) -> APIRouter:
    """The route; without a `check` it refuses everything."""
    router = APIRouter(tags=["operation"])
    admission = Admission(_WAITING)

    @router.post(
        WEBHOOK_PATH,
        operation_id="take_webhook",
        summary="MLflow's registry webhooks: look at the registry soon",
        status_code=202,
        response_class=Response,
        responses=problem_responses(403, 408, 413, 415, 429),
        openapi_extra=_DESCRIPTION,
    )
    async def webhook(request: Request) -> Response:
        if check is None:
            raise Forbidden("This gateway takes no webhooks: its webhook_secret is not set.")
        with admission.arrive(WEBHOOK_PATH) as visit:
            require_json(request.scope["headers"])
            body = await read_body(
                request.scope["headers"], request.receive, limits=_LIMITS, visit=visit
            )
        check.accept(_delivery(request, body))
        trigger.pull()
        return Response(status_code=202)

    return router


def _delivery(request: Request, body: bytes) -> Delivery:
    identifier, timestamp, signature = (request.headers.get(name, "") for name in _HEADERS)
    return Delivery(id=identifier, timestamp=timestamp, signature=signature, body=body)


_DESCRIPTION: dict[str, Any] = {
    "parameters": [
        {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
        for name in _HEADERS
    ],
    "requestBody": {"required": True, "content": {"application/json": {"schema": {}}}},
}
