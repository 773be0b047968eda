"""Preparing a version that is to be the default: loaded in every replica of its model and asked.

Must not import ray.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson

from deployments.model_calls.backend import VersionHandle
from deployments.model_calls.outcomes import answered_by_replica, call_result, packed_call
from deployments.serve.ports import CallLost, Connect, Loss, ReplicaHandle
from deployments.sync.activator import Activator
from deployments.sync.reconciler import ActivationFailed
from gateway.catalog import ModelVersion, ServedModel, contract_of
from gateway.contract import Contract, Frame
from gateway.errors import GatewayError, ModelUnavailable
from registry_sync.synchronizer import PreparationFailed

_ASK_LOAD_TIMEOUT_S = 60.0
_ASK_TIMEOUT_S = 3600.0
_CANNOT_BE_LOADED = "It can't be loaded; the log of its process says why."
_SUSPENDED = "Its calls ended or held up its processes; the log says when."


class ReplicaVersionPreparer:
    """Loads a version in every replica of its model and asks it once, before it takes over."""

    def __init__(self, activator: Activator, connect: Connect) -> None:
        self._activator = activator
        self._connect = connect

    def is_active(self, model: ServedModel) -> bool:
        """See `VersionPreparer.is_active`."""
        return self._activator.is_active(model)

    async def prepare(self, model: ServedModel, version: ModelVersion) -> None:
        """See `VersionPreparer.prepare`."""
        try:
            handle = self._connect(await self._activator.activate(model))
            loads = await handle.broadcast(
                "load", version.number, version.fingerprint, version.flavor
            )
            kinds = {_kind(answer) for answer in loads} - {"ok"}
            if kinds:
                raise PreparationFailed(_SUSPENDED if kinds == {"suspended"} else _CANNOT_BE_LOADED)
            await self._ask_once(handle, model, version)
        except ActivationFailed as failed:
            raise PreparationFailed(failed.reason) from failed
        except CallLost as lost:
            if lost.loss is not Loss.NO_APPLICATION:
                raise PreparationFailed("Its process went away while it was loaded.") from lost
            # Gone: nobody is served by it, so nobody would notice.

    async def _ask_once(
        self, handle: ReplicaHandle, model: ServedModel, version: ModelVersion
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
        )
        outcome = await VersionHandle(handle, version).call(
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


def _kind(answer: Any) -> str:
    """The kind of a replica's outcome; raises CallLost where it has none."""
    if isinstance(answer, CallLost):
        raise answer
    return str(answer[0])


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
