"""A gateway with keys and a webhook that listens beyond the loopback: its doors, all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from cryptography.fernet import Fernet
from playwright.sync_api import Browser

from gateway.security.api_keys import entry_of, new_secret
from tests.support.listening import Listener, listeners_of
from tests.support.processes import Gateway, gateway, mlflow_server, poll
from tests.support.registering import client, columns, register

NUMBER = columns(("x", "double"))
WEBHOOK_SECRET = "known to MLflow and the gateway"  # pragma: allowlist secret
SHOP, READER, ADMIN = new_secret(), new_secret(), new_secret()
KEYS = (
    entry_of("shop", SHOP, ["predict:shop *"]),
    entry_of("reader", READER, ["read"]),
    entry_of("operator", ADMIN, ["admin"]),
)
MODELS = ("shop prices", "salaries")

# MLflow's own protection of what its webhooks may reach; here they go to this machine.
MLFLOW = {
    "MLFLOW_WEBHOOK_CACHE_TTL": "0",  # else it knows of a new webhook only after a minute
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
}


@dataclass(frozen=True, slots=True)
class Guarded:
    """The gateway, its registry, and the file with its keys."""

    gateway: Gateway
    registry: str
    keys: Path

    def ask(self, method: str, path: str, secret: str | None = None) -> httpx.Response:
        """A request with that key; a POST has a record as its body."""
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        body = {"x": 1} if method == "POST" else None
        return self.gateway.client.request(method, path, json=body, headers=headers)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    keys = folder / "keys"
    keys.write_text("\n".join(KEYS))
    with mlflow_server(folder, environment=MLFLOW) as registry:
        for name in MODELS:
            register(registry, name, lambda rows, params: rows, NUMBER, NUMBER)
        options = ("--host", "0.0.0.0", "--keys-file", str(keys), "--poll-interval-s", "3600")
        secret = {"MODELMUX_WEBHOOK_SECRET": WEBHOOK_SECRET}
        with gateway(registry, folder, *options, environment=secret) as running:
            made = Guarded(running, registry, keys)
            for name in MODELS:  # so that their replicas are there, with their ports
                answer = made.ask("POST", f"/models/{name}/predict", ADMIN)
                assert answer.status_code == 200, answer.text
            yield made


# --- keys -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "statuses"),  # of nobody, the shop, the reader, the administrator
    [
        ("GET", "/healthz", (200, 200, 200, 200)),
        ("GET", "/readyz", (200, 200, 200, 200)),
        ("GET", "/docs", (200, 200, 200, 200)),
        ("GET", "/models", (401, 200, 200, 200)),
        ("GET", "/openapi.json", (401, 200, 200, 200)),
        ("GET", "/models/shop prices", (401, 200, 200, 200)),
        ("GET", "/models/salaries", (401, 403, 200, 200)),
        ("GET", "/models/no such", (401, 403, 404, 404)),
        ("GET", "/nowhere", (401, 404, 404, 404)),
        ("POST", "/models/shop prices/predict", (401, 200, 403, 200)),
        ("POST", "/models/salaries/predict", (401, 403, 403, 200)),
        ("POST", "/models/no such/predict", (401, 403, 403, 404)),
        ("POST", "/models/salaries/predict%0A", (401, 403, 403, 200)),
        ("POST", "/models/shop prices/../salaries/predict", (401, 403, 403, 200)),
        ("POST", "/registry/sync", (401, 403, 403, 200)),
    ],
)
def test_each_key_may_do_what_its_scopes_say(
    guarded: Guarded, method: str, path: str, statuses: tuple[int, ...]
) -> None:
    """Through the front door each route answers each key as the table says."""
    secrets = (None, SHOP, READER, ADMIN)
    assert tuple(guarded.ask(method, path, s).status_code for s in secrets) == statuses


def test_ready_is_said_and_commands_take_a_key(guarded: Guarded) -> None:
    """`up` counts the models without a key, and `modelmux models` lists them with one."""
    assert "Ready: 2 models" in guarded.gateway.log.read_text()
    command = [str(Path(sys.executable).with_name("modelmux")), "models", "--url"]
    for key, code in ((["--key", READER], 0), ([], 1)):
        done = subprocess.run(
            [*command, guarded.gateway.url, *key], capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert ("salaries" in done.stdout) == (code == 0)


def test_keys_change_without_a_restart(guarded: Guarded) -> None:
    """A new line lets its key in, a broken file changes nothing and is told, a line that is gone
    shuts its key out."""
    guest = new_secret()
    good = guarded.keys.read_text()

    def status() -> int:
        return guarded.ask("GET", "/models", guest).status_code

    assert status() == 401
    _replace(guarded.keys, f"{good}\n{entry_of('guest', guest, ['read'])}")
    poll(lambda: status() == 200, timeout_s=20, what="the new key")
    _replace(guarded.keys, "this is no key")
    poll(lambda: "stay as they were" in guarded.gateway.log.read_text(), what="the word about it")
    assert status() == 200
    _replace(guarded.keys, good)
    poll(lambda: status() == 401, timeout_s=20, what="the key's end")
    log = guarded.gateway.log.read_text()
    assert [secret for secret in (SHOP, READER, ADMIN, guest) if secret in log] == []


def _replace(keys: Path, text: str) -> None:
    """In one step: a file that is empty for a moment has no keys in that moment."""
    new = keys.with_name("new keys")
    new.write_text(text)
    new.replace(keys)


def test_an_ingress_that_knows_no_good_keys_takes_no_requests(guarded: Guarded) -> None:
    """Killed while the file is broken, it comes back when that is mended: until then a good key
    waits, and is never called unknown."""
    good = guarded.keys.read_text()
    (pid,) = {each.pid for each in listeners_of(guarded.gateway.process.pid)
              if "Ingress" in each.command}  # fmt: skip
    _replace(guarded.keys, "this is no key")
    seen = set()

    def status() -> int | None:
        with suppress(httpx.HTTPError):  # nobody answers
            answer = httpx.get(
                f"{guarded.gateway.url}/models",
                headers={"Authorization": f"Bearer {READER}"},
                timeout=1.0,
            )
            seen.add(answer.status_code)
            return answer.status_code
        return None

    def is_waiting() -> bool:
        status()
        return "takes no requests until they can be read" in guarded.gateway.log.read_text()

    try:
        os.kill(pid, signal.SIGKILL)
        poll(is_waiting, timeout_s=60, what="the word of the new ingress")
        assert status() != 401
    finally:
        _replace(guarded.keys, good)
    poll(lambda: status() == 200, timeout_s=60, what="the ingress")
    assert 401 not in seen


def test_the_page_is_of_use_with_a_key(guarded: Guarded, browser: Browser) -> None:
    """It asks for a key, tells that one is not known, shows what the key may call, and sends the
    key with what is tried out."""
    page = browser.new_page()
    sent: list[str | None] = []
    page.on(
        "request",
        lambda request: (
            sent.append(request.headers.get("authorization"))
            if request.url.endswith("/predict")
            else None
        ),
    )
    page.goto(f"{guarded.gateway.url}/docs")
    for key in ("mmx_wrong", SHOP):
        page.locator("#key").fill(key)
        page.get_by_role("button", name="Authorize").click()
        if key != SHOP:
            page.get_by_text("The key is not known here.").wait_for()
    operation = page.locator(".opblock", has_text="Predict with shop prices")
    operation.locator(".opblock-summary").click()
    operation.locator(".try-out__btn").click()
    operation.locator(".execute").click()
    operation.locator(".live-responses-table", has_text="200").first.wait_for()
    assert sent == [f"Bearer {SHOP}"]
    assert "salaries" not in page.content()


# --- webhooks ---------------------------------------------------------------------------------


def test_a_new_version_shows_by_mlflow_s_webhook_alone(guarded: Guarded) -> None:
    """MLflow delivers, the gateway looks: long before it would by itself."""
    told = modelmux_webhook(guarded, WEBHOOK_SECRET)
    assert told.returncode == 0, told.stderr

    def versions() -> list[int]:
        found: list[int] = guarded.ask("GET", "/models/salaries", READER).json()["versions"]
        return found

    before = versions()
    number = register(guarded.registry, "salaries", lambda rows, params: rows, NUMBER, NUMBER)
    registered = time.monotonic()
    poll(lambda: versions() == [number, *before], timeout_s=10, what="the new version")
    assert time.monotonic() - registered < 5


def modelmux_webhook(guarded: Guarded, secret: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).with_name("modelmux")), "webhook",
        f"{guarded.gateway.url}/webhooks/mlflow", "--tracking-uri", guarded.registry,
    ]  # fmt: skip
    environment = {**os.environ, "MODELMUX_WEBHOOK_SECRET": secret}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_webhook_is_registered_once_however_often_and_tried(guarded: Guarded) -> None:
    """Repeating the command leaves one webhook; with a secret that isn't the gateway's it says that
    the delivery fails, and exits with 1."""
    assert modelmux_webhook(guarded, WEBHOOK_SECRET).returncode == 0
    refused = modelmux_webhook(guarded, "another")
    assert (refused.returncode, "answered with 403" in refused.stderr) == (1, True)
    assert modelmux_webhook(guarded, WEBHOOK_SECRET).returncode == 0
    assert len(client(guarded.registry).list_webhooks()) == 1


def test_what_mlflow_did_not_sign_is_refused(guarded: Guarded) -> None:
    """An unsigned delivery is 403 in the envelope, with or without a key."""
    for key in (None, ADMIN):
        refused = guarded.ask("POST", "/webhooks/mlflow", key)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


# --- side doors -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def listeners(guarded: Guarded) -> list[Listener]:
    """Every port of every process of the gateway, while two models have replicas."""
    return listeners_of(guarded.gateway.process.pid)


def test_only_the_front_door_is_open_to_other_machines(
    guarded: Guarded, listeners: list[Listener]
) -> None:
    """Whatever the host, everything but the front door is on the loopback."""
    beyond = [listener for listener in listeners if not listener.is_loopback]
    assert {listener.port for listener in beyond} == {httpx.URL(guarded.gateway.url).port}, beyond
    kinds = ("Ingress", "ModelHost", "SyncService", "gcs_server", "raylet")
    assert [kind for kind in kinds if not any(kind in each.command for each in listeners)] == []


def test_no_port_answers_what_the_front_door_refuses(listeners: list[Listener]) -> None:
    """Without a key no port predicts or tells a model's name."""
    refused = set()
    for listener in listeners:
        for method, path in (
            ("POST", "/models/salaries/predict"), ("POST", "/predict"), ("POST", "/"),
            ("GET", "/models"), ("GET", "/openapi.json"), ("GET", "/stats"), ("GET", "/-/routes"),
        ):  # fmt: skip
            answer = _ask_port(listener.port, method, path)
            if answer is None:
                break
            assert not (method == "POST" and answer.is_success), (listener, path)
            # A problem repeats the path that was asked for.
            assert "salaries" not in answer.text.replace(path, ""), (listener, path)
            if answer.status_code == 401 and "unauthenticated" in answer.text:
                refused.add(_kind(listener))
    assert refused == {"modelmux", "Ingress"}, "who lends the front door's socket, and who has it"


def _ask_port(port: int, method: str, path: str) -> httpx.Response | None:
    """The answer, None from what speaks no HTTP/1.1."""
    body = {"x": 1} if method == "POST" else None
    try:
        return httpx.request(method, f"http://127.0.0.1:{port}{path}", json=body, timeout=10)
    except (httpx.ProtocolError, httpx.ReadError):
        return None


def _kind(listener: Listener) -> str:
    known = ("Ingress", "ModelHost", "SyncService", "gcs_server", "modelmux")
    return next((kind for kind in known if kind in listener.command), listener.command)


@pytest.mark.parametrize(
    ("kind", "method", "least"),
    [
        ("ServeReplica", "/ray.serve.ASGIService/HandleRequest", 4),
        ("gcs_server", "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo", 1),
        ("raylet", "/ray.rpc.NodeManagerService/GetNodeStats", 1),
        ("ServeReplica", "/ray.rpc.CoreWorkerService/PushTask", 4),
    ],
)
def test_ray_s_own_ports_ask_for_its_token(
    listeners: list[Listener], kind: str, method: str, least: int
) -> None:
    """Calls that could run code are refused without the token, and pass with it: replicas' handles
    take pickles, a worker takes tasks."""
    found = [listener for listener in listeners if kind in listener.command]
    refused = [each for each in found if _call(each.port, method) == "UNAUTHENTICATED"]
    assert len({listener.pid for listener in refused}) >= least
    token = _token_of(refused[0].pid)
    for listener in refused:
        assert _call(listener.port, method, token) != "UNAUTHENTICATED"
    assert token not in " ".join(listener.command for listener in listeners)


def _call(port: int, method: str, token: str | None = None) -> str:
    """The status of a gRPC call with an empty request."""
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary(method)(b"", timeout=5, metadata=metadata)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def _token_of(pid: int) -> str:
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return next(v for v in variables if v.startswith("RAY_AUTH_TOKEN=")).partition("=")[2]
