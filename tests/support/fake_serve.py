"""A Serve without Ray: applications that come up or don't, replicas that answer or are lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from deployments.model_process.framing import Inbox
from deployments.model_process.messages import Outcome, packed_outcome
from deployments.serve.ports import ApplicationSeen, ApplicationStatus, CallLost

Answer = Callable[..., Any]
"""What a method of a replica does; an awaitable that it gives is awaited."""


async def until(condition: Callable[[], object]) -> None:
    """Let the tasks go on until it is true."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a turn of the loop for others, no pause
            await asyncio.sleep(0)


def answered(kind: str = "ok", value: Any = ("values", [1.0]), address: str = "@none") -> Any:
    """What a replica says of a call that a version's process has answered."""
    said = value if kind in ("ok", "event") else None
    outcome = packed_outcome(Outcome(kind, said, 0.002, 1))
    inbox = Inbox()
    inbox.feed(outcome)
    message = inbox.next()
    assert message is not None
    return ("answered", (message.header, message.body, address, 0.5))


class FakeReplicas:
    """A `ReplicaHandle` of replicas that do what their methods say; `calls` counts them.

    A method that raises CallLost is a call that is lost.
    """

    def __init__(self, replicas: int = 1, **methods: Answer) -> None:
        self.replicas = replicas
        self.methods = methods
        self.calls: Counter[str] = Counter()
        self.model_ids: list[str | None] = []

    async def call(
        self, method: str, *arguments: Any, multiplexed_model_id: str | None = None
    ) -> Any:
        self.calls[method] += 1
        self.model_ids.append(multiplexed_model_id)
        answer = self.methods[method](*arguments)
        return await answer if asyncio.iscoroutine(answer) else answer

    async def stream(
        self, method: str, *arguments: Any, multiplexed_model_id: str | None = None
    ) -> AsyncGenerator[Any]:
        self.calls[method] += 1
        self.model_ids.append(multiplexed_model_id)
        async for item in self.methods[method](*arguments):
            yield item

    async def broadcast(self, method: str, *arguments: Any) -> list[Any]:
        async def answer() -> Any:
            try:
                return await self.call(method, *arguments)
            except CallLost as lost:
                return lost

        return await asyncio.gather(*(answer() for _ in range(self.replicas)))


class FakeServe:
    """A `ServeApplications` whose applications come up when they have been looked at `looks` times.

    `cannot_run` and `no_room_for` decide by what was built. Every change is noted in `done`, and
    `overlaps` says whether two changes of one application ever went on at once.
    """

    def __init__(self, looks: int = 2) -> None:
        self.looks = looks
        self.built: dict[str, Any] = {}
        self.statuses: dict[str, ApplicationStatus] = {}
        self.deployments: dict[str, tuple[str, ...]] = {}
        self.done: list[tuple[str, str]] = []
        self.cannot_run: Callable[[Any], bool] = lambda built: False
        self.no_room_for: Callable[[Any], bool] = lambda built: False
        self.is_broken = False
        self.may_delete = asyncio.Event()
        self.may_delete.set()
        self.overlaps = False
        self._looked: Counter[str] = Counter()
        self._changing: set[str] = set()

    async def run(self, name: str, build: Callable[[], Any]) -> None:
        await self._change(name, "run")
        if self.is_broken:
            raise RuntimeError("the controller is restarting")
        self.built[name] = build()
        self.statuses[name] = ApplicationStatus.DEPLOYING
        self.deployments[name] = ("ModelHost",)
        self._looked[name] = 0

    async def status(self, name: str) -> ApplicationStatus:
        await asyncio.sleep(0)
        status = self.statuses.get(name, ApplicationStatus.NOT_STARTED)
        if status is not ApplicationStatus.DEPLOYING:
            return status
        self._looked[name] += 1
        if self.cannot_run(self.built[name]):
            self.statuses[name] = ApplicationStatus.DEPLOY_FAILED
        elif self._looked[name] >= self.looks and not self.no_room_for(self.built[name]):
            self.statuses[name] = ApplicationStatus.RUNNING
        return self.statuses[name]

    async def list(self) -> Mapping[str, ApplicationSeen]:
        await asyncio.sleep(0)
        return {
            name: ApplicationSeen(status=status, deployments=self.deployments[name])
            for name, status in self.statuses.items()
        }

    async def delete(self, name: str) -> None:
        await self._change(name, "delete")
        self.statuses.pop(name, None)

    async def _change(self, name: str, what: str) -> None:
        self.done.append((what, name))
        self.overlaps |= name in self._changing
        self._changing.add(name)
        await asyncio.sleep(0)
        if what == "delete":
            await self.may_delete.wait()
        self._changing.discard(name)
