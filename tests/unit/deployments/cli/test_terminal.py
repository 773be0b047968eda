"""What commands look like in a terminal: each runs in a pseudo-terminal of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from deployments.cli.terminal import environments_table, status_line

ROOT = Path(__file__).parents[3]
RED, GREEN, YELLOW = ("\x1b[31m", "\x1b[32m", "\x1b[33m")
DIFFERENCE = {
    "section": "inputs", "pointer": "/country", "change": "now_required", "contract": None,
    "candidate": "string (required)", "message": "Inputs /country is new.",
}  # fmt: skip
_MODEL = {
    "name": "m", "description": "", "status": "ready", "reason": None, "default_version": 2,
    "aliases": {"champion": 2}, "versions": [3, 2, 1], "held": None, "warnings": [],
    "predict_url": "/models/m/predict", "default_reason": "The alias names it.",
}  # fmt: skip
MODELS = {
    "registry": {"problem": "The registry is away."},
    "models": [
        {
            **_MODEL,
            "held": {"version": 3, "reason": "It would break.", "differences": [DIFFERENCE]},
        },
        {
            **_MODEL,
            "name": "[red]odd[/red]",
            "status": "unservable",
            "reason": "No signature.",
            "warnings": ["Its stage says otherwise.", "Its tag is odd."],
        },
    ],
}
ANSWERS: dict[str, tuple[int, object]] = {
    "table": (200, [{"y": 1.5, "text": "[bold]"}, {"y": None, "text": "b"}]),
    "nested": (200, [{"y": [1, 2]}]),
    "invalid": (
        422,
        {"status": 422, "code": "invalid_input", "detail": "It does not fit.",
         "errors": [{"pointer": "/1/x", "message": "A number is expected."}]},
    ),
    "different": (
        409,
        {"status": 409, "code": "signature_mismatch", "detail": "It differs.",
         "requested_version": 3, "differences": [DIFFERENCE]},
    ),
}  # fmt: skip


class FakeGateway(BaseHTTPRequestHandler):
    """Answers by the name in the path."""

    def do_GET(self) -> None:
        self._answer(200, MODELS)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(*ANSWERS[self.path.split("/")[2]])

    def _answer(self, status: int, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Model-Version", "2")
        if status == 409:
            self.send_header("Retry-After", "5")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), FakeGateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def in_terminal(*arguments: str, columns: int = 100) -> tuple[str, int]:
    """What `modelmux` with these arguments shows in a terminal, and its exit code."""
    program = "from deployments.cli.app import main; main()"
    return shown(program, *arguments, columns=columns)


def shown(program: str, *arguments: str, columns: int = 100) -> tuple[str, int]:
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns)}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, env=environment,
    )  # fmt: skip
    os.close(slave)
    text = _read(master, timeout_s=60)
    os.close(master)
    return text, process.wait(10)


def _read(master: int, *, timeout_s: float) -> str:
    """Until nobody has the terminal any more."""
    deadline = time.monotonic() + timeout_s
    found = b""
    while time.monotonic() < deadline:
        ready, _, _ = select.select([master], [], [], 1.0)
        try:
            piece = os.read(master, 65536) if ready else None
        except OSError:  # Linux: the other side is closed
            break
        if piece == b"":
            break
        found += piece or b""
    return found.decode()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_models_are_a_table_with_states_in_colour(url: str) -> None:
    """Ready green, unservable red with the reason, held yellow with what is different."""
    text, code = in_terminal("models", "--url", url)
    assert code == 0
    assert f"{GREEN}ready" in text
    assert f"{RED}unservable" in text
    assert f"{YELLOW}version 3 held: It would break." in text
    words = plain(text)
    for part in ("Inputs /country is new.", "champion → 2", "No signature.", "[red]odd[/red]",
                 "2 models · 1 held · 1 not served · 1 with warnings",
                 "The registry is away."):  # fmt: skip
        assert part in words


def test_models_fit_a_narrow_terminal(url: str) -> None:
    """Lines are folded, not cut off."""
    text, _ = in_terminal("models", "--url", url, columns=50)
    assert max(len(line.rstrip()) for line in plain(text).splitlines()) <= 50
    assert "registry" in plain(text)


def test_wide_models_have_all_in_one_line(url: str) -> None:
    """Whatever the terminal's width: why the default is one, warnings and the path, unfolded."""
    text, code = in_terminal("models", "--wide", "--url", url, columns=50)
    assert code == 0
    (line,) = [line for line in plain(text).splitlines() if "[red]odd" in line]
    for part in ("The alias names it.", "Its stage says otherwise. Its tag is odd.", "/predict"):
        assert part in line
    program = "from deployments.cli.app import main; main()"
    piped = subprocess.run(
        [sys.executable, "-c", program, "models", "--wide", "--url", url],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert piped.stdout.splitlines()[1].split("\t")[7:] == [
        "The alias names it.", "Its stage says otherwise. Its tag is odd.", "/models/m/predict", ""
    ]  # fmt: skip


def test_a_flat_answer_is_a_table_and_a_nested_one_json(url: str) -> None:
    """With who answered below; markup in values is text."""
    text, code = in_terminal("predict", "table", "{}", "--url", url)
    assert code == 0
    assert re.search(r"1 +1\.5 +\[bold\]", plain(text))
    assert "version 2 · " in plain(text)
    text, _ = in_terminal("predict", "nested", "{}", "--url", url)
    assert json.loads(plain(text).rpartition("]")[0] + "]") == [{"y": [1, 2]}]
    assert "\x1b[" in text


def test_a_refusal_has_its_pointers_in_a_table(url: str) -> None:
    """Where and what, in a row; exit code 1."""
    text, code = in_terminal("predict", "invalid", "{}", "--url", url)
    assert code == 1
    assert re.search(r"/1/x +A number is expected\.", plain(text))
    text, code = in_terminal("predict", "different", "{}", "--url", url)
    assert code == 1
    assert re.search(r"/country +now required +– +string \(required\)", plain(text))
    assert "Try again in 5 s." in plain(text)


HOSTILE = """
import json
from deployments.cli.terminal import *
bad = "[/b] :x: \\x1b[2J\\x1b]0;t\\x07\\x7f\\x9b1m"
change = {"section": bad, "pointer": "/a[/b]", "change": bad, "contract": bad, "candidate": None,
          "message": bad}
held = {"version": 3, "reason": bad, "differences": [change]}
show(models_table({"registry": {"problem": bad}, "models": [
    {"name": bad, "status": bad, "reason": bad, "default_version": 1, "aliases": {bad: 1},
     "versions": [1], "held": held, "warnings": [bad], "default_reason": bad,
     "predict_url": bad, "description": bad}]}, wide=True))
show(answer(json.dumps([{bad: bad}], ensure_ascii=False)))
show(answer(json.dumps([{bad: [bad]}], ensure_ascii=False)))
show(summary(version=bad, request_id=bad, milliseconds=1))
refused = {"status": 409, "code": bad, "detail": bad, "differences": [change],
           "errors": [{"pointer": bad, "message": bad}]}
show(problem(refused, bad), console=err)
out.print(bad)
with status_line(out.print, live=True) as line:
    line.show(bad)
fail(bad)
"""


def test_text_from_outside_is_shown_and_never_obeyed() -> None:
    """Brackets are no markup and `:x:` no emoji; of controls there are pictures, and of what those
    would begin the rest is there to be read."""
    text, _ = shown(HOSTILE, columns=1000)
    assert "Traceback" not in text
    ours = re.compile(r"\x1b\[([0-9;]*m|[0-9]*[AK]|\?25[hl])")  # colours, and the status line's
    left = ours.sub("", text)
    assert re.findall(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f]", left) == []
    for part in ("[/b] :x:", "\u241b[2J\u241b]0;t"):
        assert left.count(part) >= 20
    assert "\u2421\ufffd1m" in left
    assert "/a[/b]" in left


STATUS = """
import os
from deployments.cli.terminal import out, status_line
with status_line(print, live=True) as line:
    line.tell("Starting …")
    line.show("Waiting …")
    line.clear()
    os.write(2, b"a line of another process\\n")
    out.print("said")
    out.print("end")
"""


def test_the_status_line_makes_place_for_lines_and_goes_away() -> None:
    """In a terminal it is redrawn below what others write, and is no line of what stays."""
    text, code = shown(STATUS)
    assert code == 0
    assert "Waiting …" in text
    stays = [re.sub(r".*\x1b\[2K", "", line) for line in text.splitlines()]
    for line in ("a line of another process", "said", "end"):
        assert line in [plain(each).strip() for each in stays]


def test_without_a_terminal_there_is_no_status_line(capsys: pytest.CaptureFixture[str]) -> None:
    """What begins is a plain line; what changes is none."""
    said: list[str] = []
    with status_line(said.append, live=True) as line:
        line.tell("Starting …")
        line.show("Waiting …")
        line.clear()
    assert said == ["Starting …"]
    assert capsys.readouterr().out == ""


def test_reasons_have_room_in_a_table_of_environments() -> None:
    """In a terminal of 100 columns each is on three lines at most, for keys are cut short."""
    row = {
        "model": "fraud", "version": 3, "environment": "own", "state": "missing", "key": "0f" * 16,
        "size_bytes": None, "why": "its own: needs scikit-learn==1.5.2, the gateway has 1.9.1",
        "warning": None, "reason": None, "lines": [],
    }  # fmt: skip
    console = Console(width=100)
    with console.capture() as captured:
        console.print(environments_table([row]))
    lines = captured.get().splitlines()
    assert "0f0f0f0f " in lines[1]
    assert len(lines) <= 1 + 3 + 1
