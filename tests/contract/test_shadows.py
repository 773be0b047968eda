"""Shadows as a whole: the ASGI application, real processes of both versions, and the sync service's
ledger. Whatever a shadow does, the default's callers get their answers, from the same process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.shadow_report import ShadowReport
from deployments.sync.shadow_ledger import ShadowLedger
from gateway.catalog import ModelOptions, Shadow
from gateway.http.app import create_app
from gateway.http.predict.body import HttpLimits
from gateway.prediction import PredictionService
from gateway.shadow.shadowing import Shadowing
from gateway.shadow_figures import ShadowFigures
from registry_sync.shadow_file import ShadowFile
from tests.contract.in_process import InProcessBackend
from tests.support.catalogs import catalog, served, signature, version
from tests.support.static_feed import StaticFeed
from tests.support.supervised import save_code

_PATIENCE_S = 120.0
_TIMEOUT_S = 10.0

DEFAULT = """
import os
import pandas as pd
def predict(rows):
    return pd.DataFrame({"y": rows["x"] * 2, "pid": float(os.getpid()), "nice": float(os.nice(0))})
"""
SHADOWS = {
    "differs": """
import os
import pandas as pd
def predict(rows):
    y = rows["x"] * 2 + (rows["x"] > 2)
    return pd.DataFrame({"y": y, "pid": float(os.getpid()), "nice": float(os.nice(0))})
""",
    "crashes": "import os\ndef predict(rows): os._exit(3)\n",
    "hangs": "import time\ndef predict(rows): time.sleep(3600)\n",
    "garbage": "def predict(rows): return [{'never': object} for _ in range(7)]\n",
    "cannot_load": "raise RuntimeError('no')\ndef predict(rows): return rows\n",
}
OUTPUTS = (("y", "double"), ("pid", "double"), ("nice", "double"))


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shadows")
    for name, code in {"default": DEFAULT, **SHADOWS}.items():
        save_code(folder, name, code)
    return folder


@pytest.fixture(scope="module")
def backend(artifacts: Path) -> Iterator[InProcessBackend]:
    made = InProcessBackend("sqlite:///nothing.db", artifacts)
    yield made
    made.close()


class Bench:
    """A gateway whose model has that shadow, and the ledger that adds up."""

    def __init__(self, backend: InProcessBackend, shadow: str, folder: Path) -> None:
        text = signature(("x", "double"), outputs=OUTPUTS)
        model = served(
            version(1, text, fingerprint="default"),
            version(2, text, fingerprint=shadow),
            default=1,
            name=shadow,  # so that each has processes of its own
            shadow=Shadow(number=2, tolerance=1e-9),
            options=ModelOptions(timeout_s=_TIMEOUT_S, shadow="2"),
        )
        self.name = shadow
        self.catalog = catalog(model)
        self.feed = StaticFeed(self.catalog)
        self.ledger = ShadowLedger(ShadowFile(folder, registry="none"))
        self.shadowing = Shadowing(backend)
        self._reports = 0
        service = PredictionService(
            feed=self.feed,
            submit=backend.call,
            default_timeout_s=60.0,
            shadowing=self.shadowing,
        )
        app = create_app(service=service, feed=self.feed, limits=HttpLimits(max_body_bytes=1 << 20))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://gw", timeout=60.0)

    async def ask(self, x: float) -> dict[str, Any]:
        response = await self.client.post(f"/models/{self.name}/predict", json=[{"x": x}])
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()[0]
        assert answer["y"] == 2 * x
        return answer

    async def started(self) -> float:
        """The process of the default, once it answers."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            response = await self.client.post(f"/models/{self.name}/predict", json=[{"x": 0.0}])
            if response.status_code == 200:
                pid: float = response.json()[0]["pid"]
                return pid
            assert time.monotonic() < deadline, response.text
            await asyncio.sleep(0.1)

    def told(self) -> ShadowFigures | None:
        """What the ledger has, with what was counted since."""
        figures = self.shadowing.take()
        if figures:
            self._reports += 1
            plain = {name: each.model_dump(mode="json") for name, each in figures.items()}
            self.ledger.take(
                ShadowReport(host="here", number=self._reports, figures=plain), self.catalog
            )
        found = self.ledger.figures(self.name)
        if found is not None:
            self.feed.shadows[self.name] = found
        return found

    async def until(self, is_so: Callable[[ShadowFigures], bool]) -> ShadowFigures:
        """The figures once they are so, while callers go on being answered by the same process."""
        deadline, x = time.monotonic() + _PATIENCE_S, 0.0
        pid = await self.started()
        while True:
            x += 1.0
            began = time.monotonic()
            assert (await self.ask(x))["pid"] == pid
            assert time.monotonic() - began < _TIMEOUT_S
            figures = self.told()
            if figures is not None and is_so(figures):
                return figures
            assert time.monotonic() < deadline, figures
            await asyncio.sleep(0.05)


@asynccontextmanager
async def bench(backend: InProcessBackend, shadow: str, folder: Path) -> AsyncIterator[Bench]:
    made = Bench(backend, shadow, folder)
    async with made.client:
        yield made


async def test_agreement_and_disagreements_are_seen(
    backend: InProcessBackend, tmp_path: Path
) -> None:
    """By column, with the rows; the shadow is a process of its own, with what is left of the CPU,
    and what was compared outlives a restart of the ledger."""
    async with bench(backend, "differs", tmp_path) as made:
        figures = await made.until(lambda told: told.outcomes.get("different", 0) >= 5)
        told = (await made.client.get(f"/models/{made.name}/shadow")).json()
        await made.ledger.save()
    y, pid = figures.columns["y"], figures.columns["pid"]
    assert 0 < y.equal < y.rows
    assert y.differences.most == 1.0
    assert pid.equal == 0
    newest = told["disagreements"][0]
    assert newest["default"]["pid"] != newest["shadow"]["pid"]
    assert newest["shadow"]["nice"] == 19.0
    assert newest["inputs"] is None
    again = ShadowLedger(ShadowFile(tmp_path, registry="none")).figures(made.name)
    assert again is not None
    assert again.outcomes == figures.outcomes


@pytest.mark.parametrize(
    ("shadow", "outcome"),
    [
        ("crashes", "failed"),
        ("garbage", "failed"),
        ("cannot_load", "failed"),
        ("hangs", "late"),
    ],
)
async def test_whatever_a_shadow_does_callers_are_answered(
    backend: InProcessBackend, tmp_path: Path, shadow: str, outcome: Any
) -> None:
    """It is counted, and nobody waits for it or loses a process by it."""
    async with bench(backend, shadow, tmp_path) as made:
        figures = await made.until(lambda told: told.outcomes.get(outcome, 0) >= 1)
    assert figures.compared == 0
    assert set(figures.outcomes) <= {outcome, "failed", "dropped"}
