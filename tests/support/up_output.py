"""What `modelmux up` may print in a whole life: lines of its own, and those of our loggers."""

from __future__ import annotations

import json
import re

_LOGGER = r"(?:deployments|gateway|registry_sync|modelmux)\.[\w.]+"
_STATUS = (
    r"(?:Starting|Joining) Ray …|Deploying the gateway …|Waiting for the catalog …"
    r"|Loading models: \d+ of \d+ …|Stopping …"
)
_SAID = "|".join(
    [
        r"What Ray itself says is in \S+ray\.log\.",
        _STATUS,
        r".+ Trying again\.",
        r"Ready: \d+ models? at http://\S+  ·  docs at http://\S+/docs",
        r"\(up after [\d.]+ s; Ctrl-C stops it\)",
        r"Stopped\.",
        r"modelmux: .+",
    ]
)
_LOGGED = rf"\d{{4}}-\d\d-\d\d [\d:,]+ (?:INFO|WARNING|ERROR) {_LOGGER}: .+"
_STACK = r" {4}(?: {2})?\S.*"  # a type, or a frame of its stack
_OURS = re.compile(rf"{_SAID}|{_LOGGED}|{_STACK}")
_DRAWN = re.compile(rf"|[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] (?:{_STATUS})|{_OURS.pattern}")
# What the status line writes: colours, erasing, one line up, the cursor hidden and shown.
_CONTROLS = re.compile(r"\x1b\[(?:\d*[mAK]|\?25[hl])")


def not_ours(output: str) -> list[str]:
    """Lines of a file that neither the command nor one of our loggers wrote."""
    return [line for line in output.splitlines() if not _OURS.fullmatch(line)]


def not_ours_in_terminal(output: str) -> list[str]:
    """The same of a terminal, where the status line is drawn again and again."""
    lines = re.split(r"[\r\n]+", _CONTROLS.sub("", output))
    return [line for line in lines if not _DRAWN.fullmatch(line)]


def not_ours_in_json(output: str) -> list[str]:
    """Lines of a log of JSON that are none, or of a logger that isn't ours."""
    return [line for line in output.splitlines() if not _is_ours(line)]


def _is_ours(line: str) -> bool:
    try:
        logged = json.loads(line)
    except ValueError:
        return False
    is_whole = {"timestamp", "level", "logger", "message"} <= logged.keys()
    return is_whole and re.fullmatch(_LOGGER, logged["logger"]) is not None
