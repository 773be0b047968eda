"""Which Serve applications are ours: by their name's form and the deployments in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.application_names import (
    BUILDER,
    SHARED,
    application_name,
    is_gateways,
    is_models,
    version_key,
)

GATEWAY = ["SyncService", "Ingress"]


@given(name=st.text(min_size=1), suffix=st.sampled_from(["", "-v12-0123abcd"]))
def test_what_is_made_for_a_model_is_known_again(name: str, suffix: str) -> None:
    """Whatever a model is called; also an application of one version, of an earlier release."""
    made = application_name(name) + suffix
    assert is_models(made, ["ModelHost"])
    assert is_models(made, [])  # it was just made, or is ending
    assert not is_gateways(made, ["ModelHost"])


def test_the_shared_application_is_known_again() -> None:
    """By its name and what is in it; another's of that name is left alone."""
    assert is_models(SHARED, ["ModelHost"])
    assert is_models(SHARED, [])
    assert not is_models(SHARED, ["Theirs"])


@pytest.mark.parametrize(
    ("name", "deployments"),
    [
        ("modelmux-model-zoo", ["ModelHost"]),
        ("modelmux-model-zoo", ["Theirs"]),
        ("modelmux-model-zoo", []),
        ("modelmux-model-zoo-0123456789", ["Theirs"]),
        ("modelmux-model-zoo-0123456789", ["ModelHost", "Theirs"]),
        ("modelmux-model-zoo-0123456789-beta", ["ModelHost"]),
        ("their-modelmux-model-zoo-0123456789", ["ModelHost"]),
        ("modelmux", ["ModelHost"]),
    ],
)
def test_a_prefix_makes_nobody_elses_application_a_models(
    name: str, deployments: list[str]
) -> None:
    """Without the digest, or with other deployments in it, an application is left alone."""
    assert not is_models(name, deployments)


def test_versions_of_many_models_have_keys_of_their_own() -> None:
    """A replica that models share has thousands of them, and tells them apart by nothing else."""
    keys = {version_key(1, f"model-{number}/1/0/source", None) for number in range(20_000)}
    assert len(keys) == 20_000


@pytest.mark.parametrize(
    ("name", "deployments", "import_path", "expected"),
    [
        ("modelmux", GATEWAY, None, True),
        ("modelmux", GATEWAY, BUILDER, True),
        ("modelmux", [], BUILDER, True),  # a config's, that Serve builds or couldn't build
        ("modelmux", [], None, False),
        ("modelmux", [], "theirs:app", False),
        ("modelmux", ["Ingress"], None, False),
        ("modelmux", [*GATEWAY, "Theirs"], None, False),
        ("modelmux", ["Theirs"], None, False),
        ("modelmux-2", GATEWAY, None, False),
    ],
)
def test_a_gateway_is_told_by_its_name_and_what_is_in_it(
    name: str, deployments: list[str], import_path: str | None, expected: bool
) -> None:
    """Exactly its two deployments, or the builder that a config names."""
    assert is_gateways(name, deployments, import_path=import_path) is expected
