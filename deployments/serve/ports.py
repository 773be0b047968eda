"""What the gateway needs of Ray Serve: calls of replicas, and applications; and what may become of
them. `handles` and `applications` fulfil it. Must not import ray.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol


class Loss(Enum):
    """What became of a call by handle that has no answer."""

    INSIDE = "its replica went away with it"
    NO_APPLICATION = "its application is gone"
    BUSY = "its replicas take no more"
    FAILED = "it failed"


class CallLost(Exception):
    """A call by handle has no answer; the cause is Ray's exception, or the called method's."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss)
        self.loss = loss

    def __str__(self) -> str:
        cause = self.__cause__
        return self.loss.value if cause is None else f"{self.loss.value}: {type(cause).__name__}"


class ReplicaHandle(Protocol):
    """Calls of the replicas of one deployment. What they take and give is of this release's own
    classes, or plain."""

    async def call(
        self, method: str, *arguments: Any, multiplexed_model_id: str | None = None
    ) -> Any:
        """The answer of one replica, of one that has the multiplexed model where there is one.

        Waits for a replica for as long as there is none. Raises CallLost.
        """

    def stream(
        self, method: str, *arguments: Any, multiplexed_model_id: str | None = None
    ) -> AsyncGenerator[Any]:
        """What a generator of one replica yields, chosen and with errors as in `call`; to close it
        ends that generator."""

    async def broadcast(self, method: str, *arguments: Any) -> list[Any]:
        """The answers of all replicas; instead of an answer a CallLost. Raises CallLost where they
        can't be asked."""


Connect = Callable[[str], ReplicaHandle]
"""The handle of the models' deployment in the application of that name; raises CallLost."""


class ApplicationStatus(Enum):
    """How Serve says that an application is."""

    NOT_STARTED = "NOT_STARTED"
    """There is none of that name."""
    DEPLOYING = "DEPLOYING"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    RUNNING = "RUNNING"
    UNHEALTHY = "UNHEALTHY"
    DELETING = "DELETING"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationSeen:
    """An application as Serve tells it."""

    status: ApplicationStatus
    deployments: Collection[str]


class ServeApplications(Protocol):
    """The applications of a Serve."""

    async def run(self, name: str, build: Callable[[], Any]) -> None:
        """Have Serve deploy what `build` makes, or change what runs under that name to it; doesn't
        wait until it runs. `build` is called in a thread, and never two at a time."""

    async def status(self, name: str) -> ApplicationStatus:
        """How the application is."""

    async def list(self) -> Mapping[str, ApplicationSeen]:
        """All applications by their names."""

    async def delete(self, name: str) -> None:
        """Delete the application and wait for its end; raises TimeoutError if it takes long."""
