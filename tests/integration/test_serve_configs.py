"""What Serve and our builder make of the configs in deploy/serve and deploy/kuberay."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SERVE_CONFIG = ROOT / "deploy" / "serve" / "modelmux.yaml"
KUBERAY = ROOT / "deploy" / "kuberay" / "modelmux.yaml"


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


# In a process of its own: unit tests, which may run later in this one, must not find Ray imported.
_BUILD = """
import json, sys
from ray.serve.schema import ServeDeploySchema
from deployments.application import build
from deployments.application_names import APPLICATION, BUILDER
from deployments.settings import BadSettings

def refusal(config):
    (application,) = ServeDeploySchema.model_validate(config).applications
    assert (application.name, application.route_prefix) == (APPLICATION, "/")
    assert application.import_path == f"{build.__module__}:{build.__name__}" == BUILDER
    try:
        build(application.args)
    except BadSettings as refused:
        return str(refused)

print(json.dumps([refusal(config) for config in json.load(sys.stdin)]))
"""


def test_the_builder_takes_the_configs_and_refuses_what_lets_everybody_in() -> None:
    """Serve's own schema takes both files, and the builder their arguments. Without keys it wants
    to be told so, and `port` among the arguments would silently do nothing."""
    (plain,) = documents(SERVE_CONFIG)
    (ray_service,) = [each for each in documents(KUBERAY) if each["kind"] == "RayService"]
    good = [plain, yaml.safe_load(ray_service["spec"]["serveConfigV2"])]
    open_to_all, misplaced = (copy.deepcopy(good[0]) for _ in range(2))
    del open_to_all["applications"][0]["args"]["insecure"]
    misplaced["applications"][0]["args"]["port"] = 9000
    done = subprocess.run(
        [sys.executable, "-c", _BUILD],
        input=json.dumps([*good, open_to_all, misplaced]),
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *taken, first, second = json.loads(done.stdout)
    assert taken == [None, None]
    assert "keys_file" in first
    assert "http_options" in second
