"""What the HAProxy in front, where ours has started it, tells the ingress about who connected.

The launcher writes it into HAProxy's configuration (`deployments.cluster.ray_environment`), and the
ingress asks here whether it is there: on a cluster that is joined it isn't, and a header of that
name would be anybody's word.
"""

from __future__ import annotations

import os

TELLS_CALLERS = "option forwardfor"
"""HAProxy's directive to put the address of who connected behind `X-Forwarded-For`."""

DIRECTIVES = "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"
"""The variable that the launcher's directives ride on."""


def tells_callers() -> bool:
    """Whether the last address in `X-Forwarded-For` is HAProxy's own word."""
    is_there = os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"
    return is_there and TELLS_CALLERS in os.environ.get(DIRECTIVES, "").split("\n    ")
