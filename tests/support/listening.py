"""What the processes of a session listen on, from /proc."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A TCP port that a process listens on; `command` is the process's."""

    address: str
    port: int
    pid: int
    command: str

    @property
    def is_loopback(self) -> bool:
        """Whether it can be reached from this machine only."""
        address = ipaddress.ip_address(self.address)
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address).is_loopback


def listeners_of(session: int) -> list[Listener]:
    """Every port on which a process of that session listens."""
    sockets = {
        inode: where
        for table in ("tcp", "tcp6")
        for inode, where in _listening(Path("/proc/net") / table)
    }
    found = []
    for pid in _processes_of(session):
        command = (Path("/proc") / str(pid) / "cmdline").read_text().replace("\0", " ").strip()
        for inode in _inodes_of(pid) & sockets.keys():
            address, port = sockets[inode]
            found.append(Listener(address=address, port=port, pid=pid, command=command))
    return found


def _listening(table: Path) -> Iterator[tuple[str, tuple[str, int]]]:
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == _LISTEN:
            address, _, port = fields[1].partition(":")
            yield fields[9], (_readable(address), int(port, 16))


def _readable(address: str) -> str:
    """The kernel writes addresses as words of its own byte order."""
    words = [int(address[i : i + 8], 16) for i in range(0, len(address), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)


def _processes_of(session: int) -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            yield int(stat.parent.name)


def _inodes_of(pid: int) -> set[str]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(target[len("socket:[") : -1])
    return found
