"""Below a path, with a slash at the end, by other methods: the web's everyday ways to ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from gateway.http.placement import Placement
from tests.support.catalogs import catalog, served, version
from tests.support.page_catalog import MLFLOW_URL, Stage

NOW = catalog(served(version(1), name="doubles"), served(version(1), name="Größe"))
PROXY = "10.1.2.3"
TRUSTING = Placement(proxies=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")))
ML = {"X-Forwarded-Prefix": "/ml"}


@asynccontextmanager
async def asked(
    placement: Placement, *, peer: str = PROXY, takes_away: str = ""
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application; a proxy in between takes that prefix away."""
    app = Stage(NOW, placement=placement).app

    async def proxied(scope: Any, receive: Any, send: Any) -> None:
        for key in ("path", "raw_path"):
            prefix = takes_away if key == "path" else takes_away.encode()
            scope[key] = scope[key].removeprefix(prefix)
        await app(scope, receive, send)

    transport = httpx.ASGITransport(proxied, client=(peer, 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://gw") as client:
        yield client


@pytest.mark.parametrize("takes_away", ["", "/ml"])
async def test_below_a_path_everything_is_found_there(takes_away: str) -> None:
    """Whether the proxy takes the prefix away or not: models, documents, predictions, pages."""
    async with asked(Placement(root_path="/ml"), takes_away=takes_away) as client:
        listing = (await client.get("/ml/models")).json()["models"]
        assert [m["predict_url"] for m in listing] == [
            "/ml/models/Gr%C3%B6%C3%9Fe/predict", "/ml/models/doubles/predict",
        ]  # fmt: skip
        for model in listing:
            answer = await client.post(model["predict_url"], json={"x": 2})
            assert answer.json() == [{"y": 4.0}]
        detail = (await client.get("/ml/models/doubles")).json()
        assert detail["predict_url"] == "/ml/models/doubles/predict"
        for path in ("/ml/openapi.json", "/ml/models/doubles/openapi.json"):
            assert (await client.get(path)).json()["servers"] == [{"url": "/ml"}]


@pytest.mark.parametrize("page", ["/", "/docs", "/docs/", "/catalog/doubles", "/catalog/doubles/"])
@pytest.mark.parametrize("placement", [Placement(), Placement(root_path="/ml")])
@pytest.mark.parametrize("prefix", ["", "/ml"])
async def test_what_a_page_asks_for_is_there(page: str, placement: Placement, prefix: str) -> None:
    """Each address on a page leads to something, with or without a slash at the end, also behind a
    proxy that the gateway knows nothing of."""
    async with asked(placement, takes_away=prefix) as client:
        at = f"http://gw{prefix}{page}"
        text = (await client.get(at)).text
        wanted = [
            part.partition('"')[0] for part in text.replace('src="', 'href="').split('href="')
        ]
        followed = {
            urljoin(at, address)
            for address in wanted[1:]
            if address[:1] != "#" and not address.startswith(MLFLOW_URL)
        }
        assert any(address.endswith("favicon.svg") for address in followed)
        for address in followed:
            assert address.startswith(f"http://gw{prefix}/"), address
            assert (await client.get(address)).status_code == 200, address


async def test_the_prefix_alone_leads_to_its_root() -> None:
    """There relative addresses are right; the query goes along."""
    async with asked(Placement(root_path="/a/ml")) as client:
        answer = await client.get("/a/ml?q=x")
        assert (answer.status_code, answer.headers["Location"]) == (308, "/a/ml/?q=x")
        assert (await client.get(answer.headers["Location"])).status_code == 200
        assert (await client.post("/a/ml")).status_code == 405


async def test_a_prefix_may_be_percent_encoded() -> None:
    """Addresses have it so; the path of a request has not, whoever takes it away."""
    async with asked(Placement(root_path="/m%20%C3%BC")) as client:
        (url, *_) = [
            m["predict_url"] for m in (await client.get("/m%20%C3%BC/models")).json()["models"]
        ]
        assert url.startswith("/m%20%C3%BC/models/")
        assert (await client.post(url, json={"x": 2})).status_code == 200
        assert (await client.get("/m%20%C3%BC")).headers["Location"] == "/m%20%C3%BC/"


async def test_a_prefix_like_a_path_of_the_gateway_is_taken_away_by_the_proxy_alone() -> None:
    """Else nobody could tell `/models` of the proxy's from the gateway's."""
    async with asked(Placement(root_path="/models"), takes_away="/models") as client:
        listing = (await client.get("/models/models")).json()["models"]
        assert listing[1]["predict_url"] == "/models/models/doubles/predict"
        assert (await client.post(listing[1]["predict_url"], json={"x": 2})).status_code == 200


@pytest.mark.parametrize(
    ("peer", "headers", "server"),
    [
        (PROXY, ML, "/ml"),
        (PROXY, {"X-Forwarded-Prefix": "/outer/, /inner/"}, "/outer/inner"),
        (f"::ffff:{PROXY}", ML, "/ml"),
        ("fd00::1", ML, "/ml"),
        (PROXY, {**ML, "X-Forwarded-Proto": "https"}, "/ml"),
        (PROXY, {**ML, "X-Forwarded-Proto": "https", "X-Forwarded-Host": "gw.example:8443"},
         "https://gw.example:8443/ml"),
        (PROXY, {**ML, "X-Forwarded-Proto": "javascript", "X-Forwarded-Host": "gw.example"}, "/ml"),
        (PROXY, {**ML, "X-Forwarded-Proto": "https", "X-Forwarded-Host": "a/b"}, "/ml"),
        (PROXY, {}, "/"),
        (PROXY, {"X-Forwarded-Prefix": "//evil.example"}, "/"),
        (PROXY, {"X-Forwarded-Prefix": "ml"}, "/"),
        (PROXY, {"X-Forwarded-Prefix": '/"><script>'}, "/"),
        ("192.0.2.1", ML, "/"),
        ("testclient", ML, "/"),
        ("192.0.2.1", {**ML, "X-Forwarded-For": PROXY}, "/"),
    ],
)  # fmt: skip
async def test_only_trusted_proxies_say_where_the_gateway_is(
    peer: str, headers: dict[str, str], server: str
) -> None:
    """Of others, and of what is no path and no address, nothing is believed."""
    async with asked(TRUSTING, peer=peer) as client:
        document = (await client.get("/openapi.json", headers=headers)).json()
        assert document["servers"] == [{"url": server}]
        listing = (await client.get("/models", headers=headers)).json()["models"]
        path = server.removeprefix("https://gw.example:8443").rstrip("/")
        assert listing[1]["predict_url"] == f"{path}/models/doubles/predict"


async def test_behind_the_front_door_its_word_for_who_connected_counts() -> None:
    """It appends an address to what came; what came before is anybody's word."""
    placement = Placement(proxies=TRUSTING.proxies, front_door_tells=True)
    async with asked(placement, peer="127.0.0.1") as client:
        for told, server in (
            ("192.0.2.9, 10.0.0.1", "/ml"), ("10.0.0.1", "/ml"),
            ("10.0.0.1, 192.0.2.9", "/"), ("", "/"),
        ):  # fmt: skip
            headers = {**ML, "X-Forwarded-For": told}
            document = (await client.get("/openapi.json", headers=headers)).json()
            assert document["servers"] == [{"url": server}], told


BEHIND_OUR_DOOR = replace(TRUSTING, front_door_tells=True)


@pytest.mark.parametrize(
    ("placement", "peer", "told", "client"),
    [
        (Placement(), "192.0.2.1", "203.0.113.9", "192.0.2.1"),
        (TRUSTING, "192.0.2.1", "203.0.113.9", "192.0.2.1"),
        (TRUSTING, PROXY, "203.0.113.9", "203.0.113.9"),
        (TRUSTING, PROXY, "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        (TRUSTING, PROXY, "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        (TRUSTING, PROXY, "", PROXY),
        (Placement(), "::ffff:192.0.2.1", "", "192.0.2.1"),  # by a socket for both kinds
        (TRUSTING, "::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        (TRUSTING, PROXY, "a b=c", None),
        (BEHIND_OUR_DOOR, "127.0.0.1", "203.0.113.9, 10.0.0.1", "203.0.113.9"),
        (BEHIND_OUR_DOOR, "127.0.0.1", "6.6.6.6, 192.0.2.1", "192.0.2.1"),
        (Placement(front_door_tells=True), "127.0.0.1", "6.6.6.6, 192.0.2.1", "192.0.2.1"),
        (Placement(front_door_tells=True), "127.0.0.1", "", None),
    ],
)
def test_who_asks_is_the_last_one_that_no_trusted_proxy_is(
    placement: Placement, peer: str, told: str, client: str | None
) -> None:
    """What came before him in `X-Forwarded-For` he may have written himself."""
    headers = [(b"x-forwarded-for", told.encode())] if told else []
    assert placement.client({"headers": headers, "client": (peer, 1234)}) == client


async def test_a_document_s_tag_is_that_of_its_server_too() -> None:
    """A cache that has the one for another address asks anew."""
    async with asked(TRUSTING) as client:
        plain, below = [
            (await client.get("/openapi.json", headers=h)).headers["ETag"] for h in ({}, ML)
        ]
        assert plain != below
        again = await client.get("/openapi.json", headers={**ML, "If-None-Match": below})
        assert again.status_code == 304


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("GET", "/models", None), ("GET", "/models/doubles", None), ("GET", "/healthz", None),
     ("POST", "/models/doubles/predict", {"x": 2}), ("GET", "/models/Gr%C3%B6%C3%9Fe", None)],
)  # fmt: skip
async def test_a_slash_at_the_end_changes_nothing(method: str, path: str, body: Any) -> None:
    """One is overlooked; two are another path."""
    async with asked(Placement()) as client:
        plain = await client.request(method, path, json=body)
        slash = await client.request(method, f"{path}/", json=body)
        assert (slash.status_code, slash.content) == (plain.status_code, plain.content)
        assert (await client.request(method, f"{path}//", json=body)).status_code == 404


async def test_head_is_answered_wherever_get_is() -> None:
    """With the status and the headers of GET."""
    async with asked(Placement()) as client:
        document = (await client.get("/openapi.json")).json()
        documented = [path for path, operations in document["paths"].items() if "get" in operations]
        assert "/metrics" in documented
        assert not any("head" in operations for operations in document["paths"].values())
        others = ["/", "/docs", "/docs/assets/docs.js", "/openapi.json", "/catalog/doubles", "/no"]
        for path in [path.replace("{name}", "doubles") for path in documented] + others:
            get, head = await client.get(path), await client.head(path)
            assert head.status_code == get.status_code, path
            assert head.headers["content-type"] == get.headers["content-type"], path


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/models", "GET, HEAD, OPTIONS"), ("/models/", "GET, HEAD, OPTIONS"),
        ("/models/doubles/predict", "POST, OPTIONS"), ("/registry/sync", "POST, OPTIONS"),
        ("/docs/assets/docs.js", "GET, HEAD, OPTIONS"), ("/", "GET, HEAD, OPTIONS"),
    ],
)  # fmt: skip
async def test_options_and_405_tell_the_same_methods(path: str, allowed: str) -> None:
    """All that the path has, and nothing where there is no path."""
    async with asked(Placement()) as client:
        told = await client.options(path)
        assert (told.status_code, told.headers["Allow"], told.content) == (204, allowed, b"")
        refused = await client.delete(path)
        assert (refused.status_code, refused.headers["Allow"]) == (405, allowed)
        assert (await client.options("/nowhere")).status_code == 404


async def test_a_byte_order_mark_is_overlooked() -> None:
    """At the beginning of a body, whichever way it is parsed; nowhere else."""
    headers = {"Content-Type": "application/json"}
    async with asked(Placement()) as client:
        for body in (b'{"x": 2}', b'{"inputs": [{"x": 2}]}', b'[{"x": 2}]'):
            marked = b"\xef\xbb\xbf" + body
            answer = await client.post("/models/doubles/predict", content=marked, headers=headers)
            assert answer.json() == [{"y": 4.0}]
            twice = await client.post(
                "/models/doubles/predict", content=b"\xef\xbb\xbf" + marked, headers=headers
            )
            assert twice.json()["code"] == "malformed_json"
