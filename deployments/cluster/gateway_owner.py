"""Which `modelmux up` the gateway on a cluster belongs to.

Serve may be shared by several who type `up`, and knows no owners. So the one that deploys writes
into Ray's own key-value store who it is, by its Ray job: Ray itself knows whether that still lives.
Import it only where Ray may be imported (see `deployments.cluster.launch`).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import ray
from ray._private import state
from ray.experimental import internal_kv

from deployments.cluster.join_rules import CannotJoin, RunningServe

_NAMESPACE = b"modelmux"
_KEY = b"gateway-owner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The process of an `up`, and its job in Ray."""

    job: str
    host: str
    pid: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextmanager
def owned_gateway(serve: RunningServe | None, *, take_over: bool) -> Iterator[Owner]:
    """Own the gateway of this cluster while the block lasts; raises CannotJoin where another one
    is there that somebody looks after, unless it is to be taken over."""
    job = ray.get_runtime_context().get_job_id()
    me = Owner(job=job, host=socket.gethostname(), pid=os.getpid())
    if not take_over:
        before = _living_owner()
        (serve or RunningServe(host=None, port=0)).require_no_gateway(
            owner=None if before is None else str(before)
        )
    _write(me, instead=take_over or _read() is not None)
    try:
        yield me
    finally:
        if is_owner(me):
            internal_kv._internal_kv_del(_KEY, namespace=_NAMESPACE)


def is_owner(owner: Owner) -> bool:
    """Whether nobody has taken the gateway over."""
    return _read() == owner


def _write(me: Owner, *, instead: bool) -> None:
    """Raises CannotJoin where another one was quicker."""
    was_there = internal_kv._internal_kv_put(
        _KEY, json.dumps(asdict(me)).encode(), overwrite=instead, namespace=_NAMESPACE
    )
    if was_there and not instead:
        raise CannotJoin("another `modelmux up` is starting on this cluster")


def _read() -> Owner | None:
    told = internal_kv._internal_kv_get(_KEY, namespace=_NAMESPACE)
    return None if told is None else Owner(**json.loads(told))


def _living_owner() -> Owner | None:
    owner = _read()
    if owner is None:
        return None
    alive = {job["JobID"] for job in state.jobs() if not job["IsDead"]}  # type: ignore[no-untyped-call]
    return owner if owner.job in alive else None
