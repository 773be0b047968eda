"""Preparing a version that is to be the default: loaded in every replica of its model and asked.

Must not import ray.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson

from deployments.model_calls.backend import VersionHandle
from deployments.model_calls.outcomes import answered_by_replica, call_result, packed_call
from deployments.model_replica.version_process import VersionId
from deployments.placement import OWN, Placement
from deployments.serve.ports import CallLost, Connect, Loss, ReplicaHandle
from deployments.sync.activator import Activator
from deployments.sync.reconciler import ActivationFailed
from gateway.catalog import ModelVersion, ServedModel, contract_of
from gateway.contract import Contract, Frame
from gateway.errors import GatewayError, ModelUnavailable
from registry_sync.synchronizer import PreparationFailed

_ASK_LOAD_TIMEOUT_S = 60.0
_ASK_TIMEOUT_S = 3600.0
_LOOK_AGAIN_S = 2.0


class ReplicaVersionPreparer:
    """Loads a version in every replica of its model, or in one that it wakes within so many
    seconds, and asks it once, before it takes over. In the shared deployment one replica loads it;
    `has_loaded` says whether any version of a model of that name is in memory there."""

    def __init__(
        self,
        activator: Activator,
        connect: Connect,
        *,
        wake_timeout_s: float,
        placement: Placement = OWN,
        has_loaded: Callable[[str], bool] = lambda name: True,
    ) -> None:
        self._activator = activator
        self._connect = connect
        self._wake_timeout_s = wake_timeout_s
        self._placement = placement
        self._has_loaded = has_loaded

    def is_active(self, model: ServedModel) -> bool:
        """See `VersionPreparer.is_active`."""
        if self._placement.is_shared(model) and not self._has_loaded(model.name):
            return False
        return self._activator.is_active(model)

    async def prepare(self, model: ServedModel, version: ModelVersion) -> None:
        """See `VersionPreparer.prepare`."""
        with _told_as_failure():
            await self._ask_once(await self._loaded(model, version), model, version)

    async def load(self, model: ServedModel, version: ModelVersion) -> None:
        """As `prepare`, and it isn't asked: nobody waits for it to take over. Raises
        PreparationFailed."""
        with _told_as_failure():
            await self._loaded(model, version)

    async def _loaded(self, model: ServedModel, version: ModelVersion) -> VersionHandle:
        handle = self._connect(await self._activator.activate(model))
        prepared = VersionHandle(handle, VersionId.of(model, version))
        await self._load(handle, prepared, in_each=not self._placement.is_shared(model))
        return prepared

    async def _load(self, handle: ReplicaHandle, prepared: VersionHandle, *, in_each: bool) -> None:
        """Have it in memory in each replica, or in one."""

        async def outcomes() -> list[Any]:
            if in_each:
                return await self._outcomes(handle, prepared.version)
            return [await prepared.load()]

        found = await outcomes()
        while any(_is_building(outcome) for outcome in found):
            # On another node than ours: it has begun to, and a build has an end.
            await asyncio.sleep(_LOOK_AGAIN_S)
            found = await outcomes()
        for outcome in found:
            _require_loaded(outcome)

    async def _outcomes(self, handle: ReplicaHandle, version: VersionId) -> list[Any]:
        """What comes of the load in each replica."""
        try:
            return await handle.broadcast("load", version)
        except CallLost as lost:
            if lost.loss is not Loss.NO_APPLICATION:
                raise
        # No replica is there, or the handle knows of none yet. A call of one wakes it.
        async with asyncio.timeout(self._wake_timeout_s):
            await handle.call("load", version)
        return await handle.broadcast("load", version)

    async def _ask_once(
        self, prepared: VersionHandle, model: ServedModel, version: ModelVersion
    ) -> None:
        """The first call of a model is often slow: have it behind us. An input example that came
        with the version must be answered; a made-up one, or tensors of zeros, may not suit the
        model."""
        own = model.model_copy(
            update={"contract": version.signature, "default_version": version.number}
        )
        question = _question(contract_of(version.signature or ""), own.request_example())
        if question is None:
            return
        frame, params = question
        message = packed_call(
            frame,
            params,
            give_up_at=time.monotonic() + _ASK_TIMEOUT_S,
            patience_s=_ASK_TIMEOUT_S,
            slots=model.concurrency_of(version),
        )
        outcome = await prepared.call(
            message, load_timeout_s=_ASK_LOAD_TIMEOUT_S, timeout_s=_ASK_TIMEOUT_S
        )
        try:
            answer, _, _ = answered_by_replica(outcome)
            call_result(answer)
        except ModelUnavailable as error:
            raise PreparationFailed(str(error)) from error
        except GatewayError as error:
            if version.example is not None:
                raise PreparationFailed("It fails on its own input example.") from error


@contextmanager
def _told_as_failure() -> Iterator[None]:
    """What keeps a version from being loaded or asked, as PreparationFailed."""
    try:
        yield
    except ActivationFailed as failed:
        raise PreparationFailed(failed.reason) from failed
    except TimeoutError as error:
        raise PreparationFailed("No process of its model starts to load it.") from error
    except CallLost as lost:
        raise PreparationFailed("Its process went away while it was loaded.") from lost


def _is_building(outcome: Any) -> bool:
    return not isinstance(outcome, CallLost) and outcome[0] == "building"


def _require_loaded(outcome: Any) -> None:
    """Raises PreparationFailed for what any other outcome of a load says (see `Supervisor.load`),
    and CallLost where there is none."""
    if isinstance(outcome, CallLost):
        raise outcome
    kind, value = outcome
    if kind == "load_failed":
        raise PreparationFailed(f"It can't be loaded: {value['reason']}.")
    if kind != "ok":
        raise PreparationFailed(f"It isn't tried for a while: {value['reason']}.")


def _question(contract: Contract, example: Any) -> tuple[Frame, Mapping[str, Any]] | None:
    """What a version is asked first; None where nothing can be made up."""
    try:
        if example is None:
            zeros = contract.zeros()
            params = contract.parse(b"[]").params
            return None if zeros is None else (zeros, params)
        request = contract.parse(orjson.dumps(example))
    except GatewayError:
        return None
    return next(((frame, request.params) for _, frame in request.frames), None)
