"""What Ray's own proxy refuses is said in the gateway's words, and may be tried again."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from deployments.ingress.proxy_middleware import ProxyFront


def answering(status: int, content_type: bytes) -> ASGIApp:
    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", content_type)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"Path '/x' not found."})

    return proxy


async def asked(proxy: ASGIApp, method: str = "POST") -> httpx.Response:
    transport = httpx.ASGITransport(ProxyFront(proxy))
    async with httpx.AsyncClient(transport=transport, base_url="http://gw") as client:
        return await client.request(method, "/models/m/predict")


@pytest.mark.parametrize("status", [404, 500, 503])
async def test_what_the_proxy_refuses_may_be_tried_again(status: int) -> None:
    """Its plain 404 while no gateway is there is 503 with Retry-After, in the envelope."""
    response = await asked(answering(status, b"text/plain; charset=utf-8"))
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert response.json()["code"] == "gateway_unavailable"
    assert response.json()["instance"] == "/models/m/predict"


@pytest.mark.parametrize(
    ("status", "content_type"),
    [(404, b"application/problem+json"), (200, b"text/plain; version=0.0.4")],
)
async def test_what_the_gateway_answers_passes_as_it_is(status: int, content_type: bytes) -> None:
    """A model that isn't there stays 404, and metrics are plain text."""
    response = await asked(answering(status, content_type))
    assert (response.status_code, response.text) == (status, "Path '/x' not found.")


def test_ray_s_proxy_imports_no_mlflow() -> None:
    """It has no models: MLflow would cost it a second at every start, and 100 MB."""
    said = "import deployments.ingress.proxy_middleware, sys; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", said], check=False).returncode == 0
