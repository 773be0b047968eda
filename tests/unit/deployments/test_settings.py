"""Settings from arguments and variables."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from deployments.settings import BadSettings, Settings, read_settings

URI = "http://127.0.0.1:5000"


def test_variables_set_what_arguments_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument wins over its variable, a variable over the default."""
    monkeypatch.setenv("MODELMUX_PORT", "9000")
    monkeypatch.setenv("MODELMUX_INCLUDE", "a*, b")
    settings = Settings(tracking_uri=URI, host="0.0.0.0")
    assert (settings.port, settings.host, settings.include) == (9000, "0.0.0.0", ("a*", "b"))
    assert Settings(tracking_uri=URI, port=9001).port == 9001


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 0),
        ("port", 65536),
        ("poll_interval_s", 0),
        ("compatibility", "loose"),
        ("max_body_bytes", 1),
        ("tracking_uri", "nonsense"),
        ("tracking_uri", "http://"),
        ("tracking_uri", "ftp://host"),
        ("tracking_uri", "http://host:5000/#/models"),
        ("tracking_uri", "databricks-uc"),
        ("registry_uri", "nonsense"),
        ("root_path", "ml"),
        ("root_path", "//host"),
        ("root_path", "/ml?x"),
        ("trusted_proxies", "proxy.example"),
        ("cors_origins", "https://app.example/path"),
        ("cors_origins", "null"),
        ("include", '["a*", "b"]'),
        ("public", '["models"]'),
        ("cors_origins", "https://app.example:443"),
        ("mlflow_ui_url", "mlflow.example.com"),
        ("mlflow_ui_url", "https://user:secret@mlflow.example.com"),  # pragma: allowlist secret
        ("unknown", 1),
    ],
)
def test_bad_values_are_refused_by_name(name: str, value: object) -> None:
    """The error's location is the setting's name."""
    with pytest.raises(ValidationError) as caught:
        Settings(**{"tracking_uri": URI, name: value})  # type: ignore[arg-type]
    assert {error["loc"][0] for error in caught.value.errors()} == {name}


def test_where_the_gateway_is_can_be_said() -> None:
    """A path loses the slash at its end; one address is a network; origins are as they are."""
    settings = Settings(
        tracking_uri=URI,
        root_path="/ml/",
        trusted_proxies="127.0.0.1, fd00::/8",  # type: ignore[arg-type]
        cors_origins="*, https://app.example",  # type: ignore[arg-type]
    )
    assert settings.root_path == "/ml"
    assert [str(network) for network in settings.trusted_proxies] == ["127.0.0.1/32", "fd00::/8"]
    assert settings.cors_origins == ("*", "https://app.example")


@pytest.mark.parametrize(
    "uri", ["http://h:5000", "https://h/path", "sqlite:///x.db", "postgresql+psycopg2://h/db",
            "databricks", "./mlruns"]
)  # fmt: skip
def test_every_kind_of_store_is_taken(uri: str) -> None:
    """What MLflow takes as a tracking URI, modelmux does."""
    assert Settings(tracking_uri=uri).tracking_uri == uri


def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt setting doesn't silently do nothing."""
    read_settings({"tracking_uri": URI})
    monkeypatch.setenv("MODELMUX_PROT", "9000")
    with pytest.raises(BadSettings, match="MODELMUX_PROT"):
        read_settings({"tracking_uri": URI})


def test_mlflows_own_variable_names_the_server_where_nothing_else_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who has set it for MLflow's clients needs to say it no second time; ours and what is given
    go before it, and an empty one is none."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert read_settings({}).tracking_uri == "http://mlflow:5000"
    assert read_settings({"tracking_uri": URI}).tracking_uri == URI
    monkeypatch.setenv("MODELMUX_TRACKING_URI", "http://ours:5000")
    assert read_settings({}).tracking_uri == "http://ours:5000"
    monkeypatch.delenv("MODELMUX_TRACKING_URI")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")
    with pytest.raises(BadSettings, match="is that of MLFLOW_TRACKING_URI here"):
        read_settings({})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    with pytest.raises(BadSettings, match="tracking_uri"):
        read_settings({})


def test_a_bad_value_is_named_and_not_repeated() -> None:
    """Keys stand in settings, too: what is wrong is said without what was given."""
    with pytest.raises(BadSettings, match="port") as refused:
        read_settings({"tracking_uri": URI, "port": "a secret"})
    assert "a secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "tracking_uri: give --tracking-uri, or set MODELMUX_TRACKING_URI"),
        (
            {"tracking_uri": URI, "registry_uri": "nonsense"},
            "registry_uri (MODELMUX_REGISTRY_URI): not a URI of an MLflow server or store, such as "
            "http://127.0.0.1:5000",
        ),
        (
            {"tracking_uri": URI, "state_dir": 1, "port": "x"},
            "port (--port, MODELMUX_PORT): not a whole number; "
            "state_dir (MODELMUX_STATE_DIR): not a path",
        ),
        (
            {"tracking_uri": URI, "trusted_proxies": "proxy"},
            "trusted_proxies (MODELMUX_TRUSTED_PROXIES): not an address or a network, such as "
            "10.0.0.0/8",
        ),
        (
            {"tracking_uri": URI, "port": 9000, "grpc_port": 9000},
            "grpc_port (MODELMUX_GRPC_PORT): it is the port of HTTP, too",
        ),
        (
            {"tracking_uri": URI, "ingress_replicas": 3, "ingress_max_replicas": 2},
            "ingress_max_replicas (MODELMUX_INGRESS_MAX_REPLICAS): less than ingress_replicas",
        ),
    ],
)
def test_a_setting_is_named_as_it_is_given(
    given: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its option, where it has one here, and its variable, in words that aren't a
    validator's."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it in its own process
    with pytest.raises(BadSettings) as refused:
        read_settings(given, options=("tracking_uri", "port"))
    assert str(refused.value) == said


def test_settings_do_not_change() -> None:
    """What is passed around is the same for everybody."""
    with pytest.raises(ValidationError):
        Settings(tracking_uri=URI).port = 1


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:8000"), ("0.0.0.0", "http://127.0.0.1:8000"),
     ("::1", "http://[::1]:8000"), ("::", "http://[::1]:8000")],
)  # fmt: skip
def test_the_url_is_one_that_can_be_opened(host: str, url: str) -> None:
    """A wildcard address is reached on the loopback; IPv6 goes in brackets."""
    assert Settings(tracking_uri=URI, host=host).url == url


def test_users_are_told_the_address_at_which_it_is_published() -> None:
    """A container listens on all of its own addresses, and is reached at another one."""
    inside = {"tracking_uri": URI, "host": "0.0.0.0"}
    assert Settings(**inside).published_url == "http://127.0.0.1:8000"
    outside = Settings(**inside, published_host="models.example", published_port=9000)
    assert outside.published_url == "http://models.example:9000"
    assert outside.url == "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ({"tracking_uri": "http://u:p@mlflow:5000"}, "http://mlflow:5000"),
        ({"tracking_uri": "sqlite:///mlflow.db"}, None),
        ({"registry_uri": "https://registry"}, "https://registry"),
        ({"mlflow_ui_url": "https://host/@team/ui"}, "https://host/@team/ui"),
    ],
)
def test_pages_lead_to_mlflow_where_it_has_pages(said: dict[str, str], address: str | None) -> None:
    """The setting's address, else the registry's, without user and password."""
    assert Settings(**{"tracking_uri": URI, **said}).mlflow_address == address  # type: ignore[arg-type]


def test_the_state_folder_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas have other working directories."""
    monkeypatch.chdir(tmp_path)
    assert Settings(tracking_uri=URI).state_dir == tmp_path / ".modelmux"


def test_environments_may_be_where_several_gateways_have_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the state folder, or in a folder of their own, absolute as that."""
    monkeypatch.chdir(tmp_path)
    assert Settings(tracking_uri=URI).environments_folder == tmp_path / ".modelmux/environments"
    shared = Settings(tracking_uri=URI, environments_dir=Path("shared"))
    assert shared.environments_folder == tmp_path / "shared"
    assert shared.state_dir == tmp_path / ".modelmux"
