"""Unit tests start neither Ray nor a server: importing ray in one fails."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not isinstance(sys.modules.get("ray"), type(sys)), "a unit test module imports ray"
    monkeypatch.setitem(sys.modules, "ray", None)
