"""Asking the sync service to have a model's application running. Must not import ray."""

from __future__ import annotations

from math import inf

from deployments.model_calls.retries import ACTIVATIONS, Retries
from deployments.serve.ports import CallLost, ReplicaHandle
from gateway.errors import ModelUnavailable

_RETRY_AFTER_S = 2.0


class SyncActivation:
    """An `Activate` by the sync service; one that is away is waited for."""

    def __init__(self, sync: ReplicaHandle, *, retries: Retries = ACTIVATIONS) -> None:
        self._sync = sync
        self._retries = retries

    async def __call__(self, name: str, number: int) -> str:
        """See `backend.Activate`."""
        try:
            application, problem = await self._ask(name, number)
        except CallLost as lost:
            raise ModelUnavailable(
                "The model can't be started right now.", retry_after_s=_RETRY_AFTER_S
            ) from lost
        if application is None:
            raise ModelUnavailable(problem, retry_after_s=_RETRY_AFTER_S)
        return application

    async def _ask(self, name: str, number: int) -> tuple[str | None, str]:
        async def ask() -> tuple[str | None, str]:
            answer: tuple[str | None, str] = await self._sync.call("activate", name, number)
            return answer

        try:
            return await ask()
        except CallLost as lost:
            return await self._retries.again(ask, lost, until=inf)
