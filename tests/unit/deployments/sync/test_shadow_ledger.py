"""Shadows' figures in the sync service: added up, of one pair, and kept over restarts."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from deployments.shadow_report import ShadowReport
from deployments.sync.shadow_ledger import ShadowLedger
from gateway.catalog import Catalog, ServedModel, Shadow
from gateway.metrics.families import SHADOW_DURATION, SHADOW_REQUESTS
from gateway.shadow.pairs import pair_of
from gateway.shadow_figures import ShadowFigures
from registry_sync.shadow_file import ShadowFile
from tests.support.catalogs import catalog, served, version


def model(shadow: int | None = 2, default: int = 1, **fingerprints: str) -> ServedModel:
    versions = [version(n, fingerprint=fingerprints.get(f"v{n}", f"f{n}")) for n in (1, 2, 3)]
    return served(
        *versions, default=default, shadow=None if shadow is None else Shadow(number=shadow)
    )


def report(number: int, of: ServedModel, *, host: str = "a", equal: int = 1) -> ShadowReport:
    pair = pair_of(of)
    assert pair is not None
    figures = ShadowFigures(pair=pair, since=100.0 + number)
    for _ in range(equal):
        figures.note("equal", 100.0)
        figures.shadow_s.observe(0.03)
    return ShadowReport(host=host, number=number, figures={"m": figures.model_dump(mode="json")})


def ledger_in(folder: Path, registry: str = "here") -> ShadowLedger:
    return ShadowLedger(ShadowFile(folder, registry=registry))


def equal_in(ledger: ShadowLedger) -> int | None:
    figures = ledger.figures("m")
    return None if figures is None else figures.outcomes.get("equal", 0)


NOW = catalog(model())


def test_the_reports_of_all_replicas_add_up_once(tmp_path: Path) -> None:
    """One that comes again, because nobody knew whether it had arrived, counts once."""
    ledger = ledger_in(tmp_path)
    for each in (
        report(1, model(), host="a", equal=2),
        report(1, model(), host="b", equal=3),
        report(1, model(), host="a", equal=2),
        report(2, model(), host="a", equal=1),
    ):
        ledger.take(each, NOW)
    assert equal_in(ledger) == 6


def test_another_pair_begins_anew(tmp_path: Path) -> None:
    """What comes late of the pair before is dropped, be it told after that."""
    ledger = ledger_in(tmp_path)
    ledger.take(report(1, model()), NOW)
    other = model(shadow=3)
    ledger.take(report(2, other, equal=5), catalog(other))
    assert equal_in(ledger) == 5
    ledger.take(report(3, model()), catalog(other))
    assert equal_in(ledger) == 5


def test_another_tolerance_is_another_pair(tmp_path: Path) -> None:
    """What was equal by one rule says nothing by another."""
    ledger = ledger_in(tmp_path)
    ledger.take(report(1, model()), NOW)
    strict = served(*model().versions, default=1, shadow=Shadow(number=2, tolerance=0.5))
    ledger.take(report(2, strict, equal=7), catalog(strict))
    assert equal_in(ledger) == 7


def test_other_artifacts_under_a_number_are_another_pair(tmp_path: Path) -> None:
    """A model that was registered anew has nothing to do with what was compared before."""
    ledger = ledger_in(tmp_path)
    ledger.take(report(1, model()), NOW)
    anew = model(v2="g2")
    ledger.forget_all_but(catalog(anew))
    assert equal_in(ledger) is None
    ledger.take(report(2, anew), catalog(anew))
    assert equal_in(ledger) == 1


def test_what_was_compared_is_known_after_the_shadow_was_promoted(tmp_path: Path) -> None:
    """Until another pair is compared, or the model is gone."""
    ledger = ledger_in(tmp_path)
    ledger.take(report(1, model()), NOW)
    ledger.forget_all_but(catalog(model(shadow=None, default=2)))
    assert equal_in(ledger) == 1
    ledger.forget_all_but(catalog())
    assert equal_in(ledger) is None


async def test_figures_outlive_a_restart(tmp_path: Path) -> None:
    """So does which reports are in them, and nobody else may read the file."""
    ledger = ledger_in(tmp_path)
    ledger.take(report(1, model(), equal=4), NOW)
    await ledger.save()
    again = ledger_in(tmp_path)
    again.take(report(1, model(), equal=4), NOW)
    assert equal_in(again) == 4
    again.take(report(2, model(), equal=1), NOW)
    assert equal_in(again) == 5
    assert stat.S_IMODE((tmp_path / "shadows.json").stat().st_mode) == 0o600


async def test_a_file_that_is_of_no_use_is_as_none(tmp_path: Path) -> None:
    """That of another registry, half a file, and a folder that can't be written."""
    ledger = ledger_in(tmp_path)
    ledger.take(report(1, model()), NOW)
    await ledger.save()
    assert equal_in(ledger_in(tmp_path, registry="elsewhere")) is None
    (tmp_path / "shadows.json").write_bytes(b'{"format": 1,')
    assert equal_in(ledger_in(tmp_path)) is None
    blocked = tmp_path / "blocked"
    blocked.write_text("no folder")
    stuck = ledger_in(blocked)
    stuck.take(report(1, model()), NOW)
    await stuck.save()
    assert equal_in(stuck) == 1


def test_figures_of_another_release_are_left_out(tmp_path: Path) -> None:
    """They are no reason to fail, or to lose what is known."""
    ledger = ledger_in(tmp_path)
    ledger.take(report(1, model()), NOW)
    strange: dict[str, Any] = {"pair": "of another kind"}
    ledger.take(ShadowReport(host="a", number=2, figures={"m": strange}), NOW)
    assert equal_in(ledger) == 1


def test_metrics_tell_each_outcome_and_both_durations(tmp_path: Path) -> None:
    """By model, both versions and the outcome, from zero on."""
    ledger = ledger_in(tmp_path)
    ledger.take(report(1, model(), equal=3), NOW)
    told = ledger.reading()
    requests = dict(told[SHADOW_REQUESTS.name])
    assert requests["m", "1", "2", "equal"] == 3
    assert requests["m", "1", "2", "late"] == 0
    durations = dict(told[SHADOW_DURATION.name])
    counts, total = durations["m", "1", "2", "shadow"]  # type: ignore[misc]
    assert sum(counts) == 3
    assert total > 0.08


def test_nothing_is_counted_before_there_is_a_catalog(tmp_path: Path) -> None:
    """What the pair is can't be told then: the replica tells it again."""
    nothing: Catalog | None = None
    ledger = ledger_in(tmp_path)
    assert ledger.take(report(1, model()), nothing) is False
    assert equal_in(ledger) is None
    assert ledger.take(report(1, model()), NOW) is True
    assert equal_in(ledger) == 1
