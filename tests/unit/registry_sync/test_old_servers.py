"""What MLflow servers of other releases answered, recorded by `RECORD=1 make old-servers`."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.catalog import contract_of
from registry_sync.catalog_builder import build_catalog
from registry_sync.default_version import DefaultPolicy
from registry_sync.source import MlflowRegistry
from tests.support.recorded_http import Recording, replayed

RECORDINGS = sorted(Path(__file__).with_name("recorded").glob("mlflow-*.json"))


@pytest.mark.parametrize("kept", RECORDINGS, ids=lambda path: path.stem)
def test_a_registry_on_an_old_server_is_read_whole(kept: Path) -> None:
    """All models with versions, signatures, stages and aliases, of releases that know no prompts
    and of those that keep prompts among the models."""
    with replayed(Recording.load(kept)) as url:
        reading = MlflowRegistry(tracking_uri=url).read()
    (model,) = reading
    assert (model.name, model.tags) == ("doubled", {"team": "pricing"})
    assert [version.problem for version in model.versions] == [None, None, None]
    assert [version.stage for version in model.versions] == ["Production", None, None]
    assert contract_of(model.versions[0].signature or "").inputs.named
    has_aliases = kept.stem != "mlflow-1.30.1"
    assert model.aliases == ({"champion": 2} if has_aliases else {})
    catalog = build_catalog(reading, None, policy=DefaultPolicy()).catalog
    assert catalog.models["doubled"].default_version == (2 if has_aliases else 3)


def test_there_are_recordings() -> None:
    """Releases before prompts, and with them, are among what was recorded."""
    recorded = {path.stem for path in RECORDINGS}
    assert recorded >= {"mlflow-2.9.2", "mlflow-2.20.4", "mlflow-2.22.0", "mlflow-3.18.0"}
