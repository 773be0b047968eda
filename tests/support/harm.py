"""Doing harm to a gateway that a test started: finding its processes by what they are, and ending
them as a crash would. Never touches a process outside of the gateway's own session."""

from __future__ import annotations

import os
import signal

from tests.support.processes import Gateway, poll
from tests.support.processes_of import command_of, processes_of

INGRESS = "ServeReplica:modelmux:Ingress"
SYNC_SERVICE = "ServeReplica:modelmux:SyncService"
CONTROLLER = "ServeController"
MODEL = "ServeReplica:modelmux-model-"
SHARED = "ServeReplica:modelmux-shared"


def processes_called(gateway: Gateway, part: str) -> list[int]:
    """The processes of a gateway that have `part` in their title, in the order of their ids."""
    session = gateway.process.pid
    return sorted(each for each in processes_of(session) if part in command_of(each))


def kill_one(gateway: Gateway, part: str, *, which: int = 0) -> int:
    """SIGKILL for one of the processes that have `part` in their title; its id."""
    found = poll(lambda: processes_called(gateway, part), what=f"a process called {part}")
    victim = found[which % len(found)]
    os.kill(victim, signal.SIGKILL)
    return victim


def wait_for_another(gateway: Gateway, part: str, *, count: int, besides: int) -> None:
    """Until `count` processes of that title are there, none of them the one that was killed."""
    poll(
        lambda: len(set(processes_called(gateway, part)) - {besides}) >= count,
        timeout_s=60,
        what=f"another process called {part}",
    )
