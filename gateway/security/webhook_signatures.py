"""Verifying MLflow's signed webhooks, and the look at the registry that follows (asyncio only).

A delivery is signed with HMAC-SHA256 over its id, its time and its body, as MLflow 3.17 does it
(mlflow/webhooks/delivery.py, after https://www.standardwebhooks.com). It only ever says "look at
the registry": what its body tells is never read. Must not import ray, mlflow or fastapi.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass

from gateway.attempt import Attempt
from gateway.errors import Forbidden, GatewayError
from gateway.ports import CatalogFeed

_logger = logging.getLogger(__name__)

_VERSION = "v1"
_TOLERANCE_S = 300.0
_MAX_ID_CHARACTERS = 128
_MAX_KNOWN = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What came: the three headers (empty where absent) and the body."""

    id: str
    timestamp: str
    signature: str
    body: bytes


class DeliveryCheck:
    """Tells genuine deliveries, each of them once, from all others.

    Remembers the ids of the last `max_known` deliveries of this process, for as long as their time
    is near enough. A delivery that comes again to another process is genuine there: all that it can
    do is to have the registry looked at once more. `clock` gives seconds since the epoch.
    """

    def __init__(
        self,
        secret: str,
        *,
        tolerance_s: float = _TOLERANCE_S,
        max_known: int = _MAX_KNOWN,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._secret = secret.encode()
        self._tolerance_s = tolerance_s
        self._max_known = max_known
        self._clock = clock
        self._known: OrderedDict[str, None] = OrderedDict()

    def accept(self, delivery: Delivery) -> None:
        """Take note of a genuine delivery; raises Forbidden for any other, without effect."""
        if not 0 < len(delivery.id) <= _MAX_ID_CHARACTERS or not delivery.timestamp.isdecimal():
            raise Forbidden("The delivery has no id or no time.")
        if not self._is_signed(delivery):
            raise Forbidden("The delivery is not signed with the webhook's secret.")
        if abs(self._clock() - int(delivery.timestamp)) > self._tolerance_s:
            raise Forbidden(f"The delivery's time is more than {self._tolerance_s:g} s from now.")
        if delivery.id in self._known:
            raise Forbidden("The delivery has come before.")
        self._known[delivery.id] = None
        if len(self._known) > self._max_known:
            self._known.popitem(last=False)

    def _is_signed(self, delivery: Delivery) -> bool:
        content = f"{delivery.id}.{delivery.timestamp}.".encode() + delivery.body
        digest = hmac.new(self._secret, content, hashlib.sha256).digest()
        expected = f"{_VERSION},{base64.b64encode(digest).decode()}"
        # Compared as bytes: text that isn't ASCII would raise.
        return hmac.compare_digest(expected.encode(), delivery.signature.encode())


class SyncTrigger:
    """Has the registry looked at in the background: however often it is asked while that is going
    on, once more afterwards is enough."""

    def __init__(self, feed: CatalogFeed) -> None:
        self._feed = feed
        self._wanted = False
        self._running: asyncio.Task[None] | None = None

    def pull(self) -> None:
        """A look that begins after this call will happen; returns at once."""
        self._wanted = True
        if self._running is None:
            # In no request's context: it isn't cancelled with the one that happened to come first.
            loop = asyncio.get_running_loop()
            self._running = loop.create_task(self._run(), context=Context())

    async def _run(self) -> None:
        try:
            while self._wanted:
                self._wanted = False
                await self._look()
        finally:
            self._running = None

    async def _look(self) -> None:
        # Nobody waits for this task, and the next delivery must find it well.
        with Attempt(_logger, "a webhook's look at the registry failed"):
            try:
                await self._feed.synchronize()
            except GatewayError as error:
                _logger.warning("a webhook's look at the registry failed: %s", error.detail)
