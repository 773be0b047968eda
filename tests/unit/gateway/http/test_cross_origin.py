"""Pages of other origins: who may read, and what a preflight is told."""

from __future__ import annotations

import httpx
import pytest

from gateway.http.access_control import Access
from gateway.security.api_keys import Keyring
from tests.support.catalogs import catalog, served, version
from tests.support.page_catalog import FixedKeys, Stage

NOW = catalog(served(version(1), name="doubles"))
PAGE = "https://app.example"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
}


def _client(*origins: str, access: Access | None = None) -> httpx.AsyncClient:
    app = Stage(NOW, access, origins=origins).app
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gw")


async def test_without_the_setting_no_page_may_read_anything() -> None:
    """No header of the protocol is ever there."""
    async with _client() as client:
        for method in ("GET", "OPTIONS"):
            answer = await client.request(method, "/models", headers={"Origin": PAGE, **PREFLIGHT})
            assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        ((PAGE,), PAGE, PAGE),
        ((PAGE, "http://localhost:3000"), "http://localhost:3000", "http://localhost:3000"),
        (("HTTPS://App.Example",), PAGE, PAGE),
        ((PAGE,), "https://app.example.evil", None),
        ((PAGE,), "http://app.example", None),
        ((PAGE,), "https://app.example:444", None),
        ((PAGE,), "null", None),
        (("*",), PAGE, "*"),
        (("*",), "null", "*"),
    ],
)
async def test_pages_of_these_origins_may_read(
    origins: tuple[str, ...], origin: str, allowed: str | None
) -> None:
    """Answers and refusals alike, and never with the credentials of the browser."""
    async with _client(*origins) as client:
        for path, status in (("/models/doubles/predict", 200), ("/models/nope/predict", 404)):
            answer = await client.post(path, json={"x": 2}, headers={"Origin": origin})
            assert answer.status_code == status
            assert answer.headers.get("Access-Control-Allow-Origin") == allowed
            assert "Access-Control-Allow-Credentials" not in answer.headers
            assert ("Origin" in answer.headers.get("Vary", "")) == (origins != ("*",))
            exposed = answer.headers.get("Access-Control-Expose-Headers", "")
            assert ("X-Model-Version" in exposed) == (allowed is not None)


async def test_a_preflight_needs_no_key_and_says_what_may_be_sent() -> None:
    """Browsers send none with it; the request itself needs one as ever."""
    async with _client(PAGE, access=Access(keys=FixedKeys(Keyring()))) as client:
        asked = await client.options(
            "/models/doubles/predict", headers={"Origin": PAGE, **PREFLIGHT}
        )
        assert asked.status_code == 204
        assert asked.headers["Access-Control-Allow-Origin"] == PAGE
        assert "POST" in asked.headers["Access-Control-Allow-Methods"]
        wanted = PREFLIGHT["Access-Control-Request-Headers"]
        assert asked.headers["Access-Control-Allow-Headers"] == wanted
        refused = await client.post(
            "/models/doubles/predict", json={"x": 2}, headers={"Origin": PAGE}
        )
        assert refused.status_code == 401
        assert refused.headers["Access-Control-Allow-Origin"] == PAGE


async def test_a_stranger_s_preflight_grants_nothing() -> None:
    """It is a question for the methods like any other."""
    async with _client(PAGE) as client:
        asked = await client.options("/models", headers={"Origin": "https://evil.example"})
        assert asked.status_code == 204
        assert not [name for name in asked.headers if name.startswith("access-control")]
