"""Socket activation: who holds the front door's listening socket lends it to who serves it.

As systemd does it (sd_listen_fds(3)), over a Unix socket (SCM_RIGHTS, unix(7)): the connection is
the loan, which ends with it, whoever of both dies. The holder may ask for an end: the borrower
takes no more connections, answers what it has, and says that it has.

Must not import ray.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass

from deployments.model_process.channel import connected

CLOSE = b"close\n"
"""What the holder says to have no more connections taken."""

CLOSED = b"closed\n"
"""What the borrower answers when all is answered."""

_HERE = b"."
_LEND_S = 10.0


def lend(loan: socket.socket, listener: socket.socket) -> None:
    """Give the socket to who has connected; raises OSError."""
    socket.send_fds(loan, [_HERE], [listener.fileno()])


@dataclass(frozen=True, slots=True)
class Loan:
    """A listening socket, and the connection for as long as which it is lent."""

    listener: socket.socket
    _connection: socket.socket

    async def ended(self) -> None:
        """Returns when the holder wants no more connections to be taken, or is gone."""
        await asyncio.get_running_loop().sock_recv(self._connection, len(CLOSE))

    def close(self) -> None:
        """Say that nothing is left to answer; the holder may serve the socket again."""
        with suppress(OSError):  # nobody is there to hear it
            self._connection.send(CLOSED)
        self._connection.close()


async def borrow(address: str) -> Loan:
    """The socket that is lent at an address; raises OSError."""
    connection = await asyncio.to_thread(connected, address)
    connection.settimeout(_LEND_S)
    _, (descriptor,), _, _ = await asyncio.to_thread(
        socket.recv_fds, connection, len(_HERE), 1, socket.MSG_CMSG_CLOEXEC
    )
    connection.setblocking(False)
    return Loan(socket.socket(fileno=descriptor), connection)
