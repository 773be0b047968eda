"""`/metrics` over fakes: what is told, in which words, of whom."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from gateway.admission import Admission
from gateway.batching.batcher import MicroBatcher
from gateway.catalog import HeldVersion
from gateway.errors import RateLimited
from gateway.http.app import create_app
from gateway.http.predict.body import HttpLimits
from gateway.metrics.collection import Measured
from gateway.metrics.counters import Traffic, TrafficCounter
from gateway.metrics.families import FAMILIES, LOADS, Reading
from gateway.metrics.snapshots import ReplicaNumbers
from gateway.ports import Call, CallResult, RegistryStatus
from gateway.prediction import PredictionService
from gateway.security.api_keys import entry_of, parse_keys
from gateway.security.key_usage import KeyUsage
from tests.support.catalogs import BREAKING, catalog, served, version
from tests.support.static_feed import StaticFeed

CATALOG = catalog(
    served(version(1), version(2, BREAKING), default=1, held=HeldVersion(number=2, reason="…")),
    served(version(1), name="ruined").model_copy(update={"default_version": None}),
)
QUOTED = 'a "b"\\\n'


class GatedBackend:
    """A model that waits until it is let go, if the test has it wait."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.called = asyncio.Event()
        self.gate.set()

    async def call(self, call: Call) -> CallResult:
        self.called.set()
        await self.gate.wait()
        values = np.asarray(call.frame.columns[0])
        return CallResult(output=("columns", ["y"], [values]), timings_ms={"model": 1.0})


class Bench:
    """The app over fakes whose numbers are this process' own and, by another name, once more."""

    def __init__(self) -> None:
        self.feed = StaticFeed(CATALOG)
        self.backend = GatedBackend()
        self.traffic, self.admission = Traffic(), Admission()
        self.usage = KeyUsage()
        batcher = MicroBatcher(TrafficCounter(self.backend, self.traffic))
        service = PredictionService(
            feed=self.feed, submit=batcher.submit, default_timeout_s=5, admission=self.admission
        )
        self.numbers = ReplicaNumbers(
            feed=self.feed,
            service=service,
            traffic=self.traffic,
            admission=self.admission,
            batcher=batcher,
            lost_lines=lambda: 64,
            usage=self.usage,
        )
        self.sync: Reading | None = {LOADS.name: [(("m", "1", "ok"), 2), (("gone", "1", "ok"), 9)]}
        app = create_app(
            service=service,
            feed=self.feed,
            limits=HttpLimits(max_body_bytes=1000),
            traffic=self.traffic,
            measurements=self,
        )
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://gw"
        )

    async def measured(self) -> Measured:
        reading = self.numbers.reading()
        return Measured(replicas={"a": reading, "b": reading}, sync=self.sync)

    async def samples(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """The answer's samples by name and label values, sorted by the labels' names."""
        answer = await self.client.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        return {
            (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }


@pytest.fixture
async def bench() -> Any:
    made = Bench()
    async with made.client:
        yield made


async def test_predictions_are_told_by_replica_model_version_and_status(bench: Bench) -> None:
    """Each replica has series of its own; a name that is not in the catalog makes none."""
    for name, body in (("m", {"x": 1}), ("m", {"x": "no"}), ("nobody knows this", {"x": 1})):
        await bench.client.post(f"/models/{name}/predict", json=body)
    told = await bench.samples()
    requests = {key: value for key, value in told.items() if key[0] == "modelmux_requests_total"}
    assert requests == {
        ("modelmux_requests_total", (model, "modelmux", replica, status, number)): 1
        for replica in ("a", "b")
        for model, status, number in (("m", "200", "1"), ("m", "422", "1"), ("", "404", ""))
    }
    assert told["modelmux_request_duration_seconds_count", ("m", "modelmux", "a", "1")] == 1
    labels = ("+Inf", "m", "modelmux", "a", "1")
    assert told["modelmux_request_duration_seconds_bucket", labels] == 1
    assert told["modelmux_call_rows_bucket", ("1.0", "m", "a", "1")] == 1
    assert told["modelmux_requests_in_flight", ("m", "a")] == 0


async def test_lost_lines_of_the_access_log_are_told(bench: Bench) -> None:
    """By replica, from the beginning."""
    assert (await bench.samples())["modelmux_access_lines_lost_total", ("a",)] == 64


async def test_what_keys_ask_is_told_by_their_names(bench: Bench) -> None:
    """And how much of it was beyond their rates."""
    key = parse_keys(entry_of("team-a", "s", ["read"], rate="1")).key_of(b"s")
    bench.usage.note(key)
    with pytest.raises(RateLimited):
        bench.usage.note(key)
    told = await bench.samples()
    assert told["modelmux_key_requests_total", ("team-a", "b")] == 2
    assert told["modelmux_key_requests_refused_total", ("team-a", "b")] == 1


async def test_what_runs_and_how_much_memory_it_takes_is_told(bench: Bench) -> None:
    """Versions once for the gateway, memory by replica."""
    answer = (await bench.client.get("/metrics")).text
    assert re.search(r'modelmux_build_info\{.*python="3\..*ray="2\..*version="', answer)
    assert (await bench.samples())["modelmux_ingress_resident_memory_bytes", ("a",)] > 10_000_000


async def test_the_catalog_and_the_registry_are_told_once(bench: Bench) -> None:
    """Generation, models by status, what is held and what can't be served."""
    told = await bench.samples()
    assert told["modelmux_catalog_generation", ()] == 1
    assert told["modelmux_models", ("ready",)] == 1
    assert told["modelmux_models", ("unservable",)] == 1
    assert told["modelmux_model_unservable", ("ruined", "a")] == 1
    assert told["modelmux_default_held", ("m", "2")] == 1
    assert told["modelmux_registry_silent_seconds", ()] == 1.0
    assert told["modelmux_ingress_replicas", ()] == 2
    assert told["modelmux_sync_service_up", ()] == 1


async def test_what_is_gone_from_the_registry_is_told_no_more(bench: Bench) -> None:
    """Neither what this process counted nor what the others still tell."""
    await bench.client.post("/models/m/predict", json={"x": 1})
    assert not any("gone" in labels for _, labels in await bench.samples())
    bench.feed.catalog = catalog(served(version(7), name="m"))
    assert not any("1" in labels for _, labels in await bench.samples())
    bench.feed.catalog = catalog(served(version(1), name="other"))
    assert not any("m" in labels for _, labels in await bench.samples())


async def test_a_sync_service_that_is_away_is_told_and_the_rest_with_it(bench: Bench) -> None:
    """Its numbers are missing, not zero: a counter that goes back would look like a restart."""
    bench.sync = None
    told = await bench.samples()
    assert told["modelmux_sync_service_up", ()] == 0
    assert not any(name == "modelmux_loads_total" for name, _ in told)


async def test_before_there_is_a_catalog_the_registry_s_silence_is_told(bench: Bench) -> None:
    """The registry has never answered: its silence is endless, past the limit of any alert."""
    bench.feed.catalog = None
    bench.feed.registry = RegistryStatus(silent_for_s=None)
    assert (await bench.samples())["modelmux_registry_silent_seconds", ()] == float("inf")


async def test_who_is_inside_and_who_waits_is_counted_when_asked(bench: Bench) -> None:
    """While a model works on a request it is in flight, with its rows."""
    bench.backend.gate.clear()
    asking = asyncio.create_task(bench.client.post("/models/m/predict", json=[{"x": 1}, {"x": 2}]))
    await bench.backend.called.wait()
    bench.traffic.note_failure("m", None, 413)
    told = await bench.samples()
    assert told["modelmux_requests_in_flight", ("m", "a")] == 1
    assert told["modelmux_rows_in_flight", ("m", "a")] == 2
    bench.backend.gate.set()
    await asking


async def test_a_caller_who_leaves_is_counted_as_that(bench: Bench) -> None:
    """499, as nginx has it, and no duration."""
    bench.backend.gate.clear()
    asking = asyncio.create_task(bench.client.post("/models/m/predict", json={"x": 1}))
    await bench.backend.called.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    told = await bench.samples()
    assert told["modelmux_requests_total", ("m", "modelmux", "a", "499", "")] == 1
    assert ("modelmux_request_duration_seconds_count", ("m", "modelmux", "a", "1")) not in told


async def test_names_may_have_any_character_and_openmetrics_is_spoken_too(bench: Bench) -> None:
    """Quotes, backslashes and line ends in a model's name survive both formats."""
    bench.feed.catalog = catalog(served(version(1), name=QUOTED))
    bench.traffic.note_answer(QUOTED, 1, 0.1, 1)
    told = await bench.samples()
    assert told["modelmux_requests_total", (QUOTED, "modelmux", "a", "200", "1")] == 1
    answer = await bench.client.get(
        "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    families = {family.name for family in openmetrics_families(answer.text)}
    assert families <= {family.name for family in FAMILIES}


@pytest.mark.parametrize(
    "accept",
    ["text/plain;version=latest", "application/openmetrics-text; version=abc", ";;,=", "*/*",
     "text/plain;version=1.x", "application/openmetrics-text;version=²", "no media type"],
)  # fmt: skip
async def test_who_asks_for_no_known_format_gets_the_plain_one(bench: Bench, accept: str) -> None:
    """No `Accept` header is an error."""
    answer = await bench.client.get("/metrics", headers={"Accept": accept.encode()})  # type: ignore[dict-item]
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
