"""What the models' processes tell the sync service, told as often as it takes and counted once."""

from __future__ import annotations

from socket import gethostname

from deployments.model_replica.load_events import LoadEventLog
from deployments.sync.load_metrics import SILENCE_S, HostLedger
from gateway.metrics.families import (
    EVICTIONS,
    LOAD_DURATION,
    LOADED_VERSIONS,
    LOADS,
    MODEL_PROCESSES,
)
from tests.support.catalogs import catalog, served, version
from tests.support.clocks import Clock


def told(ledger: HostLedger, name: str) -> dict[tuple[str, ...], object]:
    return dict(ledger.reading()[name])


def test_events_are_counted_once_however_often_they_are_told() -> None:
    """An answer that was lost makes the process tell again; nothing is counted twice or lost."""
    ledger, log = HostLedger(), LoadEventLog()
    log.note_load("m", 1, 2.0)
    log.note_load("m", 2, 3.0)
    log.loaded = {"m": 2}
    ledger.take(log.untold())  # its answer is lost
    log.note_failure("m", 3, 0.1, "RuntimeError")
    again = log.untold()
    ledger.take(again)
    log.note_eviction("m", 1)
    log.loaded = {"m": 1}
    log.take(again)
    ledger.take(log.untold())
    assert told(ledger, LOADS.name) == {
        ("m", "1", "ok"): 1,
        ("m", "2", "ok"): 1,
        ("m", "3", "failed"): 1,
    }
    ((counts, total),) = told(ledger, LOAD_DURATION.name).values()  # type: ignore[misc]
    assert (sum(counts), total) == (2, 5.0)
    assert told(ledger, EVICTIONS.name) == {("m",): 1}
    assert told(ledger, LOADED_VERSIONS.name) == {("m",): 1}


def test_a_process_that_tells_nothing_any_more_has_nothing_in_memory() -> None:
    """What it counted stays, what it holds goes with it."""
    clock = Clock(0.0)
    ledger = HostLedger(clock)
    for _ in range(2):
        log = LoadEventLog()
        log.note_load("m", 1, 1.0)
        log.loaded = {"m": 1}
        ledger.take(log.untold())
    assert told(ledger, LOADED_VERSIONS.name) == {("m",): 2}
    clock.now = SILENCE_S - 1
    ledger.take(log.untold())
    clock.now = SILENCE_S + 1
    assert told(ledger, LOADED_VERSIONS.name) == {("m",): 1}
    assert told(ledger, MODEL_PROCESSES.name) == {("m", gethostname()): 1}
    assert told(ledger, LOADS.name) == {("m", "1", "ok"): 2}


def test_a_log_that_nobody_reads_stays_small() -> None:
    """The oldest events are dropped, and what is in memory is still right."""
    ledger, log = HostLedger(), LoadEventLog()
    for _ in range(1200):
        log.note_load("m", 1, 1.0)
        log.note_eviction("m", 1)
    log.loaded = {"m": 0}
    news = log.untold()
    assert len(news["events"]) == 1000
    ledger.take(news)
    assert told(ledger, LOADED_VERSIONS.name) == {("m",): 0}
    assert told(ledger, EVICTIONS.name) == {("m",): 500}


def test_what_the_catalog_lacks_is_forgotten() -> None:
    """Models and versions that are gone leave no counts behind."""
    ledger = HostLedger()
    for name in ("m", "gone"):
        log = LoadEventLog()
        log.note_load(name, 1, 1.0)
        log.note_load(name, 2, 1.0)
        ledger.take(log.untold())
    ledger.forget_all_but(catalog(served(version(2))))
    assert told(ledger, LOADS.name) == {("m", "2", "ok"): 1}
    assert (
        told(ledger, LOAD_DURATION.name).keys() == told(ledger, EVICTIONS.name).keys() == {("m",)}
    )


def test_loads_are_handed_on_once_with_their_reasons() -> None:
    """What is told again is no news, an eviction is no load, and a process of an earlier release
    tells no reason."""
    ledger = HostLedger()
    events = [
        ("ok", "m", 1, 1.0, ""),
        ("failed", "other", 2, 0.1, "ImportError"),
        ("evicted", "m", 1, 0.0),
    ]
    news = {"host": "h", "first": 0, "events": events, "loaded": {}}
    assert ledger.take(news) == [("m", 1, None), ("other", 2, "ImportError")]
    assert ledger.take({**news, "events": [*events, ("failed", "m", 3, 0.1)]}) == [("m", 3, "")]


def test_a_process_of_many_models_counts_for_each_that_it_has() -> None:
    """Versions in memory by their models, of those that were heard of lately."""
    clock = Clock(0.0)
    ledger, log = HostLedger(clock), LoadEventLog()
    log.loaded = {"m": 2, "other": 1}
    ledger.take(log.untold())
    assert told(ledger, LOADED_VERSIONS.name) == {("m",): 2, ("other",): 1}
    here = gethostname()
    assert told(ledger, MODEL_PROCESSES.name) == {("m", here): 1, ("other", here): 1}
    assert ledger.has_loaded("m")
    log.loaded = {"other": 1}
    ledger.take(log.untold())
    assert (ledger.has_loaded("m"), ledger.has_loaded("other")) == (False, True)
    clock.now = SILENCE_S
    assert not ledger.has_loaded("other")
