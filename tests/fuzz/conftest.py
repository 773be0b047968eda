"""The session's gateway with all models of the contract suite; the seed and time to fuzz it."""

from __future__ import annotations

import os

import pytest

from tests.support.processes import Gateway

SEED = int(os.environ.get("SEED") or 1)
"""Where chance begins; `make fuzz SEED=n` tries others."""

SECONDS = float(os.environ.get("FUZZ_SECONDS") or 10)
"""How long each part that can go on may take; `make fuzz FUZZ_SECONDS=n`."""


@pytest.fixture(scope="package")
def fuzzed(registered: str, shared_gateway: Gateway) -> Gateway:
    """A gateway that serves models of many kinds; `versions` answers for sure."""
    shared_gateway.sync()
    assert shared_gateway.predict("versions", {"x": 1}).json() == [{"x": 1.0}]
    return shared_gateway
