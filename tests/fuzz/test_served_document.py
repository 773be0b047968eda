"""schemathesis against the OpenAPI document that the gateway serves: valid and invalid requests to
every route and every model that isn't made to fail, each answer compared with the document."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

from tests.fuzz.conftest import SECONDS, SEED
from tests.support.contract_models import MADE_TO_FAIL
from tests.support.processes import Gateway

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
STARTING_S = 120


def _start(gateway: Gateway, names: frozenset[str]) -> None:
    """So that all of the time goes into asking them."""
    for name in names:
        detail = gateway.client.get(f"/models/{quote(name, safe='')}").json()
        if name not in MADE_TO_FAIL and detail["status"] == "ready":
            asked = gateway.client.post(detail["predict_url"], json=detail["example"])
            assert asked.status_code == 200, asked.text


def test_every_answer_is_one_that_the_document_tells(
    fuzzed: Gateway, contract_models: frozenset[str], tmp_path: Path
) -> None:
    """No 5xx, no status, media type or body that isn't documented, whatever is sent."""
    _start(fuzzed, contract_models)
    served = {model["name"] for model in fuzzed.client.get("/models").json()["models"]}
    for_others = (served - contract_models) | set(MADE_TO_FAIL)
    names = "|".join(re.escape(quote(name, safe="")) for name in for_others)
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run", f"{fuzzed.url}/openapi.json",
        "--checks", ",".join(CHECKS),
        "--seed", str(SEED), "--max-time", f"{max(1, round(SECONDS))}",
        "--exclude-path-regex", f"^/models/({names})/",
        "--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--no-color",
        # Less, and they would be told that there was too little time, with a 5xx.
        "--header", "X-Request-Timeout: 60", "--request-timeout", "60",
        "--warnings", "off", "--suppress-health-check", "all",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS * 3 + STARTING_S
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
