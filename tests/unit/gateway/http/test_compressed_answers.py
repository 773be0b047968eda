"""Answers to GET in the coding that a caller asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from mlflow.types import ColSpec

from tests.support.echo_gateway import EchoGateway, signature

LONG = ("/openapi.json", "/models/m/openapi.json", "/docs", "/docs/assets/docs.js", "/", "/metrics")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with EchoGateway(signature([ColSpec("double", "x")])).client() as made:
        yield made


async def asked(
    client: httpx.AsyncClient, path: str, wanted: str, method: str = "GET"
) -> tuple[httpx.Response, bytes]:
    """The answer, and its body as it travelled."""
    request = client.build_request(method, path, headers={"Accept-Encoding": wanted})
    answer = await client.send(request, stream=True)
    raw = b"".join([piece async for piece in answer.aiter_raw()])
    return answer, raw


@pytest.mark.parametrize("path", LONG)
async def test_a_long_text_is_compressed_where_asked(client: httpx.AsyncClient, path: str) -> None:
    """It is the same text in fewer bytes, and caches are told what it depends on."""
    plain, content = await asked(client, path, "")
    answer, raw = await asked(client, path, "gzip")
    assert answer.status_code == plain.status_code == 200
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) == len(raw) < len(content)
    for each in (plain, answer):
        assert "Accept-Encoding" in each.headers["vary"]
    again = await client.get(path, headers={"Accept-Encoding": "gzip"})
    if path != "/metrics":  # which counts what it does
        assert again.content == content


async def test_a_short_answer_and_an_unknown_coding_change_nothing(
    client: httpx.AsyncClient,
) -> None:
    """Nor does a caller who asks for nothing."""
    for path, wanted in (("/healthz", "gzip"), ("/docs", "compress"), ("/docs", "gzip;q=0")):
        answer, _ = await asked(client, path, wanted)
        assert answer.status_code == 200
        assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("path", LONG[:4])
async def test_an_entity_tag_holds_for_every_coding(client: httpx.AsyncClient, path: str) -> None:
    """A compressed answer's is weak, and who has it is told 304."""
    answer, _ = await asked(client, path, "br")
    if "etag" in answer.headers:
        assert answer.headers["etag"].startswith('W/"')
        known = {"If-None-Match": answer.headers["etag"], "Accept-Encoding": "br"}
        assert (await client.get(path, headers=known)).status_code == 304


@pytest.mark.parametrize("path", LONG[:5])
async def test_head_says_no_other_length_than_get(client: httpx.AsyncClient, path: str) -> None:
    """RFC 9110, section 8.6: the same, or none."""
    for wanted in ("", "gzip"):
        get, _ = await asked(client, path, wanted)
        head, _ = await asked(client, path, wanted, "HEAD")
        length = head.headers.get("content-length")
        assert length in (None, get.headers["content-length"]), (path, wanted)
