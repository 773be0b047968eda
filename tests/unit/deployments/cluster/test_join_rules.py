"""What has to hold on a Serve that runs already, before a gateway is deployed there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from deployments.cluster.join_rules import (
    CannotJoin,
    RunningServe,
    ServeApplication,
    require_joinable,
)
from deployments.settings import Settings

GATEWAY = frozenset({"SyncService", "Ingress"})
THEIRS = frozenset({"Theirs"})


def _settings(**given: Any) -> Settings:
    return Settings(**{"tracking_uri": "http://h:1", **given})


def _serve(
    *applications: ServeApplication, host: str | None = "0.0.0.0", port: int = 8000
) -> RunningServe:
    return RunningServe(host=host, port=port, applications=applications)


def test_the_gateway_listens_where_serve_does() -> None:
    """Where nobody said a host, it is Serve's: for the guard, and to ask the gateway at."""
    here = _serve().settings_here(_settings())
    assert here.host == "0.0.0.0"
    assert here.url == "http://127.0.0.1:8000"
    assert _serve(host="10.0.0.5").settings_here(_settings()).url == "http://10.0.0.5:8000"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_host_that_serve_has_may_be_said(host: str) -> None:
    """In any of the loopback's names."""
    assert _serve(host="127.0.0.1").settings_here(_settings(host=host)).host == "127.0.0.1"


@pytest.mark.parametrize(
    "given", [{"port": 9000}, {"host": "127.0.0.1"}, {"host": "10.0.0.5", "port": 8000}]
)
def test_another_address_than_serves_is_refused(given: dict[str, Any]) -> None:
    """The sentence says where Serve listens, and with which options it can be had."""
    with pytest.raises(CannotJoin, match=r"0\.0\.0\.0:8000 .* --host 0\.0\.0\.0 --port 8000"):
        _serve().settings_here(_settings(**given))


def test_a_serve_without_http_is_refused() -> None:
    """Nobody could reach the gateway there."""
    with pytest.raises(CannotJoin, match="no HTTP"):
        _serve(host=None).settings_here(_settings())


def test_a_gateway_that_somebody_looks_after_is_left_alone() -> None:
    """A second `up` is refused where the first one lives, or a Serve config has the gateway, with
    both ways out; what a dead `up` left is no obstacle."""
    ours = ServeApplication(name="modelmux", deployments=GATEWAY, route_prefix="/")
    by_config = replace(ours, import_path="deployments.application:build")
    with pytest.raises(CannotJoin, match=r"process 7 on there: .*down.*--take-over"):
        _serve(ours).require_no_gateway(owner="process 7 on there")
    with pytest.raises(CannotJoin, match="Serve config"):
        _serve(by_config).require_no_gateway(owner=None)
    _serve(ours).require_no_gateway(owner=None)
    _serve(replace(by_config, is_ending=True)).require_no_gateway(owner=None)
    _serve().require_no_gateway(owner=None)


def test_a_route_of_somebody_else_is_refused() -> None:
    """The gateway needs `/`, and doesn't take it from anybody."""
    theirs = ServeApplication(name="root", deployments=THEIRS, route_prefix="/")
    with pytest.raises(CannotJoin, match="application root"):
        _serve(theirs).settings_here(_settings())


def test_an_application_that_has_the_gateways_name_is_refused() -> None:
    """It would be replaced."""
    theirs = ServeApplication(name="modelmux", deployments=THEIRS, route_prefix="/theirs")
    with pytest.raises(CannotJoin, match="called modelmux"):
        _serve(theirs).settings_here(_settings())


def test_what_is_no_obstacle_is_left_alone() -> None:
    """A gateway that is there already, other routes and names, and what is ending anyway."""
    here = _serve(
        ServeApplication(name="modelmux", deployments=GATEWAY, route_prefix="/"),
        ServeApplication(name="modelmux-model-zoo", deployments=THEIRS, route_prefix="/zoo"),
        ServeApplication(name="root", route_prefix="/", is_ending=True),
        ServeApplication(name="handle only", deployments=THEIRS),
    )
    ending = _serve(ServeApplication(name="modelmux", is_ending=True))
    for each in (here, ending):
        assert each.settings_here(_settings()) == _settings(host="0.0.0.0")


def test_ray_client_is_refused_in_a_sentence_of_its_own() -> None:
    """`ray://` is no address that a node could be joined at."""
    with pytest.raises(CannotJoin, match="Ray Client"):
        require_joinable("ray://127.0.0.1:10001")
    for address in ("auto", "127.0.0.1:6379"):
        require_joinable(address)
