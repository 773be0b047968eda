"""Which application has which models: by tags, and by the setting where they say nothing."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.application_names import SHARED, application_name
from deployments.placement import OWN, Placement
from gateway.catalog import ServedModel
from tests.support.catalogs import catalog, served, version

ALL_SHARED = Placement(default="shared", shared_replicas=2)


def model(name: str = "m", flavor: str | None = None, **options: Any) -> ServedModel:
    return served(version(1, flavor=flavor), name=name, options=options)


@pytest.mark.parametrize(
    ("options", "by_own", "by_shared"),
    [
        ({}, False, True),
        ({"deployment": "shared"}, True, True),
        ({"deployment": "own"}, False, False),
        ({"deployment": "shared", "min_replicas": 1}, False, False),
        ({"deployment": "shared", "max_replicas": 2}, False, False),
        ({"num_cpus": 0.5}, False, False),
        ({"num_gpus": 1.0}, False, False),
        ({"max_loaded_versions": 7, "timeout_s": 5.0}, False, True),
    ],
)
def test_a_model_is_shared_by_tag_or_setting_unless_it_needs_its_own(
    options: dict[str, Any], by_own: bool, by_shared: bool
) -> None:
    """What only a deployment of its own can follow wins over both."""
    asked = model(**options)
    assert (OWN.is_shared(asked), ALL_SHARED.is_shared(asked)) == (by_own, by_shared)
    assert OWN.application_of(asked) == (SHARED if by_own else application_name("m"))


def test_the_shared_application_is_planned_once_for_all_that_share_it() -> None:
    """It is there before anybody asks, prepares for what its models' defaults need, and isn't there
    where no model shares it."""
    models = catalog(
        model("a", "mlflow.sklearn"), model("b", "mlflow.sklearn"), model("c", deployment="own")
    )
    plans = ALL_SHARED.plans(models)
    assert plans.keys() == {SHARED, application_name("c")}
    shared = plans[SHARED]
    assert (shared.models, shared.flavors) == (("a", "b"), ("mlflow.sklearn",))
    assert (shared.keeps_replica, shared.options.min_replicas) == (True, 2)
    assert SHARED not in OWN.plans(models)


def test_a_model_in_it_may_be_in_any_of_its_replicas() -> None:
    """Where its calls go straight to a process there must be one replica only."""
    assert ALL_SHARED.most_replicas(model()) == 2
    assert ALL_SHARED.most_replicas(model(max_replicas=5)) == 5
    assert Placement(default="shared").most_replicas(model()) == 1
