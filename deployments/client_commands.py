"""`modelmux models`, `predict` and `openapi`: commands that ask a running gateway.

Pretty in a terminal (`deployments.terminal`), plain where the output is a pipe or a file. They need
no Ray and no settings.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from deployments import terminal
from deployments.terminal import NO, fail
from gateway.http.views import predict_path

Url = Annotated[
    str, typer.Option("--url", envvar="MODELMUX_URL", help="Where the gateway listens.")
]
ClientKey = Annotated[
    str | None,
    typer.Option("--key", envvar="MODELMUX_KEY", help="The key to ask with, where keys are on."),
]
_DEFAULT_URL = "http://127.0.0.1:8000"


def models(url: Url = _DEFAULT_URL, key: ClientKey = None) -> None:
    """List what a running gateway serves."""
    listing = _get(url, "/models", key).json()
    if terminal.out.is_terminal:
        terminal.show(terminal.models_table(listing))
        return
    for model in listing["models"]:
        sys.stdout.write("\t".join(_model_cells(model)) + "\n")


def _model_cells(model: dict[str, Any]) -> tuple[str, ...]:
    held = model["held"]
    return (
        model["name"],
        model["status"] if model["reason"] is None else f"{model['status']}: {model['reason']}",
        str(model["default_version"] or "-"),
        ",".join(map(str, model["versions"])),
        ",".join(f"{alias}={number}" for alias, number in model["aliases"].items()),
        "" if held is None else f"{held['version']}: {held['reason']}",
    )


def predict(
    name: str,
    body: Annotated[str, typer.Argument(metavar="JSON|-", help="The request, or - for stdin.")],
    version: Annotated[str | None, typer.Option(help="Number, alias or latest.")] = None,
    url: Url = _DEFAULT_URL,
    key: ClientKey = None,
) -> None:
    """Ask a model of a running gateway."""
    content = sys.stdin.read() if body == "-" else body
    headers = {b"Content-Type": b"application/json"}
    if version is not None:
        headers[b"X-Model-Version"] = version.encode()  # httpx takes text in ASCII only
    started = time.perf_counter()
    with _client(url, key) as client:
        try:
            response = client.post(predict_path(name), content=content.encode(), headers=headers)
        except httpx.HTTPError as error:
            raise fail(f"no answer from {url}: {error}") from error
    if not response.is_success:
        raise _refusal(response)
    _print_answer(response, milliseconds=(time.perf_counter() - started) * 1000)


def _print_answer(response: httpx.Response, *, milliseconds: float) -> None:
    if not terminal.out.is_terminal:
        sys.stdout.write(response.text + "\n")
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
    url: Url = _DEFAULT_URL,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A file.")] = None,
    key: ClientKey = None,
) -> None:
    """Print (or save) the OpenAPI document of all models."""
    document = _get(url, "/openapi.json", key)
    if output is None:
        sys.stdout.write(document.text + "\n")
        return
    try:
        output.write_bytes(document.content)
    except OSError as error:
        raise fail(f"{output} can't be written: {error.strerror}") from error


def _client(url: str, key: str | None) -> httpx.Client:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=url, timeout=120.0, headers=headers)


def _get(url: str, path: str, key: str | None) -> httpx.Response:
    with _client(url, key) as client:
        try:
            response = client.get(path)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise fail(f"no answer from {url}: {error}") from error
    if not response.is_success:
        raise _refusal(response)
    return response


def _refusal(response: httpx.Response) -> typer.Exit:
    """Tell what the gateway refused; the exit to raise."""
    is_problem = "json" in response.headers.get("content-type", "")
    if is_problem and terminal.err.is_terminal:
        retry_after = response.headers.get("Retry-After")
        terminal.show(terminal.problem(response.json(), retry_after), console=terminal.err)
        return typer.Exit(NO)
    return fail(_problem_text(response), NO)


def _problem_text(response: httpx.Response) -> str:
    """A problem document in a few lines; whatever else it is, its status."""
    if "json" not in response.headers.get("content-type", ""):
        return f"the answer was {response.status_code}"
    problem = response.json()
    lines = [f"{problem['status']} {problem['code']}: {problem['detail']}"]
    lines += [f"  {e['pointer'] or '/'}: {e['message']}" for e in problem.get("errors", [])]
    lines += [f"  {d['section']}{d['pointer']}: {d['message']}" for d in problem.get(
        "differences", [])]  # fmt: skip
    return "\n".join(lines)
