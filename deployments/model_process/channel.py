"""Connections to the supervisor, and addresses of sockets on this machine.

An address that begins with `@` is a name in Linux' abstract namespace (unix(7)): it leaves no file
behind. All others are paths. What goes over a connection of control are lines of JSON.
"""

from __future__ import annotations

import json
import socket
from typing import Any


def socket_address(address: str) -> str:
    """The address as the system takes it."""
    return "\0" + address[1:] if address.startswith("@") else address


def connected(address: str) -> socket.socket:
    """A connection to whoever listens at the address; raises OSError."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.connect(socket_address(address))
    return made


def listening(address: str, backlog: int = 64) -> socket.socket:
    """A socket that takes connections at the address."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind(socket_address(address))
    made.listen(backlog)
    return made


def line_of(said: dict[str, Any]) -> bytes:
    """What is said, as a line."""
    return json.dumps(said).encode("ascii") + b"\n"
