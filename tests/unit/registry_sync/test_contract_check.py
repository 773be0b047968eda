"""`modelmux check` where the registry alone is asked: against which version."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gateway.catalog import ModelVersion
from registry_sync.contract_check import CannotTell, NothingPromised, check_contract
from registry_sync.default_version import DefaultPolicy
from registry_sync.records import RegisteredModel
from registry_sync.source import MlflowRegistry
from tests.support.catalogs import BREAKING, record, version


class Registry:
    """A registry with one model."""

    def __init__(self, *versions: ModelVersion, **aliases: int) -> None:
        self._versions = {each.number: each for each in versions}
        self._aliases = aliases

    def read_model(self, name: str) -> RegisteredModel:
        return record(name=name, aliases=self._aliases)

    def ready_versions(self, name: str) -> list[int]:
        return [number for number, each in self._versions.items() if each.is_ready]

    def read_version(self, name: str, number: int) -> ModelVersion:
        return self._versions[number]


def against(registry: Registry, candidate: str, **options: Any) -> int | None:
    return check_contract(cast(MlflowRegistry, registry), "m", candidate, **options).against


def test_a_version_is_never_compared_with_itself_unasked() -> None:
    """Where the alias names the candidate already, the registry can't tell what is in force."""
    registry = Registry(version(1), version(2, BREAKING), champion=2)
    with pytest.raises(CannotTell, match="--url"):
        against(registry, "2")
    assert against(registry, "2", against="1") == 1
    assert against(registry, "1") == 2


def test_a_stage_names_the_default_where_it_counts() -> None:
    """As the gateway chooses: alias, else stage, else the newest before."""
    versions = (version(1, stage="Production"), version(2), version(3))
    by_stage = DefaultPolicy(champion_stage="Production")
    assert against(Registry(*versions), "3", policy=by_stage) == 1
    assert against(Registry(*versions, champion=2), "3", policy=by_stage) == 2
    assert against(Registry(*versions), "3") == 2


def test_nothing_is_the_default_for_being_the_newest_where_the_alias_alone_decides() -> None:
    """The newest before was never a default, so nobody relies on it: the gateway is to be asked."""
    by_alias = DefaultPolicy(rule="champion")
    registry = Registry(version(1), version(2, BREAKING))
    with pytest.raises(NothingPromised, match="--url") as nothing:
        against(registry, "2", policy=by_alias)
    assert nothing.value.candidate == 2
    assert against(registry, "2", policy=by_alias, against="1") == 1
    assert against(Registry(version(1), version(2), champion=1), "2", policy=by_alias) == 1
