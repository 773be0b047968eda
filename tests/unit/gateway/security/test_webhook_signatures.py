"""Webhook deliveries: MLflow's own signature, what is refused, and what they set off."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest
from mlflow.webhooks import delivery as mlflow_delivery

from gateway.errors import Forbidden, InternalError
from gateway.security.webhook_signatures import Delivery, DeliveryCheck, SyncTrigger
from tests.support.clocks import Clock

SECRET = "a secret"  # pragma: allowlist secret
NOW = 1_800_000_000.0
BODY = '{"entity": "model_version", "data": {"name": "Größe"}}'


def signed(identifier: str = "d1", at: float = NOW, secret: str = SECRET) -> Delivery:
    """A delivery with the signature that MLflow itself makes."""
    timestamp = str(int(at))
    signature = mlflow_delivery._generate_hmac_signature(secret, identifier, timestamp, BODY)
    return Delivery(id=identifier, timestamp=timestamp, signature=signature, body=BODY.encode())


def changed(**fields: object) -> Delivery:
    """A signed delivery with something of it replaced afterwards."""
    good = signed()
    names = ("id", "timestamp", "signature", "body")
    return Delivery(**{name: fields.get(name, getattr(good, name)) for name in names})  # type: ignore[arg-type]


def test_what_mlflow_signs_is_accepted_once() -> None:
    """The signature is that of MLflow's own code; a repetition is refused."""
    check = DeliveryCheck(SECRET, clock=Clock(NOW))
    check.accept(signed())
    with pytest.raises(Forbidden, match="before"):
        check.accept(signed())
    check.accept(signed("d2"))


@pytest.mark.parametrize(
    "bad",
    [
        changed(id="d2"),
        changed(timestamp=str(int(NOW) + 1)),
        changed(body=BODY.encode() + b" "),
        changed(signature=""),
        changed(signature="v1,"),
        changed(signature="v1,ü"),
        changed(signature=signed().signature.removeprefix("v1,")),
        changed(signature=signed().signature.replace("v1", "v2")),
        signed(secret="another"),  # pragma: allowlist secret
        changed(id=""),
        changed(id="x" * 129),
        changed(timestamp=""),
        changed(timestamp="soon"),
        changed(timestamp="-5"),
        changed(timestamp="²"),
    ],
    ids=str,
)
def test_what_is_not_signed_is_refused_without_effect(bad: Delivery) -> None:
    """Nothing of it is remembered: the genuine one with the same id is still accepted."""
    check = DeliveryCheck(SECRET, clock=Clock(NOW))
    with pytest.raises(Forbidden):
        check.accept(bad)
    check.accept(signed())


@pytest.mark.parametrize(("age_s", "accepted"), [(0, True), (300, True), (301, False), (-300, True),
                                                 (-301, False)])  # fmt: skip
def test_old_deliveries_are_refused(age_s: float, accepted: bool) -> None:
    """Five minutes in either direction are near enough for two clocks."""
    check = DeliveryCheck(SECRET, clock=Clock(NOW))
    delivery = signed(at=NOW - age_s)
    if accepted:
        check.accept(delivery)
    else:
        with pytest.raises(Forbidden, match="300 s"):
            check.accept(delivery)


def test_what_is_remembered_is_bounded() -> None:
    """The last ids are kept, however many come."""
    check = DeliveryCheck(SECRET, max_known=3, clock=Clock(NOW))
    for number in range(10):
        check.accept(signed(f"d{number}"))
    assert len(check._known) == 3
    for number in (7, 8, 9):
        with pytest.raises(Forbidden):
            check.accept(signed(f"d{number}"))


class Registry:
    """Counts looks, each of which takes until the test lets it end."""

    def __init__(self) -> None:
        self.looks = 0
        self.may_end = asyncio.Event()
        self.error: Exception | None = None

    async def synchronize(self) -> None:
        self.looks += 1
        await self.may_end.wait()
        if self.error is not None:
            raise self.error


async def _settled(trigger: SyncTrigger) -> None:
    if trigger._running is not None:
        await asyncio.wait([trigger._running])


async def test_many_deliveries_are_two_looks() -> None:
    """What comes during a look is answered by one more after it, which sees all of it."""
    registry = Registry()
    trigger = SyncTrigger(registry)
    trigger.pull()
    await asyncio.sleep(0)
    for _ in range(100):
        trigger.pull()
    assert registry.looks == 1
    registry.may_end.set()
    await _settled(trigger)
    assert registry.looks == 2
    trigger.pull()
    await _settled(trigger)
    assert registry.looks == 3


@pytest.mark.parametrize("error", [InternalError("away"), ZeroDivisionError()])
async def test_a_look_that_fails_leaves_the_next_one_possible(error: Exception) -> None:
    """The sync service was away; the next delivery tries again."""
    registry = Registry()
    registry.may_end.set()
    registry.error = error
    trigger = SyncTrigger(registry)
    for looks in (1, 2):
        trigger.pull()
        await _settled(trigger)
        assert registry.looks == looks


async def test_a_look_belongs_to_no_delivery() -> None:
    """What cancels the request that set it off, or is bound to it, has no hold on the look."""
    request: ContextVar[str | None] = ContextVar("request", default=None)
    seen: list[str | None] = []

    class Noting(Registry):
        async def synchronize(self) -> None:
            seen.append(request.get())
            await super().synchronize()

    registry = Noting()
    trigger = SyncTrigger(registry)

    async def deliver() -> None:
        request.set("the first delivery")
        trigger.pull()
        await asyncio.Event().wait()

    delivery = asyncio.create_task(deliver())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    delivery.cancel()
    await asyncio.gather(delivery, return_exceptions=True)
    registry.may_end.set()
    await _settled(trigger)
    assert seen == [None]
    assert registry.looks == 1
