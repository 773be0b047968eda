"""The gateway behind nginx, as docs/12 configures it: below a path, and with TLS."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.http.placement import Placement
from tests.support.page_catalog import shown, staged
from tests.support.processes import free_port, poll, running

BELOW, TOLD, WITH_TLS = re.findall(
    r"```nginx\n(.*?)```", Path("docs/12-clients.md").read_text(encoding="utf-8"), re.DOTALL
)
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
NGINX = """
daemon off; user root; pid {folder}/nginx.pid; error_log stderr;
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {server}
}}
"""


@contextmanager
def nginx(folder: Path, server: str, *, port: int) -> Iterator[None]:
    """nginx with that server, until the block ends."""
    binary = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if binary is None:
        assert os.environ.get("NGINX_TESTS") != "required", "no nginx is installed"
        pytest.skip("no nginx is installed; .ci/run installs it")
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, server=server))
    command = [binary, "-p", str(folder), "-c", str(configuration)]
    with running(command, log=folder / "nginx.log"):
        poll(lambda: is_open(port), what="nginx")
        yield


def is_open(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
    except httpx.ConnectError:
        return False
    except httpx.HTTPError:  # it speaks TLS
        return True
    return True


def to(upstream: str, configuration: str) -> str:
    return configuration.replace("http://127.0.0.1:8000", upstream)


def certificate(folder: Path) -> ssl.SSLContext:
    """For 127.0.0.1, made as `models.pem` and `models.key`; what believes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "models.example")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "models.pem").write_bytes(made.public_bytes(pem))
    (folder / "models.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return ssl.create_default_context(cafile=folder / "models.pem")


@pytest.mark.parametrize("told", [False, True], ids=["by --root-path", "by nginx"])
def test_below_a_path_everything_leads_back_there(tmp_path: Path, told: bool) -> None:
    """Predictions, pages, their assets and links, the document and its `servers`, redirects."""
    placement = Placement(proxies=LOOPBACK) if told else Placement(root_path="/ml")
    port = free_port()
    with staged(shown(), placement=placement) as stage:
        location = BELOW.replace("}", f"{TOLD if told else ''}}}")
        server = f"server {{ listen 127.0.0.1:{port}; {to(stage.url, location)} }}"
        with (
            nginx(tmp_path, server, port=port),
            httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
        ):
            answer = client.post("/ml/models/delivery_time/predict", json={
                "zone": "harbour", "items": 1, "distance_km": 2.0, "express": False,
            })  # fmt: skip
            assert (answer.status_code, answer.headers["x-model-version"]) == (200, "2")
            document = client.get("/ml/openapi.json").json()
            whole = f"http://127.0.0.1:{port}/ml" if told else "/ml"
            assert document["servers"] == [{"url": whole}]
            listed = client.get("/ml/models").json()["models"]
            assert {each["predict_url"].partition("/models/")[0] for each in listed} == {"/ml"}
            for page in ("/ml/", "/ml/catalog/delivery_time", "/ml/docs"):
                answered = client.get(page)
                assert answered.status_code == 200, page
                for link in re.findall(r'(?:href|src)="([^"#]+)"', answered.text):
                    found = client.get(httpx.URL(str(answered.url)).join(link))
                    if found.url.host == "127.0.0.1":
                        assert found.status_code == 200, (page, link)
                        assert found.url.path.startswith("/ml/"), (page, link)


def test_with_tls_streams_come_as_they_are_made(tmp_path: Path) -> None:
    """The address that clients are told is that of TLS; an event comes when the model gives it,
    not when the next one or the end does."""
    port = free_port()
    believing = certificate(tmp_path)
    with staged(shown(), placement=Placement(proxies=LOOPBACK)) as stage:
        server = to(stage.url, WITH_TLS).replace("listen 443", f"listen 127.0.0.1:{port}")
        with (
            nginx(tmp_path, server, port=port),
            httpx.Client(
                base_url=f"https://127.0.0.1:{port}", verify=believing, trust_env=False, timeout=30
            ) as client,
        ):
            (told,) = client.get("/openapi.json").json()["servers"]
            assert told["url"] == f"https://127.0.0.1:{port}"
            asked = {"headers": {"accept": "text/event-stream"}, "json": {"question": "where"}}
            stage.models.may_go_on.clear()
            with client.stream("POST", "/models/question_answerer/predict", **asked) as events:
                pieces = events.iter_lines()
                assert "on a laptop" in next(line for line in pieces if line.startswith("data"))
                stage.models.may_go_on.set()
                assert "or a cluster" in next(line for line in pieces if line.startswith("data"))
