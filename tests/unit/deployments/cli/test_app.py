"""The command line's words, lines and exit codes, over a fake gateway."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from deployments.cli import app as cli
from deployments.cli.app import app
from deployments.cli.folder_lock import folder_of_one_gateway
from deployments.logs import PACKAGES
from deployments.settings import Settings
from gateway.security.api_keys import Scope, entry_of, parse_keys
from tests.support.processes import free_port

RUN = CliRunner()
ANY_PORT = ("--port", str(free_port()))
MODELS = {
    "generation": 1,
    "models": [
        {
            "name": "m", "description": "", "status": "ready", "reason": None,
            "default_version": 2, "aliases": {"champion": 2}, "versions": [3, 2, 1],
            "held": {"version": 3, "reason": "It would break.", "differences": []},
            "warnings": [], "predict_url": "/models/m/predict",
            "environment": {"kind": "own", "state": "building", "seconds": 12.3},
        }
    ],
}  # fmt: skip


class FakeGateway(BaseHTTPRequestHandler):
    """Answers as the gateway would."""

    def do_GET(self) -> None:
        if self.headers["Authorization"] not in (None, "Bearer good"):
            self._answer(401, {"status": 401, "code": "unauthenticated", "detail": "Not known."})
        elif self.path == "/models":
            self._answer(200, MODELS)
        elif self.path.startswith("/another"):
            self._answer(200 if "200" in self.path else 404, {"detail": "Not Found"})
        else:
            self._answer(200, {"openapi": "3.1.0"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body == {"bad": 1}:
            self._answer(
                422,
                {"status": 422, "code": "invalid_input", "detail": "It does not fit.",
                 "errors": [{"pointer": "/bad", "message": "Unknown field."}]},
            )  # fmt: skip
        elif "echo" in self.path:
            self._answer(200, [body], ensure_ascii=False)
        else:
            self._answer(200, [{"path": self.path, "version": self.headers["X-Model-Version"]}])

    def _answer(self, status: int, value: object, *, ensure_ascii: bool = True) -> None:
        content = json.dumps(value, ensure_ascii=ensure_ascii).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """`up` says where the log goes, for the process that it runs in."""
    loggers = [logging.getLogger(name) for name in PACKAGES]
    before = [(each.handlers, each.level, each.propagate) for each in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), FakeGateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_models_is_plain_when_piped(url: str) -> None:
    """One line a model, tab-separated, with what is held and the packages of its default."""
    result = RUN.invoke(app, ["models", "--url", url])
    assert result.exit_code == 0
    held = "3: It would break."
    assert result.stdout == f"m\tready\t2\t3,2,1\tchampion=2\t{held}\town, building for 12 s\n"


def test_what_is_piped_obeys_the_same_rule(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names can't move the cursor, nor begin a cell or a line; JSON says the same, escaped."""
    name = "a\x1b[2J\tb\nc\x9b"
    monkeypatch.setitem(MODELS, "models", [{**MODELS["models"][0], "name": name}])
    result = RUN.invoke(app, ["models", "--url", url])
    assert result.stdout.split("\t")[0] == "a\u241b[2J\u2409b\u240ac\ufffd"
    result = RUN.invoke(app, ["predict", "echo", json.dumps({"x": name}), "--url", url])
    assert set(result.stdout) & {"\x1b", "\x9b"} == set()
    assert json.loads(result.stdout) == [{"x": name}]


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "m", "{}", "--version", "\udcff"],
        ["predict", "m", "{}", "--version", "1\n2"],
        ["predict", "m", "{}", "--key", "é"],
        ["predict", "\udcff", "{}"],
        ["predict", "m", "\udcff"],
        ["predict", "m", "{}", "--url", "http://["],
        ["models", "--key", "sécret"],
        ["models", "--key", "sec\nret"],
        ["models", "--url", "http://["],
        ["openapi", "--key", "é"],
    ],
)
def test_what_can_t_be_sent_is_one_line(url: str, arguments: list[str]) -> None:
    """Exit code 2 and why, without the key."""
    result = RUN.invoke(app, arguments, env={"MODELMUX_URL": url})
    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 1
    assert "ret" not in result.output


def test_predict_prints_the_answer(url: str) -> None:
    """The body goes to the model's path, the version into its header."""
    result = RUN.invoke(app, ["predict", "ein Modell", '{"x": 1}', "--version", "3", "--url", url])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == [{"path": "/models/ein%20Modell/predict", "version": "3"}]


def test_predict_takes_an_alias_of_any_script(url: str) -> None:
    """It is sent as UTF-8, which is how the gateway reads it."""
    result = RUN.invoke(app, ["predict", "m", "{}", "--version", "größe", "--url", url])
    assert result.exit_code == 0, result.output
    (answer,) = json.loads(result.stdout)
    assert answer["version"].encode("latin-1").decode() == "größe"


def test_predict_reads_standard_input(url: str) -> None:
    """A dash stands for standard input."""
    result = RUN.invoke(app, ["predict", "m", "-", "--url", url], input='{"x": 1}')
    assert result.exit_code == 0


def test_a_refused_prediction_says_where(url: str) -> None:
    """Exit code 1, and the pointer with its message."""
    result = RUN.invoke(app, ["predict", "m", '{"bad": 1}', "--url", url])
    assert result.exit_code == 1
    assert "/bad: Unknown field." in result.output


@pytest.mark.parametrize("command", ["models", "openapi", "history m", "rollback m --dry-run"])
@pytest.mark.parametrize("path", ["/another/200", "/another/404"])
def test_what_is_no_gateway_is_told_as_that(url: str, command: str, path: str) -> None:
    """Exit code 2 in one line, whatever listens there and however well it answers."""
    result = RUN.invoke(app, [*command.split(), "--url", url + path, *_registry_of(command)])
    assert result.exit_code == 2
    assert f"{url}{path} answers {path[-3:]}, and not as a gateway does" in result.output


def _registry_of(command: str) -> list[str]:
    return ["--tracking-uri", "http://127.0.0.1:9"] if command.startswith("rollback") else []


def test_check_by_a_gateway_needs_no_registry(url: str) -> None:
    """Where the gateway is asked, it is all that is asked."""
    result = RUN.invoke(app, ["check", "m", "1", "--url", f"{url}/another/404"])
    assert result.exit_code == 2
    assert "/another/404 answers 404, and not as a gateway does" in result.output


@pytest.mark.parametrize("given", ["127.0.0.1:8000", "gateway", "ftp://gateway", ""])
def test_an_address_that_can_be_none_is_refused(given: str) -> None:
    """Before anybody is asked, and with one that could be."""
    result = RUN.invoke(app, ["models", "--url", given])
    assert result.exit_code == 2
    assert "is no address of a gateway, such as http://127.0.0.1:8000" in result.output


def test_openapi_goes_to_a_file(url: str, tmp_path: Path) -> None:
    """`-o` saves the document."""
    result = RUN.invoke(app, ["openapi", "--url", url, "-o", str(tmp_path / "api.json")])
    assert result.exit_code == 0
    assert json.loads((tmp_path / "api.json").read_text())["openapi"] == "3.1.0"


def test_commands_ask_with_the_key(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the option or the variable; a key that is refused is exit code 1 and the reason."""
    assert RUN.invoke(app, ["models", "--url", url, "--key", "good"]).exit_code == 0
    monkeypatch.setenv("MODELMUX_KEY", "bad")
    for command in (["models"], ["openapi"]):
        result = RUN.invoke(app, [*command, "--url", url])
        assert result.exit_code == 1
        assert "401 unauthenticated: Not known." in result.output
        assert "--key or MODELMUX_KEY" in result.output


def test_a_new_key_is_shown_once_and_its_line_goes_to_a_file() -> None:
    """Standard output has the line alone, which lets the secret of standard error in."""
    result = RUN.invoke(app, ["keys", "new", "shop", "--scope", "predict:a b*", "--scope", "read"])
    assert result.exit_code == 0
    secret = result.stderr.split()[-1]
    assert secret not in result.stdout
    key = parse_keys(result.stdout).key_of(secret.encode())
    assert (key.name, key.scopes) == ("shop", {Scope.READ, Scope.PREDICT})
    assert [key.may_call(name) for name in ("a b1", "ab")] == [True, False]


@pytest.mark.parametrize("arguments", [["a/b"], ["a", "--scope", "write"], ["a b"]])
def test_a_key_that_cannot_be_written_is_one_line(arguments: list[str]) -> None:
    """Exit code 2, and no secret that nobody could use."""
    result = RUN.invoke(app, ["keys", "new", *arguments])
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1
    assert "mmx_" not in result.output


@pytest.mark.parametrize("command", [["models"], ["predict", "m", "{}"], ["openapi"]])
def test_a_gateway_that_is_not_there_is_one_line(command: list[str]) -> None:
    """Exit code 2 and one line."""
    result = RUN.invoke(app, [*command, "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "tracking_uri"),
        (["--tracking-uri", "nonsense"], "tracking_uri"),
        (["--tracking-uri", "http://h:1", "--port", "0"], "port"),
        (["--tracking-uri", "http://h:1", "--poll-interval-s", "-1"], "poll_interval_s"),
        (["--tracking-uri", "http://h:1", "--host", "no.such.host.invalid"], "can't listen"),
        (["--tracking-uri", "http://h:1", "--host", "0.0.0.0", *ANY_PORT], "--insecure"),
        (
            ["--tracking-uri", "http://h:1", "--host", "0.0.0.0", "--ray-address", "auto"],
            "--insecure",
        ),
        (["--tracking-uri", "http://h:1", "--keys-file", "nowhere", *ANY_PORT], "nowhere"),
    ],
)
def test_up_refuses_what_it_cannot_do_in_one_line(
    arguments: list[str], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad setting ends with exit code 2 and one line that names it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it in its own process
    result = RUN.invoke(app, ["up", *arguments])
    assert result.exit_code == 2
    lines = result.output.strip().splitlines()
    assert len(lines) == 1
    assert word in lines[0]


@pytest.mark.parametrize(
    "fields", [{"insecure": True}, {"keys": entry_of("k", "s", ["read"])}, {"host": "::1"}]
)
def test_up_listens_where_it_was_told_that_it_may(fields: dict[str, Any]) -> None:
    """Beyond the loopback with keys or by an explicit word; on it as it is."""
    open_to_all = {"tracking_uri": "http://h:1", "host": "0.0.0.0"}
    with pytest.raises(typer.Exit):
        cli._require_guard(Settings(**open_to_all))
    cli._require_guard(Settings(**{**open_to_all, **fields}))


def test_up_refuses_a_port_in_use() -> None:
    """Found out before Ray starts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = RUN.invoke(app, ["up", "--tracking-uri", "http://h:1", "--port", port])
    assert result.exit_code == 2
    assert port in result.output


def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable is named."""
    monkeypatch.setenv("MODELMUX_PROT", "1")
    result = RUN.invoke(app, ["up", "--tracking-uri", "http://h:1"])
    assert result.exit_code == 2
    assert "MODELMUX_PROT" in result.output


def test_a_webhook_needs_the_secret() -> None:
    """Without the gateway's secret there is nothing that MLflow could sign with."""
    command = ["webhook", "http://gateway/webhooks/mlflow", "--tracking-uri", "http://127.0.0.1:9"]
    result = RUN.invoke(app, command)
    assert result.exit_code == 2
    assert "MODELMUX_WEBHOOK_SECRET" in result.output


@pytest.mark.parametrize(
    ("published", "is_open"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True)]
)
def test_a_container_is_as_open_as_its_port(
    published: str, is_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the port of a container is published decides, not the container's own address."""
    monkeypatch.setenv("MODELMUX_PUBLISHED_HOST", published)
    settings = Settings(tracking_uri="http://127.0.0.1:9", host="0.0.0.0")
    if is_open:
        with pytest.raises(typer.Exit):
            cli._require_guard(settings)
    else:
        cli._require_guard(settings)


def test_tracing_without_its_packages_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is said at the start, with the words that install it."""

    def missing(name: str) -> str:
        raise cli.PackageNotFoundError(name)

    monkeypatch.setenv("MODELMUX_TRACING", "true")
    monkeypatch.setattr(cli, "distribution_version", missing)
    result = RUN.invoke(app, ["up", "--tracking-uri", "http://h:1", *ANY_PORT])
    assert result.exit_code == 2
    assert "modelmux[tracing]" in result.output


def test_it_says_its_version() -> None:
    """As any program does that is installed."""
    result = RUN.invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"modelmux {version('modelmux')}\n")


def test_a_request_may_be_a_files(url: str, tmp_path: Path) -> None:
    """`@name` is what is in the file; one that isn't there is said before anybody is asked."""
    request = tmp_path / "request.json"
    request.write_text('{"x": "ä"}')
    asked = RUN.invoke(app, ["predict", "echo", f"@{request}", "--url", url])
    assert (asked.exit_code, asked.stdout.strip()) == (0, '[{"x": "ä"}]')
    missing = RUN.invoke(app, ["predict", "echo", f"@{request}x", "--url", url])
    assert missing.exit_code == 2
    assert "can't be read" in missing.stderr.replace("\n", " ")


def test_a_state_folder_in_use_is_one_line(tmp_path: Path) -> None:
    """Two gateways in one folder would overwrite what the other one keeps: exit code 2."""
    held = folder_of_one_gateway(tmp_path, url="http://127.0.0.1:8001")
    where = ("--tracking-uri", "http://127.0.0.1:9", "--state-dir", str(tmp_path))
    with held:
        result = RUN.invoke(app, ["up", *where, *ANY_PORT])
    assert result.exit_code == 2
    assert "http://127.0.0.1:8001" in result.stderr.replace("\n", "")
    assert "Ray" not in result.stdout


def test_a_registry_that_can_never_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waiting doesn't mend is said before Ray starts, with what to do: exit code 2."""
    monkeypatch.chdir(tmp_path)
    result = RUN.invoke(app, ["up", "--tracking-uri", "./mlruns", *ANY_PORT])
    assert result.exit_code == 2
    assert "migrate-filestore" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (("zoo:1", "--all"), {}, "give a version, or --all"),
        (("zoo",), {"MODELMUX_ENVIRONMENT": "shared"}, "MODELMUX_ENVIRONMENT is shared"),
    ],
)
def test_environments_arent_built_where_that_cant_be_meant(
    arguments: tuple[str, ...],
    variables: dict[str, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 2 before anybody is asked."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = RUN.invoke(
        app, ["environments", "build", *arguments, "--tracking-uri", "http://127.0.0.1:9"]
    )
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_port_that_is_taken_is_told_with_what_gives_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is started, of `up` and of the demo, whose port the variable says, too."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("MODELMUX_PORT", str(taken.getsockname()[1]))
        for command in (["up", "--tracking-uri", "http://127.0.0.1:9"], ["demo"]):
            where = ["--state-dir" if command[0] == "up" else "--folder", str(tmp_path)]
            result = RUN.invoke(app, [*command, *where])
            assert result.exit_code == 2
            assert "another port is given by --port or MODELMUX_PORT" in result.output
    assert list(tmp_path.iterdir()) == []
