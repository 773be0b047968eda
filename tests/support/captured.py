"""A gateway over a made-up model whose requests are captured into a folder, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet

from gateway.capture.files import LocalFolder, Store
from gateway.capture.journal import CaptureJournal, CaptureLimits
from gateway.catalog import ModelOptions, ServedModel
from gateway.contract import Output
from gateway.http.app import create_app
from gateway.http.predict.body import HttpLimits
from gateway.ports import Call, CallResult
from gateway.prediction import PredictionService
from tests.support.catalogs import catalog, served, version
from tests.support.static_feed import StaticFeed

CLOSE_S = 60.0


class Captured:
    """`client` asks the model `m`, which answers what `answer` makes of a call; `tables()` ends
    the capture and reads what was written."""

    def __init__(
        self,
        folder: Path,
        signature: str | None,
        answer: Callable[[Call], Output],
        *,
        options: ModelOptions | None = None,
        store: Store | None = None,
        limits: CaptureLimits | None = None,
        **fields: Any,
    ) -> None:
        self.folder = folder
        self._answer = answer
        self.journal = CaptureJournal(
            LocalFolder(folder) if store is None else store,
            limits or CaptureLimits(file_age_s=600.0),
        )
        options = options or ModelOptions(capture=100.0)
        self.model: ServedModel = served(version(1, signature, **fields), options=options)
        self.feed = StaticFeed(catalog(self.model))
        service = PredictionService(
            feed=self.feed, submit=self._call, streaming=self, default_timeout_s=30
        )
        app = create_app(
            service=service,
            feed=self.feed,
            limits=HttpLimits(max_body_bytes=1 << 20),
            captured=self.journal,
        )
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://gw")

    async def ask(self, body: Any, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post("/models/m/predict", json=body, headers=named)

    async def _call(self, call: Call) -> CallResult:
        return CallResult(output=self._answer(call))

    async def stream(self, call: Call) -> AsyncGenerator[CallResult]:
        """Each element of the answer's one value is a piece."""
        for piece in self._answer(call)[1]:
            yield CallResult(output=("values", [piece]))

    async def end(self) -> None:
        await asyncio.to_thread(self.journal.close, CLOSE_S)

    async def table(self) -> pa.Table:
        """All that was captured, in the order of time and row."""
        await self.end()
        tables = [pyarrow.parquet.read_table(path) for path in _files_in(self.folder)]
        return pa.concat_tables(tables).sort_by([("time", "ascending"), ("row", "ascending")])

    def outcomes(self) -> dict[str, int]:
        found = self.journal.outcomes(self.feed.catalog)
        return {outcome: count for (_, outcome), count in found.items()}


def _files_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))
