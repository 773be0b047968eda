"""The pictures of the catalog page in docs/images: `make screenshots`.

Made by the page's own code in a headless Chromium, over models that answer in this process
(tests/support/page_catalog.py). Only the counters behind rates and latencies are made up.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, Route

from tests.support.chromium import chromium
from tests.support.page_catalog import HELD, Stage, pictured, staged

FOLDER = Path(__file__).parents[1] / "docs" / "images"
WIDE, PHONE = 1280, 390

# A palette makes a small file.
_COLOURS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A page, how it is seen, and what is done on it first; `height` is of the window."""

    name: str
    path: str
    width: int
    height: int
    dark: bool = False
    first: Callable[[Page], None] = lambda page: None


def _predict(page: Page) -> None:
    page.get_by_role("button", name="Predict").click()
    page.locator("[data-state=good]").wait_for()


def _refuse(page: Page) -> None:
    page.get_by_label("items").fill("three")
    page.get_by_role("button", name="Predict").click()
    page.locator("[data-state=bad]").wait_for()


PICTURES = (
    Picture(name="catalog", path="/", width=WIDE, height=800),
    Picture(name="catalog-phone", path="/", width=PHONE, height=844),
    Picture(name="model", path="/catalog/delivery_time", width=WIDE, height=940, first=_predict),
    Picture(
        name="model-phone", path="/catalog/delivery_time", width=PHONE, height=844, first=_refuse
    ),
    Picture(name="model-dark", path=f"/catalog/{HELD}", width=WIDE, height=800, dark=True),
)


def main() -> None:
    """Take all pictures."""
    FOLDER.mkdir(exist_ok=True)
    with staged(pictured()) as stage, chromium() as browser:
        for picture in PICTURES:
            content = _taken(browser, stage, picture)
            (FOLDER / f"{picture.name}.png").write_bytes(content)
            print(f"docs/images/{picture.name}.png: {len(content) // 1024} KiB")


def _taken(browser: Browser, stage: Stage, picture: Picture) -> bytes:
    context = browser.new_context(
        base_url=stage.url,
        viewport={"width": picture.width, "height": picture.height},
        color_scheme="dark" if picture.dark else "light",
        reduced_motion="reduce",
    )
    page = context.new_page()
    looks = count()
    page.route("**/metrics", lambda route: _count(route, stage, next(looks)))
    page.goto(picture.path)
    page.locator('[data-number="rate"]', has_text="/s").first.wait_for()
    picture.first(page)
    page.evaluate("document.fonts.ready")
    page.evaluate("scrollTo(0, 0)")
    taken = page.screenshot()
    context.close()
    return _small(taken)


def _count(route: Route, stage: Stage, look: int) -> None:
    """Counters of the models that answer, which grow by some dozens of requests a second, and what
    those that are asked have loaded; those that nobody asks are asleep."""
    catalog = stage.feed.catalog
    models = () if catalog is None else catalog.models.values()
    lines = ["modelmux_sync_service_up 1"]
    for place, model in enumerate(each for each in models if each.default_version is not None):
        labels, total = f'model="{model.name}",version="1"', look * (place * 37 % 100)
        lines.append(f'modelmux_requests_total{{{labels},status="200"}} {total}')
        for bound, share in ((0.0025, 0.7 / (1 + place)), (0.01, 0.9), (0.05, 1), ("+Inf", 1)):
            sample = f'modelmux_request_duration_seconds_bucket{{{labels},le="{bound}"}}'
            lines.append(f"{sample} {total * share}")
        if place:
            lines.append(f'modelmux_model_deployments{{model="{model.name}",state="running"}} 1')
            lines.append(
                f'modelmux_loaded_versions{{model="{model.name}"}} {len(model.aliases) or 1}'
            )
    route.fulfill(body="\n".join(lines))


def _small(content: bytes) -> bytes:
    image = (
        Image.open(io.BytesIO(content)).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    )
    written = io.BytesIO()
    image.save(written, "PNG", optimize=True)
    return written.getvalue()


if __name__ == "__main__":
    main()
