"""`modelmux models`, `predict` and `openapi`: commands that ask a running gateway.

Pretty in a terminal (`deployments.cli.terminal`), plain where the output is a pipe or a file. They
need no Ray and no settings."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from deployments.cli import terminal
from deployments.cli.terminal import NO, fail
from gateway.http.predict.path import predict_path

Url = Annotated[
    str, typer.Option("--url", envvar="MODELMUX_URL", help="Where the gateway listens.")
]
ClientKey = Annotated[
    str | None,
    typer.Option("--key", envvar="MODELMUX_KEY", help="The key to ask with, where keys are on."),
]
_NO_KEY = 401
_ANOTHER = "another address is given by --url or MODELMUX_URL"
DEFAULT_URL = "http://127.0.0.1:8000"


def models(
    url: Url = DEFAULT_URL,
    key: ClientKey = None,
    wide: Annotated[
        bool,
        typer.Option("--wide", help="Why the default is what it is, warnings, paths; unfolded."),
    ] = False,
) -> None:
    """List what a running gateway serves."""
    listing = ask("GET", url, "/models", key, member="models").json()
    if terminal.out.is_terminal:
        console = terminal.unfolded() if wide else terminal.out
        terminal.show(terminal.models_table(listing, wide=wide), console=console)
        return
    for model in listing["models"]:
        terminal.write_row(*_model_cells(model), *(terminal.more_cells(model) if wide else ()))


def _model_cells(model: dict[str, Any]) -> tuple[str, ...]:
    held = model["held"]
    return (
        model["name"],
        model["status"] if model["reason"] is None else f"{model['status']}: {model['reason']}",
        str(model["default_version"] or "-"),
        ",".join(map(str, model["versions"])),
        ",".join(f"{alias}={number}" for alias, number in model["aliases"].items()),
        "" if held is None else f"{held['version']}: {held['reason']}",
        terminal.environment_of(model),
    )


def predict(
    name: str,
    body: Annotated[
        str,
        typer.Argument(metavar="JSON|@FILE|-", help="The request, @ its file, - for stdin."),
    ],
    version: Annotated[str | None, typer.Option(help="Number, alias or latest.")] = None,
    url: Url = DEFAULT_URL,
    key: ClientKey = None,
) -> None:
    """Ask a model of a running gateway."""
    headers = {b"Content-Type": b"application/json"}
    if version is not None:
        headers[b"X-Model-Version"] = _header_value("the version", version)
    try:
        path = predict_path(name)
        content = _content_of(body)
    except UnicodeEncodeError:
        raise fail("the model's name and the request must be text in UTF-8") from None
    started = time.perf_counter()
    response = ask("POST", url, path, key, content=content, headers=headers)
    _print_answer(response, milliseconds=(time.perf_counter() - started) * 1000)


def _content_of(body: str) -> bytes:
    """The request itself; no JSON begins with an @."""
    if body == "-":
        return sys.stdin.buffer.read()
    if not body.startswith("@"):
        return body.encode()
    try:
        return Path(body[1:]).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "that is no name of a file"
        raise fail(f"{body[1:]} can't be read: {reason}") from error


def _print_answer(response: httpx.Response, *, milliseconds: float) -> None:
    if not terminal.out.is_terminal:
        terminal.write_json(response.text)
        return
    terminal.show(terminal.answer(response.text))
    headers = response.headers
    about = terminal.summary(
        version=headers.get("X-Model-Version"),
        request_id=headers.get("X-Request-ID"),
        milliseconds=milliseconds,
    )
    terminal.show(about, console=terminal.err)


def openapi(
    url: Url = DEFAULT_URL,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A file.")] = None,
    key: ClientKey = None,
) -> None:
    """Print (or save) the OpenAPI document of all models."""
    document = ask("GET", url, "/openapi.json", key, member="openapi")
    if output is None:
        terminal.write_json(document.text)
        return
    try:
        output.write_bytes(document.content)
    except OSError as error:
        raise fail(f"{output} can't be written: {error.strerror}") from error


def ask(
    method: str,
    url: str,
    path: str,
    key: str | None,
    *,
    content: bytes | None = None,
    headers: Mapping[bytes, bytes] | None = None,
    refused: int = NO,
    member: str | None = None,
) -> httpx.Response:
    """The gateway's answer, an object with that `member` where one is given; raises the exit
    that says why not, with the code `refused` where the gateway said so."""
    try:
        with gateway_client(url, key) as client:
            response = client.request(method, path, content=content, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise fail(f"no answer from {url}: {error}; {_ANOTHER}") from error
    if not is_of_a_gateway(response, member):
        status = response.status_code
        raise fail(f"{url} answers {status}, and not as a gateway does; {_ANOTHER}")
    if not response.is_success:
        raise _refusal(response, refused)
    return response


def is_of_a_gateway(response: httpx.Response, member: str | None = None) -> bool:
    """Whether it is a problem document, or JSON; an object with that `member`, where one is given:
    anything may listen at an address."""
    if "json" not in response.headers.get("content-type", ""):
        return False
    try:
        value = response.json()
    except ValueError:
        return False
    wanted = {"status", "code", "detail"} if not response.is_success else {member} - {None}
    return not wanted or (isinstance(value, dict) and wanted <= value.keys())


def have_looked(url: str, key: str | None) -> None:
    """Have a gateway look at the registry now; where it can't, or the key may not ask for that, it
    does so by itself in a while."""
    with suppress(httpx.HTTPError, httpx.InvalidURL), gateway_client(url, key) as client:
        client.post("/registry/sync")


def no_address(url: str) -> typer.Exit:
    """Say that an address can be no gateway's; the exit to raise."""
    return fail(f"{url} is no address of a gateway, such as {DEFAULT_URL}; {_ANOTHER}")


def gateway_client(url: str, key: str | None) -> httpx.Client:
    """A client of the gateway there; raises the exit for an address or a key that can't be one."""
    if not url.startswith(("http://", "https://")):
        raise no_address(url)
    headers: dict[bytes, bytes] = {}
    if key is not None:
        if not key.isascii():
            raise fail("the key has characters that no key has")
        headers[b"Authorization"] = b"Bearer " + _header_value("the key", key)
    return httpx.Client(base_url=url, timeout=120.0, headers=headers)


def _header_value(what: str, value: str) -> bytes:
    """As UTF-8: httpx takes a text in ASCII only."""
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        raise fail(f"{what} must be text in UTF-8") from None
    if not value.isprintable():
        raise fail(f"{what} has characters that can't be sent in a header")
    return encoded


def _refusal(response: httpx.Response, code: int) -> typer.Exit:
    """Tell what the gateway refused; the exit to raise."""
    if terminal.err.is_terminal:
        retry_after = response.headers.get("Retry-After")
        terminal.show(terminal.problem(response.json(), retry_after), console=terminal.err)
    else:
        fail(_problem_text(response), code)
    if response.status_code == _NO_KEY:
        terminal.err.print("A key is given by --key or MODELMUX_KEY.")
    return typer.Exit(code)


def _problem_text(response: httpx.Response) -> str:
    """A problem document in a few lines."""
    problem = response.json()
    lines = [f"{problem['status']} {problem['code']}: {problem['detail']}"]
    lines += [f"  {e['pointer'] or '/'}: {e['message']}" for e in problem.get("errors", [])]
    lines += [f"  {d['section']}{d['pointer']}: {d['message']}" for d in problem.get(
        "differences", [])]  # fmt: skip
    return "\n".join(lines)
