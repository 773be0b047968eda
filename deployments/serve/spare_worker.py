"""A process of Ray's that has its imports done before a replica is wanted (decision 0056).

Ray starts a process for a replica when the replica is asked for, and that process imports Ray Serve
first: two to three seconds of a core, most of the first answer of a model that was asleep. One
that was started ahead is given to the next replica of the same job and runtime environment; so
each replica of a model has another one started on its machine. What Ray's processes import ahead
is said by `RAY_preload_python_modules` (`deployments.cluster.ray_environment`).

The only way to have Ray start one is the call by which its own scheduler does (`PrestartWorkers`,
ray/protobuf/node_manager.proto). docs/11-ray-internals.md has what is used of it; where it fails,
replicas start as they did.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import ray
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import common_pb2, node_manager_pb2, node_manager_pb2_grpc

# They are made of Ray's protocol buffers, without types.
_common: Any = common_pb2
_messages: Any = node_manager_pb2
_services: Any = node_manager_pb2_grpc

_logger = logging.getLogger(__name__)

_KEPT_S = 10 * 365 * 24 * 3600
_ASK_TIMEOUT_S = 10.0
_WAITING = "ray::IDLE"
_STARTING = "default_worker"
_LOOK_AGAIN_S = 1.0
_MOST_LOOKS = 60


async def have_spare_worker(after_s: float = 0.0) -> None:
    """Have one on this machine, unless one waits; to be called by a replica, of whose kind it will
    be, `after_s` seconds from now. Never raises for what Ray says."""
    await asyncio.sleep(after_s)
    # One that starts may be the spare one, or a replica's that was asked for before it: which of
    # them it is shows when it has started.
    for _ in range(_MOST_LOOKS):
        commands = await asyncio.to_thread(lambda: list(_commands_beside()))
        if any(command.startswith(_WAITING) for command in commands):
            return
        if not any(_STARTING in command for command in commands):
            break
        await asyncio.sleep(_LOOK_AGAIN_S)
    try:
        await asyncio.to_thread(_start_spare)
    except (grpc.RpcError, OSError) as error:
        _logger.info("no process is started ahead for the next model: %s", type(error).__name__)


def _start_spare() -> None:
    here: Any = ray.get_runtime_context()
    nodes: Any = ray.nodes()  # type: ignore[no-untyped-call]
    (node,) = (each for each in nodes if each["NodeID"] == here.get_node_id())
    request = _messages.PrestartWorkersRequest(
        language=_common.Language.PYTHON,
        job_id=bytes.fromhex(here.get_job_id()),
        keep_alive_duration_secs=_KEPT_S,
        num_workers=1,
    )
    request.runtime_env_info.serialized_runtime_env = here.get_runtime_env_string()
    # Ray's own, for its token and TLS.
    with init_grpc_channel(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}") as channel:
        raylet = _services.NodeManagerServiceStub(channel)
        raylet.PrestartWorkers(request, metadata=_of_this_cluster(), timeout=_ASK_TIMEOUT_S)


def _of_this_cluster() -> list[tuple[str, str]]:
    """What Ray's processes ask each other for, so that none answers another cluster's."""
    worker: Any = ray._private.worker.global_worker
    return [("ray_cluster_id", worker.gcs_client.cluster_id.hex())]


def _commands_beside() -> Iterator[str]:
    """The command lines of the processes that this one's parent, Ray's raylet, has started; none
    where there is no /proc."""
    for task in Path(f"/proc/{os.getppid()}/task").glob("*/children"):
        for process in task.read_text().split():
            yield _command_of(process)


def _command_of(process: str) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:  # it has ended
        return ""
