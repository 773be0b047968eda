"""The manifests by which KubeRay runs the gateway: deploy/kuberay, and the chart in deploy/helm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from deployments.cluster.ray_environment import cluster_environment
from deployments.settings import Settings

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "deploy" / "kuberay" / "modelmux.yaml"
CHART = ROOT / "deploy" / "helm" / "modelmux"
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
    assert problems_by_the_crd(ray_service) == []


def problems_by_the_crd(ray_service: Any) -> list[str]:
    if not CRD.exists():
        pytest.skip(f"KubeRay's CRD isn't at {CRD}; KUBERAY_CRD may name another place")
    (definition,) = documents(CRD)
    (version,) = [v for v in definition["spec"]["versions"] if v["name"] == "v1"]
    assert ray_service["apiVersion"] == f"{definition['spec']['group']}/{version['name']}"
    schema = strict(version["schema"]["openAPIV3Schema"])
    return [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
        for error in jsonschema.Draft4Validator(schema).iter_errors(ray_service)
    ]


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


# What somebody may want otherwise, all at once.
OTHERWISE = {
    "image": {"repository": "registry.example/modelmux", "tag": "2", "pullPolicy": "Always"},
    "settings": {"insecure": True, "warm": "champions", "cors_origins": "*"},
    "existingSecret": "of-theirs",  # pragma: allowlist secret
    "env": [{"name": "UV_DEFAULT_INDEX", "value": "https://packages.example/simple"}],
    "envFrom": [{"secretRef": {"name": "mlflow-credentials"}}],
    "state": {"ephemeral": True},
    "workers": {"replicas": 3, "maxReplicas": 4, "pod": {"nodeSelector": {"disk": "fast"}}},
    "gpuWorkers": {"maxReplicas": 0},
    "ingress": {
        "host": "models.example",
        "className": "nginx",
        "tlsSecret": "certificate",  # pragma: allowlist secret
    },
}
RENDER = """
import json, pathlib, sys, go_template
made = go_template.render(pathlib.Path(sys.argv[1]), json.load(sys.stdin))
sys.stdout.buffer.write(made)
"""
OF_THE_CHART = {"keys", "keys_file", "state_dir", "webhook_secret"}
WHERE_TO_LISTEN = {"host", "port", "published_host", "published_port", "ray_address"}


def chart_file(name: str) -> Any:
    return yaml.safe_load((CHART / name).read_text(encoding="utf-8"))


def with_values(given: dict[str, Any]) -> dict[str, Any]:
    """The chart's values, and of `given` what is said in place of them, member by member."""

    def merged(below: Any, above: Any) -> Any:
        if not (isinstance(below, dict) and isinstance(above, dict)):
            return above
        return below | {name: merged(below.get(name), value) for name, value in above.items()}

    values: dict[str, Any] = merged(chart_file("values.yaml"), given)
    return values


def rendered(template: str, given: dict[str, Any], release: str = "modelmux") -> str:
    """A template of the chart by the engine that Helm has, with all that Helm adds and ours takes.
    In a process of its own, which it ends at an error."""
    if find_spec("go_template") is None:
        pytest.skip("the chart is rendered by a wheel that isn't there for this system")
    context = {
        "Values": with_values(given),
        "Release": {"Name": release, "Namespace": "ml"},
        "Chart": {"AppVersion": chart_file("Chart.yaml")["appVersion"]},
    }
    done = subprocess.run(
        [sys.executable, "-c", RENDER, str(CHART / "templates" / template)],
        input=json.dumps(context),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def made_by_the_chart(given: dict[str, Any], release: str = "modelmux") -> dict[str, Any]:
    """What the chart makes, by kind."""
    found = yaml.safe_load_all(rendered("modelmux.yaml", given, release))
    return {each["kind"]: each for each in found if each is not None}


def test_the_chart_makes_what_the_manifest_has(ray_service: Any) -> None:
    """With its default values, and the manifest's image: one description of the service."""
    made = made_by_the_chart({"image": {"tag": "latest"}})
    for container in containers(made["RayService"]):
        assert (container.pop("imagePullPolicy"), container.pop("envFrom")) == ("IfNotPresent", [])
    for service in (ray_service, made["RayService"]):
        service["spec"]["serveConfigV2"] = yaml.safe_load(service["spec"]["serveConfigV2"])
    assert made["RayService"] == ray_service
    assert made["Secret"] == the_one_of("Secret")
    assert made["PersistentVolumeClaim"]["spec"] == the_one_of("PersistentVolumeClaim")["spec"]
    assert len(made) == 3


@pytest.mark.parametrize("given", [{}, OTHERWISE], ids=["as it is", "otherwise"])
def test_the_chart_is_what_kuberay_takes(given: dict[str, Any]) -> None:
    """Whatever values say, what comes of them is valid by the CRD."""
    assert problems_by_the_crd(made_by_the_chart(given, "models")["RayService"]) == []


def test_values_reach_what_they_are_of() -> None:
    """Settings, Secret, variables, pods and the way in are as the values say."""
    made = made_by_the_chart(OTHERWISE, "models")
    assert set(made) == {"Ingress", "RayService"}
    service = made["RayService"]
    assert service["metadata"]["name"] == "models"
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    assert application["args"]["warm"] == "champions"
    assert "keys_file" not in application["args"]
    for container in containers(service):
        assert container["image"] == "registry.example/modelmux:2"
        assert container["env"][-2]["valueFrom"]["secretKeyRef"]["name"] == "of-theirs"
        assert container["env"][-1] == OTHERWISE["env"][0]  # type: ignore[index]
        assert container["envFrom"] == OTHERWISE["envFrom"]
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (3, 3, 4)
    pod = group["template"]["spec"]
    assert pod["nodeSelector"] == {"disk": "fast"}
    assert {"name": "state", "emptyDir": {}} in pod["volumes"]
    (rule,) = made["Ingress"]["spec"]["rules"]
    assert rule["http"]["paths"][0]["backend"]["service"]["name"] == "models-serve-svc"


def test_who_sets_no_keys_is_told() -> None:
    """Nobody is let in then, which isn't to be found out by a 401."""
    told = "nobody is let in"
    assert told in rendered("NOTES.txt", {})
    assert told not in rendered("NOTES.txt", OTHERWISE)
    assert told not in rendered("NOTES.txt", {"keys": "shop sha256:… predict"})


def test_the_chart_takes_each_setting_and_nothing_else() -> None:
    """Those by which a config can't be said where to listen, and secrets, have places of their
    own; what isn't known is refused before anything is installed."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    taken = schema["properties"]["settings"]["propertyNames"]["enum"]
    assert taken == sorted(set(Settings.model_fields) - OF_THE_CHART - WHERE_TO_LISTEN)
    validator = jsonschema.Draft7Validator(schema)
    for good in ({}, OTHERWISE):
        assert list(validator.iter_errors(with_values(good))) == []
    refused: tuple[dict[str, Any], ...] = (
        {"imagge": {}},
        {"settings": {"port": 1}},
        {"workers": {"replicas": 0}},
    )
    for bad in refused:
        assert list(validator.iter_errors(with_values(bad))) != []


def test_the_chart_is_of_this_release() -> None:
    """Its version, and that of the image which it takes, are the project's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    chart = chart_file("Chart.yaml")
    assert (chart["apiVersion"], chart["name"]) == ("v2", CHART.name)
    assert chart["version"] == chart["appVersion"] == project["version"]


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm isn't installed")
@pytest.mark.parametrize("given", [{}, OTHERWISE], ids=["as it is", "otherwise"])
def test_helm_itself_takes_the_chart(given: dict[str, Any], tmp_path: Path) -> None:
    """Its linter has no warning, and it renders what the tests above have looked at."""
    values = tmp_path / "values.json"
    values.write_text(json.dumps(given))
    for command in (["lint", "--strict"], ["template", "models"]):
        done = subprocess.run(
            ["helm", *command, str(CHART), "--values", str(values)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    found = (each for each in yaml.safe_load_all(done.stdout) if each is not None)
    assert {each["kind"]: each for each in found} == made_by_the_chart(given, "models")
