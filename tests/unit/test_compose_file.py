"""docker-compose.yml against what it is made from; the stack itself is tests/compose."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.cli.app import SPAN_EXPORTER
from deployments.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]

# The stack's own: what its services are called, and where they listen inside of it.
OF_THE_STACK = {"tracking_uri", "registry_uri", "host", "port", "state_dir", "ray_address"}

OF_OPENTELEMETRY = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
)

OF_UV = (
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_FIND_LINKS",
    "UV_OFFLINE",
    "UV_TORCH_BACKEND",
    "UV_PYTHON_INSTALL_MIRROR",
)


@pytest.fixture
def services() -> dict[str, Any]:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)["services"])


def test_every_setting_can_be_given_to_the_gateway(services: dict[str, Any]) -> None:
    """What the shell or `.env` sets is passed on, and nothing that isn't a setting."""
    passed = {name for name in services["gateway"]["environment"] if name.startswith(PREFIX)}
    wanted = {f"{PREFIX}{name}".upper() for name in Settings.model_fields.keys() - OF_THE_STACK}
    assert passed == wanted | {"MODELMUX_TRACKING_URI"}


def test_where_traces_go_can_be_said(services: dict[str, Any]) -> None:
    """OpenTelemetry's variables reach the gateway, unset where nobody sets them; the docs and the
    example of `.env` name each, and the package that sends the spans."""
    environment = services["gateway"]["environment"]
    passed = {name: value for name, value in environment.items() if name.startswith("OTEL_")}
    assert passed == dict.fromkeys(OF_OPENTELEMETRY)
    pages = ("docs/8-monitoring.md", "deploy/compose/env.example")
    for text in [(ROOT / page).read_text(encoding="utf-8") for page in pages]:
        assert {name for name in (*passed, SPAN_EXPORTER) if name not in text} == set()


def test_where_models_packages_come_from_can_be_said(services: dict[str, Any]) -> None:
    """uv's variables reach the gateway, unset where nobody sets them; the docs and the example of
    `.env` name each."""
    environment = services["gateway"]["environment"]
    passed = {name: value for name, value in environment.items() if name.startswith("UV_")}
    assert passed == dict.fromkeys(OF_UV)
    for page in ("docs/10-operation.md", "deploy/compose/env.example"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert {name for name in passed if name not in text} == set(), page


def test_environments_and_pythons_outlive_a_container(services: dict[str, Any]) -> None:
    """They are below what a volume keeps, by the image's own variables."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    kept = "/var/lib/modelmux"
    assert f"state:{kept}" in services["gateway"]["volumes"]
    for variable in ("MODELMUX_STATE_DIR", "UV_PYTHON_INSTALL_DIR"):
        (value,) = re.findall(rf"\b{variable}=(\S+)", dockerfile)
        assert Path(value).is_relative_to(kept), variable


def test_no_password_is_one_that_everybody_knows(services: dict[str, Any]) -> None:
    """Grafana takes an empty password for `admin`; ours is made where none is given."""
    grafana = services["grafana"]
    script, variable, file, *_ = grafana["entrypoint"]
    assert (script, variable) == ("with-secret", "GF_SECURITY_ADMIN_PASSWORD")
    folders = [volume.split(":")[1] for volume in grafana["volumes"]]
    assert str(Path(file).parent) in folders
    assert f"/usr/local/bin/{script}" in folders


def test_what_is_published_is_published_on_this_machine_alone(services: dict[str, Any]) -> None:
    """By default every published port is on the loopback."""
    for name, service in services.items():
        for port in service.get("ports", ()):
            assert port.startswith(("127.0.0.1:", "${")), name
            assert "127.0.0.1" in port.rpartition(":${")[0], name


def test_services_are_confined(services: dict[str, Any]) -> None:
    """No capabilities, a root that can't be written, no new privileges; for each of them."""
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_every_image_of_ours_has_a_health_check() -> None:
    """Services wait for each other's health, which the images say."""
    for dockerfile in (ROOT / "Dockerfile", ROOT / "deploy" / "compose" / "mlflow.Dockerfile"):
        text = dockerfile.read_text(encoding="utf-8")
        assert "HEALTHCHECK" in text
        assert "constraints.txt" in text
        assert "\nUSER 10001" in text
