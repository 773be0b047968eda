"""Logging of our own processes: one line per event on stderr, which Ray collects."""

from __future__ import annotations

import logging
import sys

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_PACKAGES = ("gateway", "registry_sync", "deployments")


def configure_logging(level: int = logging.INFO) -> None:
    """Send what our packages log to stderr; leaves everybody else's loggers alone."""
    for package in _PACKAGES:
        logger = logging.getLogger(package)
        if not logger.handlers:
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(logging.Formatter(_FORMAT))
            logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
