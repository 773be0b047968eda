"""Versions that were logged without a signature, in a real registry (a SQLite store, no server)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
import numpy as np
import orjson
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.models import infer_signature, set_signature

from gateway.catalog import UNTYPED_SIGNATURE, Catalog, ModelVersion, contract_of
from registry_sync.catalog_builder import build_catalog
from registry_sync.default_version import DefaultPolicy
from registry_sync.source import MlflowRegistry
from tests.support.registering import client, log

TAG = "modelmux.signature"


class _Model(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return model_input


@pytest.fixture
def uri(empty_registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_registry, tmp_path)
    return f"sqlite:///{tmp_path / 'registry.db'}"


@pytest.fixture
def look(uri: str) -> Callable[[], tuple[Catalog, ModelVersion]]:
    """Look at the registry: the catalog after it, and its one version."""
    registry = MlflowRegistry(tracking_uri=uri)
    seen: list[Catalog] = []

    def look() -> tuple[Catalog, ModelVersion]:
        before = seen[-1] if seen else None
        seen.append(build_catalog(registry.read(), before, policy=DefaultPolicy()).catalog)
        return seen[-1], seen[-1].models["m"].versions[0]

    return look


def _artifacts(uri: str) -> Path:
    location = MlflowClient(uri, uri).get_model_version_download_uri("m", "1")
    return Path(urlsplit(location).path)


def _without_signature(folder: Path) -> None:
    """As older MLflows wrote it: the example is there, and nothing was inferred from it."""
    document = yaml.safe_load((folder / "MLmodel").read_text())
    document.pop("signature", None)
    (folder / "MLmodel").write_text(yaml.safe_dump(document))


@pytest.mark.parametrize("where", ["model", "version"])
def test_the_tag_serves_it_untyped(uri: str, look: Any, where: str) -> None:
    """On the model or the version, set and removed at any time; without it the reason names it."""
    log(uri, "m", _Model())
    catalog, version = look()
    assert TAG in (version.problem or "")
    assert TAG in (catalog.models["m"].problem or "")
    store = client(uri)
    if where == "model":
        store.set_registered_model_tag("m", TAG, "none")
    else:
        store.set_model_version_tag("m", "1", TAG, "none")
    catalog, version = look()
    assert (version.problem, version.signature, version.typing) == (None, UNTYPED_SIGNATURE, "none")
    assert catalog.resolve("m", None).contract.untyped
    assert look()[1] is version
    if where == "model":
        store.delete_registered_model_tag("m", TAG)
    else:
        store.delete_model_version_tag("m", "1", TAG)
    assert TAG in (look()[1].problem or "")


def test_a_tag_that_means_nothing_is_told(uri: str, look: Any) -> None:
    """A value but `none` is a warning."""
    log(uri, "m", _Model())
    client(uri).set_registered_model_tag("m", TAG, "any")
    client(uri).set_model_version_tag("m", "1", TAG, "any")
    warnings = look()[0].models["m"].warnings
    assert len([each for each in warnings if TAG in each]) == 2


def test_the_tag_leaves_a_signature_alone(uri: str, look: Any) -> None:
    """MLflow enforces a signature that is there, whatever a tag says."""
    number = pd.DataFrame({"x": [1.0]})
    log(uri, "m", _Model(), signature=infer_signature(number, number))
    client(uri).set_registered_model_tag("m", TAG, "none")
    version = look()[1]
    assert (version.typing, contract_of(version.signature).untyped) == ("signature", False)


def test_a_signature_that_is_set_in_place_is_noticed(uri: str, look: Any) -> None:
    """At the next look, be the version served untyped until then or not at all: its contract is
    that of the signature, and its artifacts count as others than those that were loaded."""
    log(uri, "m", _Model())
    client(uri).set_registered_model_tag("m", TAG, "none")
    before = look()[1]
    number = pd.DataFrame({"x": [1.0]})
    set_signature(str(_artifacts(uri)), infer_signature(number, number))
    catalog, after = look()
    assert (after.typing, after.unsigned) == ("signature", None)
    assert after.fingerprint == before.registered_as != before.fingerprint
    assert catalog.models["m"].contract == after.signature
    assert not catalog.resolve("m", None).contract.untyped


# MLflow about the columns of an example that is a DataFrame.
@pytest.mark.filterwarnings("ignore:Operation with range is deprecated")
@pytest.mark.parametrize(
    "example",
    [
        pd.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": [0.5, 1.5]}),
        np.array([[1.0, 2.0], [3.0, 4.0]]),
        {"question": "Why?", "n": 3},
        ["a", "b"],
        (pd.DataFrame({"a": [1]}), {"limit": 5}),
    ],
)
def test_the_types_of_an_input_example_are_inferred(uri: str, look: Any, example: Any) -> None:
    """As `infer_signature` has them, of the inputs and params; it is said where they come from."""
    log(uri, "m", _Model(), input_example=example)
    _without_signature(_artifacts(uri))
    version = look()[1]
    given, params = example if isinstance(example, tuple) else (example, None)
    want = infer_signature(given, None, params).to_dict()
    assert (version.typing, version.problem) == ("input example", None)
    assert orjson.loads(version.signature or "") == want
    assert "inferred" in (version.typing_note or "")
    assert contract_of(version.signature).parse(orjson.dumps(version.example)).rows >= 1
    client(uri).set_model_version_tag("m", "1", TAG, "none")
    assert look()[1].typing == "none"


@pytest.mark.filterwarnings("ignore:Operation with range is deprecated")
def test_an_example_of_which_nothing_can_be_inferred(uri: str, look: Any) -> None:
    """Such a version can't be served, and the reason names the tag."""
    log(uri, "m", _Model(), input_example=pd.DataFrame({"a": [1]}))
    folder = _artifacts(uri)
    _without_signature(folder)
    (folder / "input_example.json").write_text("{")
    problem = look()[1].problem or ""
    assert "input example" in problem
    assert TAG in problem


def test_a_file_that_can_no_longer_be_read_changes_nothing(uri: str, look: Any) -> None:
    """A store that is away for a moment takes no model away."""
    log(uri, "m", _Model())
    client(uri).set_registered_model_tag("m", TAG, "none")
    before = look()[1]
    (_artifacts(uri) / "MLmodel").unlink()
    assert look()[1] is before
