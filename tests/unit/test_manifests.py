"""The manifest by which KubeRay runs the gateway: deploy/kuberay."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from deployments.cluster.ray_environment import cluster_environment

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "deploy" / "kuberay" / "modelmux.yaml"
CRD = Path(
    os.environ.get("KUBERAY_CRD") or ROOT.parent / "shared" / "kuberay" / "ray.io_rayservices.yaml"
)


def documents(path: Path) -> list[Any]:
    # The CRD has 18,000 lines: libyaml reads them in a tenth of the time.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return list(yaml.load_all(path.read_text(encoding="utf-8"), loader))


def the_one_of(kind: str) -> Any:
    (found,) = [each for each in documents(KUBERAY) if each["kind"] == kind]
    return found


@pytest.fixture
def ray_service() -> Any:
    return the_one_of("RayService")


def test_every_pod_has_the_environment_of_the_fast_path(ray_service: Any) -> None:
    """Ray's variables in the manifest are those of `deployments.cluster.ray_environment`, name by
    name."""
    for container in containers(ray_service):
        written = {each["name"]: each.get("value") for each in container["env"]}
        ours = {name: value for name, value in written.items() if name.startswith("RAY_")}
        assert ours == cluster_environment(), container["name"]


def containers(ray_service: Any) -> list[Any]:
    cluster = ray_service["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [each for group in groups for each in group["template"]["spec"]["containers"]]


def test_every_pod_has_the_state_and_is_asked_how_it_is(ray_service: Any) -> None:
    """The sync service may run in any of them."""
    for container in containers(ray_service):
        assert "/var/lib/modelmux" in {each["mountPath"] for each in container["volumeMounts"]}
        assert container["livenessProbe"]
        assert container["readinessProbe"]


def test_the_volume_has_room_for_the_environments(ray_service: Any) -> None:
    """What they may take, by the config's own bound, leaves room for artifacts."""
    (application,) = yaml.safe_load(ray_service["spec"]["serveConfigV2"])["applications"]
    bound = application["args"]["max_environments_bytes"]
    claim = the_one_of("PersistentVolumeClaim")
    storage = claim["spec"]["resources"]["requests"]["storage"]
    assert int(storage.removesuffix("Gi")) * 1024**3 >= bound + 10 * 1024**3


def test_a_worker_takes_requests_only_with_a_front_door(ray_service: Any) -> None:
    """KubeRay keeps a worker pod out of the service by its readiness probe alone, and Serve runs a
    front door only on nodes that have a replica."""
    for group in ray_service["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        for container in group["template"]["spec"]["containers"]:
            asked = " ".join(container["readinessProbe"]["exec"]["command"])
            assert "http://127.0.0.1:8000/-/healthz" in asked, group["groupName"]
    assert ray_service["spec"]["excludeHeadPodFromServeSvc"]


def test_the_manifest_is_what_kuberay_takes(ray_service: Any) -> None:
    """Valid by the schema of KubeRay's CRD, with no field that it doesn't know."""
    if not CRD.exists():
        pytest.skip(f"KubeRay's CRD isn't at {CRD}; KUBERAY_CRD may name another place")
    (definition,) = documents(CRD)
    (version,) = [v for v in definition["spec"]["versions"] if v["name"] == "v1"]
    assert ray_service["apiVersion"] == f"{definition['spec']['group']}/{version['name']}"
    schema = strict(version["schema"]["openAPIV3Schema"])
    problems = [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
        for error in jsonschema.Draft4Validator(schema).iter_errors(ray_service)
    ]
    assert problems == []


def strict(schema: Any) -> Any:
    """The schema, refusing what Kubernetes would silently drop."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if (
        isinstance(schema.get("properties"), dict)
        and schema.get("type") == "object"
        and not schema.get("x-kubernetes-preserve-unknown-fields")
    ):
        made.setdefault("additionalProperties", False)
    return made
