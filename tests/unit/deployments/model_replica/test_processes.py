"""What a supervisor hears of its processes and their templates; no process is started here."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, cast

import pytest

from deployments.model_replica.output_lines import OutputLines
from deployments.model_replica.processes import Process, Processes, Template

SOON_S = 0.5
"""Less than a status is waited for."""


class Guard:
    """One that still waits for somebody's end."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()

    async def wait(self) -> None:
        await self.let_go.wait()


async def test_who_loses_its_template_is_known_before_all_of_it_are_gone() -> None:
    """A process that ends soon isn't taken for one that ended by itself, and nobody waits for its
    status, while another, which has much memory to give back, is still there."""
    template = Template(sys.executable, {})
    process = Process(lambda _: None, OutputLines("small", {}))
    process.started(1, template)
    process.connected(cast(Any, None))
    template._processes[1] = process
    reader, guard = asyncio.StreamReader(), Guard()
    following = asyncio.create_task(template._follow(reader, cast(Any, guard)))
    reader.feed_eof()
    async with asyncio.timeout(SOON_S):
        await process.hung_up()
    assert process.ended.done()
    assert process.lost_template
    guard.let_go.set()
    await following


@pytest.mark.parametrize("steps", range(5))
async def test_who_asks_first_may_leave(steps: int) -> None:
    """Whenever that is, the next one finds the place where processes report, or makes it."""
    processes = Processes()
    first = asyncio.create_task(processes._have_listener())
    for _ in range(steps):
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await processes._have_listener()
    assert processes._listener is not None
    processes.abandon()
