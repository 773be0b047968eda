"""A headless Chromium of the system's packages, for the tests of pages and for their pictures."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# The first has no windows, which nobody sees here: less than half of the processor time.
_PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
_CHROMIUM = next(filter(None, map(shutil.which, _PROGRAMS)), None)
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """One that asks nobody by itself; skips the test where there is none, unless it is required."""
    if _CHROMIUM is None:
        assert os.environ.get("BROWSER_TESTS") != "required", "no Chromium is installed"
        pytest.skip("no Chromium is installed; .ci/run installs it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=_CHROMIUM, args=list(_FLAGS))
        yield launched
        launched.close()
