"""Ranges of ports, each for one gateway."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from deployments.cluster import port_ranges
from deployments.cluster.port_ranges import own_ports


@pytest.fixture
def three_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_ranges, "_HIGHEST_PORT", port_ranges._LOWEST_PORT + 300)


@pytest.mark.usefixtures("three_ranges")
def test_gateways_that_start_at_once_have_ports_of_their_own() -> None:
    """None is in two ranges, although nobody has bound one of them yet."""
    with ExitStack() as stack:
        ranges = [stack.enter_context(own_ports()) for _ in range(3)]
        assert all(len(ports) == 99 for ports in ranges)
        assert len({port for ports in ranges for port in ports}) == 3 * 99


@pytest.mark.usefixtures("three_ranges")
def test_a_range_is_free_again_afterwards() -> None:
    """It is held no longer than the block."""
    for _ in range(9):
        with own_ports() as ports:
            assert ports.start < port_ranges._HIGHEST_PORT


@pytest.mark.usefixtures("three_ranges")
@pytest.mark.parametrize("offset", [0, 98])
def test_a_range_that_somebody_else_is_in_is_left_to_them(offset: int) -> None:
    """Also where they know nothing of ranges."""
    first = port_ranges._LOWEST_PORT
    with socket.socket() as stranger, ExitStack() as stack:
        stranger.bind(("127.0.0.1", first + offset))
        ranges = [stack.enter_context(own_ports()) for _ in range(2)]
        assert first not in [ports.start for ports in ranges]
