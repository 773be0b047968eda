"""Keeps a replica's gRPC server on its node's own address; Ray Serve would listen on all of them.

Other replicas reach it by the node's address, which is the loopback where Ray is the gateway's own
(`deployments.fast_path`). Travels to the replica by value and must not import anything of ours.

Ray 2.60 has no setting for it: `Replica._on_initialized` in ray/serve/_private/replica.py binds
"[::]:0". So the function that it calls there is replaced, in the replica's process alone.
tests/integration/test_access.py, which looks at every port of a gateway, notices when that moves.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.serve._private import replica

_NAME = "add_port_to_grpc_server"
_ALL_ADDRESSES = "[::]:"


def listen_on_own_address() -> None:
    """To be called in the constructor of a deployment: Ray starts the server after that."""
    add_port = getattr(replica, _NAME, None)
    if add_port is None or getattr(add_port, "is_ours", False):
        return

    def add_own_port(server: Any, address: str) -> int:
        own: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        if address.startswith(_ALL_ADDRESSES):
            address = f"{f'[{own}]' if ':' in own else own}:{address.removeprefix(_ALL_ADDRESSES)}"
        return int(add_port(server, address))

    add_own_port.is_ours = True  # type: ignore[attr-defined]
    setattr(replica, _NAME, add_own_port)
