"""Closing ports of a replica's process: Ray Serve has more, and opens them wider, than are needed.

Ray 2.60 has settings for neither, so what `Replica._on_initialized`
(ray/serve/_private/replica.py) calls is replaced, in the replica's process alone. To be called in
the constructor of a deployment: Ray opens the ports after that.
tests/integration/test_ray_internals.py notices when a name moves; until then what isn't there is
left alone.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.serve._private import replica

_ADD_PORT = "add_port_to_grpc_server"
_START_HTTP = "_maybe_start_direct_ingress_servers"
_ALL_ADDRESSES = "[::]:"


def listen_on_own_address() -> None:
    """Have the gRPC server, which takes other replicas' calls, on the node's own address: the one
    that they use, and the loopback where Ray is the gateway's own
    (`deployments.cluster.ray_environment`). Ray would listen on all addresses."""
    add_port = getattr(replica, _ADD_PORT, None)
    if add_port is None or getattr(add_port, "is_ours", False):
        return

    def add_own_port(server: Any, address: str) -> int:
        own: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        if address.startswith(_ALL_ADDRESSES):
            address = f"{f'[{own}]' if ':' in own else own}:{address.removeprefix(_ALL_ADDRESSES)}"
        return int(add_port(server, address))

    add_own_port.is_ours = True  # type: ignore[attr-defined]
    setattr(replica, _ADD_PORT, add_own_port)


def listen_for_no_http() -> None:
    """Have no HTTP server, which Ray gives the first deployment of each application so that HAProxy
    can reach it. A model's application has no route; its server would tell the model's name."""

    async def start_none(_: Any) -> None:
        return

    if hasattr(replica.Replica, _START_HTTP):
        setattr(replica.Replica, _START_HTTP, start_none)
