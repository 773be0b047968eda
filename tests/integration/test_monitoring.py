"""Metrics, alerts and the dashboard, with a real Prometheus that scrapes a real gateway."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pandas as pd
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from gateway.metrics.families import (
    CANARY_STOPPED,
    FAMILIES,
    KEY_REQUESTS,
    KEY_REQUESTS_REFUSED,
    MODEL_DEPLOYMENTS,
)
from tests.support.processes import Gateway, poll
from tests.support.prometheus import (
    CONFIGURATION,
    DASHBOARD,
    RULE_TESTS,
    RULES,
    Prometheus,
    prometheus,
)
from tests.support.registering import client, columns, register

NUMBER = columns(("x", "double"))
NAME = "monitored"
HELD = "monitored, held"
UNLOADABLE = "monitored, can't be loaded"
UNBUILDABLE = "monitored, can't be built"
SHADOWED = "monitored, with a shadow"
ELSEWHERE = (CANARY_STOPPED, KEY_REQUESTS, KEY_REQUESTS_REFUSED, MODEL_DEPLOYMENTS)
"""Here no canary fails (`test_rollout.py` has one that does), no keys are on, and all models are in
the shared deployment (`test_activator.py` has some that aren't)."""


def _twice(rows: pd.DataFrame, params: Any) -> pd.DataFrame:
    if (rows["x"] < 0).any():
        raise ValueError("negative")
    return rows * 2


def _fail() -> None:
    raise RuntimeError("this version can't be loaded")


@pytest.fixture(scope="module")
def monitored(mlflow_uri: str, shared_gateway: Gateway) -> Gateway:
    """The gateway with models that give it something to tell."""
    for _ in range(2):
        register(mlflow_uri, NAME, _twice, NUMBER, NUMBER)
    registry = client(mlflow_uri)
    registry.set_registered_model_tag(NAME, "modelmux.batching", "on")
    registry.set_registered_model_tag(NAME, "modelmux.max_loaded_versions", "1")
    registry.set_registered_model_tag(NAME, "modelmux.capture", "100")
    registry.set_registered_model_tag(NAME, "modelmux.canary", "1:0")
    for _ in range(2):
        register(mlflow_uri, SHADOWED, _twice, NUMBER, NUMBER)
    registry.set_registered_model_tag(SHADOWED, "modelmux.shadow", "1")
    register(mlflow_uri, HELD, _twice, NUMBER, NUMBER)
    register(mlflow_uri, UNLOADABLE, _twice, NUMBER, NUMBER, on_load=_fail)
    register(mlflow_uri, UNBUILDABLE, _twice, NUMBER, NUMBER, requirements=["mlflow==1.999"])
    registry.set_registered_model_tag(UNBUILDABLE, "modelmux.environment", "own")
    shared_gateway.sync()
    register(mlflow_uri, HELD, _twice, columns(("other", "double")), NUMBER)
    shared_gateway.sync()
    return shared_gateway


@pytest.fixture(scope="module")
def watched(
    promtool: str, monitored: Gateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the gateway."""
    with prometheus(tmp_path_factory.mktemp("prometheus"), monitored.url) as running:
        yield running


def ask_a_lot(gateway: Gateway) -> None:
    """A moment of everything: versions that evict each other, crowds, errors, who leaves."""
    for version in ("1", "2"):
        assert gateway.predict(NAME, {"x": 1}, X_Model_Version=version).status_code == 200
    with ThreadPoolExecutor(8) as crowd:
        list(crowd.map(lambda x: gateway.predict(NAME, [{"x": x}] * 3), range(24)))
    assert gateway.predict(NAME, {"x": 1}, Accept="text/event-stream").status_code == 200
    assert gateway.predict(SHADOWED, {"x": 1}).status_code == 200
    assert gateway.predict(NAME, {"x": -1}).status_code == 500
    assert gateway.predict(NAME, {"y": 1}).status_code == 422
    assert gateway.predict("monitored, unknown to all", {"x": 1}).status_code == 404
    assert gateway.predict(UNLOADABLE, {"x": 1}).status_code == 503
    with suppress(httpx.TimeoutException):
        httpx.post(f"{gateway.url}/models/{NAME}/predict", json={"x": 1}, timeout=0.001)


def test_promtool_accepts_the_rules_and_each_alert_has_been_seen_to_fire(promtool: str) -> None:
    """Configuration and rules are valid, and each alert has a test in which it fires."""
    for command in (
        ("check", "config", str(CONFIGURATION)),
        ("check", "rules", "--lint-fatal", str(RULES)),
        ("test", "rules", str(RULE_TESTS)),
    ):
        done = subprocess.run([promtool, *command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    tests = yaml.safe_load(RULE_TESTS.read_text())["tests"]
    fired = {
        each["alertname"]
        for test in tests
        for each in test["alert_rule_test"]
        if each.get("exp_alerts")
    }
    assert fired == {rule["alert"] for rule in group["rules"]}


def test_prometheus_reads_every_metric_and_each_panel_of_the_dashboard_has_data(
    monitored: Gateway, watched: Prometheus
) -> None:
    """Of each family there is a series, and each query of each panel gives some."""
    poll(lambda: [t["health"] for t in watched.targets("modelmux")] == ["up"], what="a scrape")
    missing = set(_queries())

    def all_have_data() -> bool:
        missing.difference_update([query for query in missing if watched.query(query)])
        return not missing

    for _ in range(4):  # a rate is of two scrapes, with something in between
        ask_a_lot(monitored)
        with suppress(AssertionError):
            poll(all_have_data, timeout_s=20)
            break
    assert missing == set()
    suffixes = {"counter": "_total", "gauge": "", "histogram": "_bucket"}
    wanted = {family.name + suffixes[family.kind] for family in FAMILIES if family not in ELSEWHERE}
    assert wanted - watched.names() == set()


def test_a_shadow_is_compared_across_all_processes(monitored: Gateway) -> None:
    """What the default answers is asked version 1 in a process of its own, and the sync service has
    what came of it, whichever ingress replica tells."""
    told: dict[str, Any] = {}

    def is_compared() -> bool:
        assert monitored.predict(SHADOWED, [{"x": 1}, {"x": 2}]).status_code == 200
        told.update(httpx.get(f"{monitored.url}/models/{SHADOWED}/shadow").json())
        return bool(told["requests"]["compared"] >= 3)

    poll(is_compared, timeout_s=90, what="requests that were compared")
    assert (told["default_version"], told["shadow_version"]) == (2, 1)
    assert told["agreement"] == 1.0
    assert told["columns"][0]["share_equal"] == 1.0
    assert told["latency_ms"]["shadow"]["p50"] > 0


def _queries() -> Iterator[str]:
    """Every query of the dashboard, as Grafana would send it with all models chosen."""
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            asked = target["expr"].replace("$__rate_interval", "1m")
            yield asked.replace("$model", ".*").replace("$instance", ".*")


def test_the_numbers_are_right_and_no_caller_makes_a_label(
    promtool: str, monitored: Gateway, mlflow_uri: str
) -> None:
    """Requests, rows, loads and evictions are counted by what came of them; names that the
    registry doesn't have are counted together, and what is gone from it is told no more."""
    before = _numbers(monitored)
    ask_a_lot(monitored)

    def grown(name: str, **labels: str) -> float:
        return _sum(_numbers(monitored), name, labels) - _sum(before, name, labels)

    assert grown("modelmux_requests_total", model=NAME, version="2", status="200") >= 25
    assert grown("modelmux_request_rows_total", model=NAME, version="2") >= 73
    assert grown("modelmux_request_duration_seconds_count", model=NAME, version="1") == 1
    assert grown("modelmux_requests_total", model=NAME, status="500") == 1
    assert grown("modelmux_requests_total", model=NAME, status="422") == 1
    assert grown("modelmux_requests_total", model="", status="404") == 1
    assert grown("modelmux_requests_total", model=UNLOADABLE, status="503") == 1
    poll(lambda: grown("modelmux_evictions_total", model=NAME) >= 1, what="an eviction")
    poll(lambda: _sum(_numbers(monitored), "modelmux_loaded_versions", {"model": NAME}) == 1)
    assert grown("modelmux_loads_total", model=NAME, outcome="ok") >= 1
    now = _numbers(monitored)
    assert _sum(now, "modelmux_default_held", {"model": HELD, "version": "2"}) == 1
    assert _sum(now, "modelmux_model_unservable", {"model": UNLOADABLE}) == 1
    assert _sum(now, "modelmux_sync_service_up", {}) == 1
    told = monitored.client.get("/metrics").text
    assert "unknown to all" not in told
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=told, capture_output=True, text=True, timeout=30
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    client(mlflow_uri).delete_registered_model(UNLOADABLE)
    monitored.sync()
    assert UNLOADABLE not in monitored.client.get("/metrics").text


def _numbers(gateway: Gateway) -> list[Sample]:
    answer = gateway.client.get("/metrics")
    assert answer.status_code == 200, answer.text
    families = text_string_to_metric_families(answer.text)
    return [sample for family in families for sample in family.samples]


def _sum(samples: list[Sample], name: str, labels: dict[str, str]) -> float:
    """The sum over all series of that name with these labels."""
    return sum(
        sample.value
        for sample in samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
