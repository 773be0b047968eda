"""Reading a real registry (a SQLite store, no server): what is broken stays where it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import pytest
from mlflow import MlflowClient

from gateway.catalog import Catalog
from registry_sync.catalog_builder import build_catalog, to_be_pinned
from registry_sync.default_version import DefaultPolicy, LoadFacts
from registry_sync.pin_writer import PinWriter
from registry_sync.pins import pin_tags
from registry_sync.records import RegistryUnreachable
from registry_sync.source import MlflowRegistry, NamePatterns
from tests.support.registering import columns, register

NUMBER = columns(("x", "double"))


@pytest.fixture
def uri(empty_registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_registry, tmp_path)
    return f"sqlite:///{tmp_path / 'registry.db'}"


def _register(uri: str, name: str) -> int:
    return register(uri, name, lambda rows, params: rows, NUMBER, NUMBER)


def _artifacts(uri: str, name: str, number: int) -> Path:
    location = MlflowClient(uri, uri).get_model_version_download_uri(name, str(number))
    return Path(urlsplit(location).path)


def test_missing_and_broken_artifacts_are_marked_and_the_rest_is_fresh(uri: str) -> None:
    """A version without MLmodel file, or with a broken one, has a problem; its neighbours none."""
    for _ in range(3):
        _register(uri, "m")
    _register(uri, "other")
    shutil.rmtree(_artifacts(uri, "m", 1))
    (_artifacts(uri, "m", 2) / "MLmodel").write_text("flavors: [")
    by_name = {model.name: model for model in MlflowRegistry(tracking_uri=uri).read()}
    problems = [version.problem for version in by_name["m"].versions]
    assert problems[0] is not None
    assert "can't be read" in problems[0]
    assert problems[1] is not None
    assert "broken" in problems[1]
    assert problems[2] is None
    assert by_name["other"].versions[0].problem is None


def test_what_is_known_is_not_read_again(uri: str) -> None:
    """Facts of a version are read once, and outlive its artifact store through `known`."""
    number = _register(uri, "m")
    first = MlflowRegistry(tracking_uri=uri).read()
    shutil.rmtree(_artifacts(uri, "m", number))
    again = MlflowRegistry(tracking_uri=uri, known=first[0].versions).read()
    assert again == first


def test_what_an_earlier_release_read_is_read_again(uri: str) -> None:
    """As soon as that can be done: until then it is served as it was known."""
    number = _register(uri, "m")
    (model,) = MlflowRegistry(tracking_uri=uri).read()
    before = [version.model_copy(update={"read_as": 0}) for version in model.versions]
    assert MlflowRegistry(tracking_uri=uri, known=before).read() == (model,)
    shutil.rmtree(_artifacts(uri, "m", number))
    (kept,) = MlflowRegistry(tracking_uri=uri, known=before).read()
    assert list(kept.versions) == before


def test_a_quiet_registry_yields_the_same_versions(uri: str) -> None:
    """A version is the same object in every reading until the registry says something new of it."""
    for _ in range(2):
        _register(uri, "m")
    registry = MlflowRegistry(tracking_uri=uri)
    first = registry.read()[0].versions
    MlflowClient(uri, uri).set_model_version_tag("m", "2", "modelmux.accept_breaking", "true")
    second = registry.read()[0].versions
    assert second[0] is first[0]
    assert second[1].accept_breaking
    assert registry.read()[0].versions[1] is second[1]


def test_aliases_tags_and_patterns_are_read(uri: str) -> None:
    """Aliases come from the model, `accept_breaking` from the version, names by pattern."""
    _register(uri, "m")
    _register(uri, "not this")
    store = MlflowClient(uri, uri)
    store.set_registered_model_alias("m", "champion", "1")
    store.set_registered_model_tag("m", "modelmux.timeout_s", "3")
    store.set_model_version_tag("m", "1", "modelmux.accept_breaking", "true")
    patterns = NamePatterns(exclude=("not *",))
    (model,) = MlflowRegistry(tracking_uri=uri, patterns=patterns).read()
    assert (model.aliases, model.tags["modelmux.timeout_s"]) == ({"champion": 1}, "3")
    assert model.versions[0].accept_breaking


def _look(uri: str, before: Catalog | None) -> Catalog:
    """What a gateway that pins makes of the registry now, `before` what it made of it last."""
    read = MlflowRegistry(tracking_uri=uri).read()
    now = build_catalog(read, before, policy=DefaultPolicy(), facts=LoadFacts(), pins=True).catalog
    found = ((record, now.models[record.name]) for record in read)
    PinWriter(tracking_uri=uri).write(
        (record.name, pin_tags(served)) for record, served in found if to_be_pinned(record, served)
    )
    return now


def test_a_gateway_without_a_disk_goes_on_from_what_the_registry_has_pinned(uri: str) -> None:
    """The contract outlives the gateway that kept it; a second one follows the first."""
    _register(uri, "m")
    first = _look(uri, None)
    text = columns(("x", "string"))
    register(uri, "m", lambda rows, params: rows, text, text)
    fresh = _look(uri, None).models["m"]
    assert fresh.default_version == 1
    assert fresh.held is not None
    assert fresh.held.number == 2
    MlflowClient(uri, uri).set_model_version_tag("m", "2", "modelmux.accept_breaking", "true")
    assert _look(uri, first).models["m"].default_version == 2
    followed = _look(uri, None).models["m"]
    assert (followed.default_version, followed.default_cause) == (2, "pinned")


def test_a_registry_that_is_away_tells_no_secret() -> None:
    """The exception names the registry without user and password."""
    registry = MlflowRegistry(tracking_uri="http://user:secret@127.0.0.1:9")
    with pytest.raises(RegistryUnreachable) as caught:
        registry.read()
    assert "127.0.0.1:9" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.fixture(autouse=True)
def _quick_to_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.get_tracking_uri())
