"""Which requests are captured."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gateway.capture.journal import CaptureJournal
from gateway.catalog import ModelOptions
from gateway.http.predict import capturing
from gateway.http.predict.capturing import Capturing
from tests.support.catalogs import catalog, served, signature, version

SIGNATURE = signature(("x", "double"), outputs=[("x", "double")])


def test_each_request_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks first, and by its own model's share."""
    model = served(version(1, SIGNATURE), options=ModelOptions(capture=50.0))
    resolution = catalog(model).resolve("m", None)
    draws = iter([0.1, 0.9])
    monkeypatch.setattr(capturing.random, "random", lambda: next(draws))
    capture = Capturing(cast(CaptureJournal, None), "modelmux")
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    assert capture.draws(first, resolution)
    assert not capture.draws(second, resolution)
    assert [capture.draws(scope, resolution) for scope in (first, second)] == [True, False]
