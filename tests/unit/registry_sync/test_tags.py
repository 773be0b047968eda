"""Tags of registered models as options."""

from __future__ import annotations

from registry_sync.tags import parse_options


def test_a_shared_deployment_that_cannot_be_is_told() -> None:
    """Tags that need a deployment of their own win, and people hear so; without them it is
    shared."""
    options, warnings = parse_options({"modelmux.deployment": "shared", "modelmux.num_gpus": "1"})
    assert options.of_an_own_deployment == ["num_gpus"]
    (warning,) = warnings
    assert "modelmux.deployment=shared has no effect beside modelmux.num_gpus" in warning
    options, warnings = parse_options({"modelmux.deployment": "shared", "modelmux.num_gpus": "0"})
    assert (options.deployment, options.of_an_own_deployment, warnings) == ("shared", [], ())
