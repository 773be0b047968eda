"""Starting a Ray of our own without what a gateway on one machine has no use for.

Ray starts a monitor for its autoscaler, which has nothing to scale on one machine, one for its
logs, which sends to the driver what we have it keep in files, and its dashboard's server, which
without the dashboard does nothing but report usage to Ray's makers, and that is off. All are Python
processes: a tenth of what a gateway costs to start, and 170 MB (proportional set size) as long as
it runs; `ray.init` waits for the last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray


@contextmanager
def without_monitors() -> Iterator[None]:
    """Within, `ray.init` starts none of them. `ray start` has options for the monitors
    (`--no-monitor`, `--include-log-monitor`), and makes the same parameters of them; `ray.init` has
    none, and nothing has one for the server (docs/11-ray-internals.md)."""
    parameter: Any = ray._private.parameter
    node: Any = ray._private.node.Node
    made, served = parameter.RayParams, node.start_api_server
    parameter.RayParams = partial(made, no_monitor=True, include_log_monitor=False)
    node.start_api_server = _start_nothing
    try:
        yield
    finally:
        parameter.RayParams = made
        node.start_api_server = served


def _start_nothing(node: object, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
    """In the place of the method that starts the dashboard's server."""
