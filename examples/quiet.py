"""Keep the libraries' log lines and progress bars out of the demo's own few lines of progress."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PROGRESS_BAR = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"


@contextmanager
def quiet_mlflow() -> Iterator[None]:
    """Let MLflow log errors only and draw no progress bar; put it back afterwards.

    What it says besides is no news here: that it waits for a version, that pickle needs trust.
    """
    logger = logging.getLogger("mlflow")
    level, shown = logger.level, os.environ.get(PROGRESS_BAR)
    logger.setLevel(logging.ERROR)
    os.environ[PROGRESS_BAR] = "false"
    try:
        yield
    finally:
        logger.setLevel(level)
        del os.environ[PROGRESS_BAR]
        if shown is not None:
            os.environ[PROGRESS_BAR] = shown


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Let transformers draw no progress bar; put it back afterwards."""
    from transformers.utils import logging as transformers_logging

    bars: Any = transformers_logging  # its functions carry no types
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
