"""What is shown of a shadow: by `/models/{name}/shadow` and on the model's page, and to whom."""

from __future__ import annotations

import re
from typing import Any

import httpx

from gateway.catalog import ModelOptions, ServedModel, Shadow
from gateway.http.access_control import Access
from gateway.http.pages.shadow_chart import chart_of
from gateway.http.shadow_view import describe_shadow
from gateway.security.api_keys import entry_of, parse_keys
from gateway.shadow_figures import Disagreement, Failure, ShadowFigures, ShadowPair
from tests.support.catalogs import catalog, served, version
from tests.support.page_catalog import FixedKeys, Stage

PAIR = ShadowPair(default=1, default_fingerprint="f1", shadow=2, shadow_fingerprint="f2")
HOSTILE = "<script>window.harmed=1</script>"


SHADOW = Shadow(number=2)


def model(shadow: Shadow | None = SHADOW, **fields: Any) -> ServedModel:
    options = ModelOptions(shadow="challenger")
    return served(version(1), version(2), default=1, shadow=shadow, options=options, **fields)


def figures() -> ShadowFigures:
    counted = ShadowFigures(pair=PAIR, since=1_760_000_000.0)
    for number in range(100):
        counted.note("equal" if number % 4 else "different", 1_760_000_000.0 + 60 * number)
    counted.note("late", 1_760_000_000.0)
    column = counted.column("y")
    assert column is not None
    column.rows, column.equal = 200, 150
    column.differences.observe(-0.5)
    counted.default_s.observe(0.002)
    counted.shadow_s.observe(0.004)
    counted.failure = Failure(at=1.0, reason="It failed.")
    counted.keep(
        Disagreement(
            at=1_760_000_000.0,
            request_id="request-7",
            row=0,
            columns=("y",),
            default={"y": 1.0},
            shadow={"y": HOSTILE},
            inputs={"x": "asked for"},
        )
    )
    return counted


def stage(of: ServedModel, access: Access | None = None) -> Stage:
    made = Stage(catalog(of), access)
    made.feed.shadows["m"] = figures()
    return made


async def asked(of: Stage, path: str, key: str | None = None) -> httpx.Response:
    transport = httpx.ASGITransport(of.app, raise_app_exceptions=False)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://gw") as client:
        return await client.get(path, headers=headers)


async def test_the_route_tells_what_was_counted() -> None:
    """Requests, columns, latencies, the course, and the rows that differ."""
    told = (await asked(stage(model()), "/models/m/shadow")).json()
    assert (told["active"], told["default_version"], told["shadow_version"]) == (True, 1, 2)
    assert told["requests"] == {
        "compared": 100, "equal": 75, "different": 25, "failed": 0, "late": 1, "dropped": 0,
    }  # fmt: skip
    assert told["agreement"] == 0.75
    (column,) = told["columns"]
    assert (column["share_equal"], column["difference"]["least"]) == (0.75, -0.5)
    assert told["latency_ms"]["shadow"]["p50"] == 4.0
    assert len(told["course"]) == 100
    assert told["disagreements"][0]["inputs"] == {"x": "asked for"}
    assert told["last_failure"] == "It failed."


async def test_without_a_shadow_the_route_says_why() -> None:
    """A model without the tag, and one whose shadow has become the default, have a reason."""
    bare = Stage(catalog(served(version(1))))
    told = (await asked(bare, "/models/m/shadow")).json()
    assert (told["active"], told["requests"]["compared"], told["disagreements"]) == (False, 0, [])
    assert "modelmux.shadow" in told["reason"]
    done = stage(model(None, shadow_problem="Version 2, which the tag names, is the default."))
    told = (await asked(done, "/models/m/shadow")).json()
    assert told["reason"] == "Version 2, which the tag names, is the default."
    assert told["requests"]["compared"] == 100
    assert (await asked(bare, "/models/nobody/shadow")).status_code == 404


def test_figures_of_another_pair_are_not_shown() -> None:
    """As soon as another version is asked beside, what was before is no word about it."""
    of = served(version(1), version(2), version(3), default=1, shadow=Shadow(number=3))
    told = describe_shadow(of, figures(), with_inputs=True)
    assert (told.shadow_version, told.requests.compared, told.course) == (3, 0, [])


async def test_what_was_asked_is_for_keys_that_may_read() -> None:
    """One that may call the model sees both answers; who may read everything sees the inputs."""
    entries = (
        entry_of("caller", "calls", ["predict:m"]),
        entry_of("reader", "reads", ["read"]),
        entry_of("other", "others", ["predict:n"]),
    )
    keys = Access(keys=FixedKeys(parse_keys("\n".join(entries))))
    keyed = stage(model(), keys)
    caller = (await asked(keyed, "/models/m/shadow", "calls")).json()["disagreements"][0]
    reader = (await asked(keyed, "/models/m/shadow", "reads")).json()["disagreements"][0]
    assert (caller["default"], caller["inputs"]) == ({"y": 1.0}, None)
    assert reader["inputs"] == {"x": "asked for"}
    assert (await asked(keyed, "/models/m/shadow", "others")).status_code == 403
    assert (await asked(keyed, "/models/m/shadow")).status_code == 401
    assert "asked for" in (await asked(keyed, "/catalog/m", "reads")).text
    assert "asked for" not in (await asked(keyed, "/catalog/m", "calls")).text


async def test_a_page_that_is_open_to_all_shows_no_answers() -> None:
    """Where documents need no key the figures are there, and no row of any caller."""
    keys = Access(
        keys=FixedKeys(parse_keys(entry_of("reader", "reads", ["read"]))),
        public=frozenset({"docs"}),
    )
    page = (await asked(stage(model(), keys), "/catalog/m")).text
    assert "75.0 %" in page
    assert "request-7" not in page
    assert "asked for" not in page


async def test_the_page_shows_agreement_over_time_and_the_rows_that_differ() -> None:
    """A chart, a table by column, and both answers, whatever is in them, as text."""
    page = (await asked(stage(model()), "/catalog/m")).text
    assert "version 2 beside version 1" in page
    assert "75.0 %" in page
    assert page.count("<rect") == 200
    assert re.search(r"<code>request-7</code>", page)
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert "style=" not in page


async def test_a_model_without_the_tag_has_no_such_card() -> None:
    """Nothing was compared, and nothing is to be."""
    page = (await asked(Stage(catalog(served(version(1)))), "/catalog/m")).text
    assert 'id="shadow"' not in page


def test_bars_are_within_the_chart() -> None:
    """However long the course is, and however many stretches have nothing that was compared."""
    course = describe_shadow(model(), figures(), with_inputs=False).course
    chart = chart_of(course)
    assert chart is not None
    for bar in chart.bars:
        assert chart.left <= bar.x <= bar.x + bar.width <= chart.right + 1
        assert chart.top <= bar.equal_top <= chart.bottom
        assert bar.equal_height + bar.different_height == chart.bottom - chart.top
    assert chart_of([]) is None
    assert len(chart_of(course[:1]).bars) == 1  # type: ignore[union-attr]
