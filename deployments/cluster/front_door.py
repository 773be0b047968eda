"""The front door: the address at which callers find a gateway of one ingress process.

`modelmux up` listens there from its beginning to its end, and lends the socket to the ingress
(`deployments.serve.lent_socket`), which takes the connections itself: nothing is between it and
its callers. While no ingress has it (before the first one is there, and between one that died and
the next) callers are told so here, in the envelope of all errors, instead of being refused.

Must not import ray.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from deployments.model_process.call_server import is_same_user
from deployments.model_process.channel import listening
from deployments.model_replica.processes import new_address
from deployments.serve.lent_socket import CLOSE, CLOSED, lend

_logger = logging.getLogger(__name__)

_BACKLOG = 2048
_START_S = 10.0

# For who is told that nobody is there: the time for a head, and to read the answer.
_HEAD_S = 10.0
_READ_S = 2.0
_MOST_TOLD = 512  # others wait in the system's queue, where the next ingress finds them

# Until it is tried again to accept, where this process has no file left for it.
_FILES_S = 1.0


class FrontDoor:
    """A listening socket, and a thread that lends it or says that nobody is there."""

    def __init__(self, listener: socket.socket) -> None:
        """The socket is the door's from now on."""
        self.address = new_address()
        """Where it is lent."""
        self._listener = listener
        self._lender = listening(self.address)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="front door", daemon=True)
        self._is_telling = False
        self._loans: dict[socket.socket, asyncio.Task[None]] = {}
        self._told = 0
        self._is_closing = False
        self._background: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Begin."""
        for each in (self._listener, self._lender):
            each.setblocking(False)
        self._thread.start()
        self._do(self._begin(), _START_S)

    def close(self, timeout_s: float) -> None:
        """Take no more connections; returns when all requests have been answered, or after
        `timeout_s`."""
        self._do(self._close(timeout_s), timeout_s + _START_S)

    def end(self) -> None:
        """Close everything at once."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_S)
        for each in (self._listener, self._lender, *self._loans):
            each.close()

    def _do(self, what: Coroutine[Any, Any, None], timeout_s: float) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(timeout_s)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        for each in asyncio.all_tasks(self._loop):
            each.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _begin(self) -> None:
        self._tell_that_nobody_is_there()
        self._keep(self._lend())

    def _keep(self, what: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(what)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _lend(self) -> None:
        while True:
            try:
                loan, _ = await self._loop.sock_accept(self._lender)
            except OSError as error:
                _logger.warning("the front door can't be lent: %s", error.strerror)
                await asyncio.sleep(_FILES_S)
                continue
            if not is_same_user(loan):
                loan.close()
                continue
            try:
                lend(loan, self._listener)
            except OSError as error:
                _logger.warning("the front door can't be lent: %s", error.strerror)
                loan.close()
                continue
            self._stop_telling()
            self._loans[loan] = self._keep(self._until_returned(loan))

    async def _until_returned(self, loan: socket.socket) -> None:
        try:
            with suppress(OSError):  # its process was killed
                while await self._loop.sock_recv(loan, len(CLOSED)):
                    pass
        finally:
            del self._loans[loan]
            loan.close()
        if not self._loans and not self._is_closing:
            self._tell_that_nobody_is_there()

    async def _close(self, timeout_s: float) -> None:
        self._is_closing = True
        self._stop_telling()
        self._listener.close()
        for loan in self._loans:
            with suppress(OSError):
                loan.send(CLOSE)
        if self._loans:
            await asyncio.wait(list(self._loans.values()), timeout=timeout_s)

    def _tell_that_nobody_is_there(self) -> None:
        """Accept; not by a server of asyncio's, which forgets whom it has accepted and not yet
        greeted when it is closed, and leaves them without an answer."""
        self._is_telling = True
        self._loop.add_reader(self._listener, self._accept)

    def _stop_telling(self) -> None:
        self._is_telling = False
        self._pause()

    def _accept(self) -> None:
        try:
            caller, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:
            self._pause()
            self._loop.call_later(_FILES_S, self._go_on)
            return
        self._told += 1
        if self._told >= _MOST_TOLD:
            self._pause()
        self._keep(self._tell(caller))

    def _pause(self) -> None:
        self._loop.remove_reader(self._listener)

    def _go_on(self) -> None:
        if self._is_telling:
            self._tell_that_nobody_is_there()

    async def _tell(self, caller: socket.socket) -> None:
        from gateway.http.server.canned_responses import nobody_there

        reader, writer = await asyncio.open_connection(sock=caller)
        try:
            async with asyncio.timeout(_HEAD_S):
                await reader.readuntil(b"\r\n\r\n")
            writer.write(nobody_there())
            writer.write_eof()
            async with asyncio.timeout(_READ_S):
                while await reader.read(65_536):
                    pass  # of a body: closed with that unread, the answer would be lost
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # who isn't speaking HTTP, or has left
        finally:
            writer.close()
            self._told -= 1
            if self._told == _MOST_TOLD - 1:
                self._go_on()


def open_front_door(host: str, port: int) -> FrontDoor:
    """Listen at an address; raises OSError."""
    door = FrontDoor(_listening(host, port))
    door.open()
    return door


def _listening(host: str, port: int) -> socket.socket:
    plain = host.strip("[]")
    if plain == "::":  # every address of both kinds
        return socket.create_server(
            (plain, port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
        )
    (family, _, _, _, address), *_ = socket.getaddrinfo(plain, port, type=socket.SOCK_STREAM)
    return socket.create_server(address, family=family, backlog=_BACKLOG)
