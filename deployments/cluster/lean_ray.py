"""Starting a Ray of our own without what a gateway on one machine has no use for.

Ray starts a monitor for its autoscaler, which has nothing to scale on one machine, and one for its
logs, which sends to the driver what we have it keep in files. Both are Python processes: a
twentieth of what a gateway costs to start, and 100 MB (proportional set size) as long as it runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray


@contextmanager
def without_monitors() -> Iterator[None]:
    """Within, `ray.init` starts neither. `ray start` has options for that (`--no-monitor`,
    `--include-log-monitor`), and makes the same parameters of them; `ray.init` has none
    (docs/11-ray-internals.md)."""
    parameter: Any = ray._private.parameter
    made = parameter.RayParams
    parameter.RayParams = partial(made, no_monitor=True, include_log_monitor=False)
    try:
        yield
    finally:
        parameter.RayParams = made
