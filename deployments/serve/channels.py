"""gRPC channels to replicas and retries of Ray's router, where Ray 2.60 has no setting for them.

All channels of a process to one address share its connections, and gRPC's back-off of up to two
minutes, as long as any of them is there: also a channel that is left of a replica which is gone. A
new replica that happens to get that port can't be reached until the back-off is over, though it is
up; and Ray's router, which hears so at once, asks again at once: hundreds of times a second, for a
minute and more (seen once in 128 starts). So each channel has connections of its own here, which
are tried anew within a second, and the router pauses between two tries.

What is replaced are `init_grpc_channel`, as `RunningReplica.stub` finds it, and
`AsyncioRouter._route_and_send_request_once`, in the process that calls this alone.
tests/integration/test_ray_seam.py notices when they move; until then what isn't there is left
alone.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from ray.serve._private import router
from ray.serve._private.request_router import replica_wrapper

from deployments.backoff import Backoff

_INIT_CHANNEL = "init_grpc_channel"
_SEND_ONCE = "_route_and_send_request_once"
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
_PAUSES = Backoff(least_s=0.01, most_s=0.5)
_TRIES = "_modelmux_tries"

_SendOnce = Callable[..., Awaitable[Any]]


def reach_replicas_anew() -> None:
    """Have channels of their own for new replicas, and pauses between two tries."""
    init_channel = getattr(replica_wrapper, _INIT_CHANNEL, None)
    if init_channel is not None and not getattr(init_channel, "is_ours", False):
        setattr(replica_wrapper, _INIT_CHANNEL, _with_own_connections(init_channel))
    send_once = getattr(router.AsyncioRouter, _SEND_ONCE, None)
    if send_once is not None and not getattr(send_once, "is_ours", False):
        setattr(router.AsyncioRouter, _SEND_ONCE, _with_pauses(send_once))


def _with_own_connections(init_channel: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(init_channel)
    def init_own(address: str, options: Any = None, **more: Any) -> Any:
        return init_channel(address, options=[*(options or ()), *_OPTIONS], **more)

    init_own.is_ours = True  # type: ignore[attr-defined]
    return init_own


def _with_pauses(send_once: _SendOnce) -> _SendOnce:
    random = Random()  # noqa: S311 - no secret

    @functools.wraps(send_once)
    async def send_after_a_pause(self: Any, request: Any, response_id: str, is_retry: bool) -> Any:
        if is_retry:
            tries = getattr(request, _TRIES, 0) + 1
            setattr(request, _TRIES, tries)
            await asyncio.sleep(_PAUSES.pause_s(tries, random))
        return await send_once(self, request, response_id, is_retry)

    send_after_a_pause.is_ours = True  # type: ignore[attr-defined]
    return send_after_a_pause
