"""The story of docker-compose.yml, told against the real thing: `make compose-test`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import mlflow
import mlflow.sklearn
import pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression

from examples.registration import DOMAIN_NAME, register_domain_name
from gateway.security.api_keys import entry_of, new_secret
from tests.compose.stack import Stack
from tests.support.processes import poll
from tests.support.registering import client

_logger = logging.getLogger(__name__)

NAME = "steps"
SOON_S = 3.0
"""What a webhook tells is seen within about a second; a busy machine may take longer. The gateway
itself would look after ten minutes."""
BUILT_S = 300.0


def register(stack: Stack, factor: float) -> int:
    """Register a line through the origin by MLflow's published port; the version's number."""
    mlflow.set_tracking_uri(stack.mlflow_uri)
    x = pd.DataFrame({"x": [0.0, 1.0, 2.0]})
    model = LinearRegression(fit_intercept=False).fit(x, x["x"] * factor)
    answers = pd.DataFrame({"y": [0.0]})
    info = mlflow.sklearn.log_model(
        model,
        name="model",
        signature=infer_signature(x, answers),
        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_PICKLE,
        pip_requirements=["scikit-learn"],
        registered_model_name=NAME,
    )
    return int(info.registered_model_version)


def seen_after_s(what: str, condition: Callable[[], Any]) -> float:
    """Seconds until the condition holds, in the log too."""
    started = time.monotonic()
    poll(condition, timeout_s=SOON_S, what=what)
    took = time.monotonic() - started
    _logger.warning("%s: seen after %.2f s", what, took)
    return took


def has_default(stack: Stack, number: int) -> bool:
    model = stack.model(NAME)
    return model is not None and model["default_version"] == number


def answer(stack: Stack, **headers: str) -> float:
    (row,) = stack.predict(NAME, **headers)
    return round(float(row["y"]), 6)


def test_the_stack_serves_follows_and_loses_nothing(stack: Stack) -> None:
    """Registered from outside and seen by webhook; an alias moves; MLflow restarts, the gateway is
    killed, all goes down and comes up again, and everything is as it was."""
    assert register(stack, 2) == 1
    seen_after_s("the first version", lambda: has_default(stack, 1))
    assert answer(stack) == 20
    assert register(stack, 3) == 2
    seen_after_s("a new version", lambda: has_default(stack, 2))
    assert (answer(stack), answer(stack, **{"X-Model-Version": "1"})) == (30, 20)

    registry = client(stack.mlflow_uri)
    registry.set_registered_model_alias(NAME, "champion", "1")
    seen_after_s("an alias", lambda: has_default(stack, 1))
    assert answer(stack) == 20

    stack.compose("restart", "mlflow")
    assert answer(stack) == 20
    stack.wait_for_mlflow()
    assert register(stack, 4) == 3
    seen_after_s("a version after MLflow's restart", lambda: _knows(stack, 3))

    stack.compose("kill", "gateway")
    assert register(stack, 5) == 4  # the webhook has nobody to tell it to
    stack.up()
    assert _knows(stack, 4), "what the webhook missed is seen by looking"
    assert (answer(stack), has_default(stack, 1)) == (20, True)

    before = stack.model(NAME)
    stack.compose("down")
    stack.up()
    poll(lambda: stack.model(NAME) == before, what="all that is told of it")
    assert answer(stack, **{"X-Model-Version": "latest"}) == 50
    assert len(registry.list_webhooks()) == 1
    registry.set_registered_model_alias(NAME, "champion", "4")
    seen_after_s("an alias after down and up", lambda: has_default(stack, 4))


def _knows(stack: Stack, number: int) -> bool:
    model = stack.model(NAME)
    return model is not None and number in model["versions"]


def test_a_model_has_the_packages_that_it_pins(stack: Stack) -> None:
    """Its environment is built in the container, and kept when that goes: the next one answers from
    it at once, beside models that run with the image's own packages."""
    register_domain_name(stack.mlflow_uri)

    def answers() -> Any:
        asked = stack.ask(DOMAIN_NAME, {"name": "bücher.example"})
        return asked.json() if asked.status_code == 200 else None

    started = time.monotonic()
    answered = [{"ascii": "xn--bcher-kva.example", "idna": "3.7"}]
    assert poll(answers, timeout_s=BUILT_S, what="its packages") == answered
    _logger.warning("an environment: built after %.2f s", time.monotonic() - started)
    of_the_image = stack.execute("gateway", "python", "-c", "import idna; print(idna.__version__)")
    assert of_the_image.stdout.strip() not in ("", "3.7")

    stack.compose("down")
    stack.up()
    assert answers() == answered, "it was built anew"
    told = {NAME: ("gateway", "ready"), DOMAIN_NAME: ("own", "ready")}
    poll(lambda: {name: _environment(stack, name) for name in told} == told, what="what is told")


def _environment(stack: Stack, name: str) -> tuple[str, str] | None:
    """Which packages a model runs with, and whether they are there; None where nobody knows yet."""
    model = stack.model(name)
    told = None if model is None else model["environment"]
    return None if told is None else (told["kind"], told["state"])


def test_what_is_published_and_what_may_be_written(stack: Stack) -> None:
    """The gateway is no root, has a root that can't be written, and publishes one port, on this
    machine alone."""
    published = stack.inspect("gateway")["NetworkSettings"]["Ports"]
    assert [port for port, bound in published.items() if bound] == ["8000/tcp"]
    assert {bound["HostIp"] for bound in published["8000/tcp"]} == {"127.0.0.1"}
    for service in ("gateway", "mlflow"):
        assert stack.execute(service, "id", "-u").stdout.strip() == "10001"
        assert stack.execute(service, "touch", "/written").returncode != 0
        assert stack.inspect(service)["State"]["Health"]["Status"] == "healthy"


def test_prometheus_finds_what_it_scrapes(stack: Stack) -> None:
    """The target of deploy/prometheus answers inside of the stack's network, without a key as long
    as there are none."""
    ask = "from urllib.request import urlopen as o; print(o('http://gateway:8000/metrics').read())"
    assert "modelmux_" in stack.execute("mlflow", "python", "-c", ask).stdout


def test_without_keys_it_is_not_published_to_others(stack: Stack) -> None:
    """Told that its port is published on every address, a gateway without keys doesn't start."""
    refused = stack.compose(
        "run", "--rm", "--no-deps", "-e", "MODELMUX_PUBLISHED_HOST=0.0.0.0", "gateway", expect=2
    )
    assert "can be reached from other machines" in refused


def test_keys_of_the_environment_are_asked_for(stack: Stack) -> None:
    """With keys the same port answers who has one, and nobody else."""
    secret = new_secret()
    stack.environment["MODELMUX_KEYS"] = entry_of("caller", secret, ["read"])
    try:
        stack.up()
        assert stack.client.get("/models").status_code == 401
        headers = {"Authorization": f"Bearer {secret}"}
        assert stack.client.get("/models", headers=headers).status_code == 200
    finally:
        del stack.environment["MODELMUX_KEYS"]
        stack.up()
