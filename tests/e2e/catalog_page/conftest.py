"""A browser and an application over fakes for a whole module: no Ray, no MLflow server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.e2e.catalog_page.driving import opened
from tests.support.chromium import chromium
from tests.support.page_catalog import Stage, shown, staged


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def running_stage() -> Iterator[Stage]:
    with staged(shown()) as running:
        yield running


@pytest.fixture
def stage(running_stage: Stage) -> Stage:
    """Every model answers."""
    running_stage.models.error = None
    return running_stage


@pytest.fixture
def page(browser: Browser, stage: Stage) -> Iterator[Page]:
    with opened(browser, stage) as page:
        yield page
