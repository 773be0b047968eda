"""Loading the API keys: from a setting, or from a file that is polled for changes.

The rules are in `gateway.security.api_keys`. Must not import ray.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from pathlib import Path

from deployments.settings import Settings
from gateway.security.api_keys import BadKeys, Keyring, parse_keys

_logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0


class Keys:
    """The keys of the settings `keys` or `keys_file`.

    Before they are read there are none, so nobody is let in: who answers waits for them
    (`wait_until_read`), because it would call good keys unknown. A file that can't be read leaves
    the last good keys as they are, and is told once in the log.
    """

    def __init__(self, *, text: str | None, file: Path | None) -> None:
        self._text = text
        self._file = file
        self._read: str | None = None
        self._problem: str | None = None
        self._keyring = Keyring()
        self._known = asyncio.Event()

    @property
    def keyring(self) -> Keyring:
        """See `KeyringSource.keyring`."""
        return self._keyring

    def read(self) -> None:
        """Take the keys as they are now; raises BadKeys and then changes nothing."""
        text = self._current_text()
        if text != self._read:
            self._keyring = parse_keys(text)
            self._read = text

    def look_again(self) -> None:
        """Take the keys where they have changed; what is wrong with them is logged."""
        before = self._read
        try:
            self.read()
        except BadKeys as problem:
            if str(problem) != self._problem:
                _logger.error("%s %s", problem, self._without_new_ones())
            self._problem = str(problem)
            return
        if self._read != before or self._problem is not None:
            _logger.info("%s keys are good now", len(self._keyring))
        self._problem = None

    async def follow(self) -> None:
        """Look again every second; never returns."""
        while True:
            await asyncio.to_thread(self.look_again)
            if self._read is not None:
                self._known.set()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def wait_until_read(self) -> None:
        """Until `follow` has read good keys, however long they can't be read."""
        await self._known.wait()

    def _without_new_ones(self) -> str:
        if self._read is None:
            return "This process takes no requests until they can be read."
        return f"The keys stay as they were: {len(self._keyring)}."

    def _current_text(self) -> str:
        if self._file is None:
            return self._text or ""
        try:
            return self._file.read_text(encoding="utf-8")
        except OSError as error:
            raise BadKeys(f"{self._file} can't be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise BadKeys(f"{self._file} is not text.") from error


def keys_of(settings: Settings) -> Keys | None:
    """The keys, not read yet; None where none are set. Raises BadKeys where both settings are."""
    if settings.keys is not None and settings.keys_file is not None:
        raise BadKeys("keys and keys_file: set one of them.")
    if settings.keys is None and settings.keys_file is None:
        return None
    return Keys(text=settings.keys, file=settings.keys_file)


def is_loopback(host: str) -> bool:
    """Whether nobody on another machine can reach what listens on `host`."""
    try:
        found = socket.getaddrinfo(host.strip("[]") or None, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)
