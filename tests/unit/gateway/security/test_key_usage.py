"""What is asked with each key."""

from __future__ import annotations

import pytest

from gateway.errors import RateLimited
from gateway.security.api_keys import Key, entry_of, parse_keys
from gateway.security.key_usage import KeyUsage


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def key(rate: str | None, name: str = "k") -> Key:
    return parse_keys(entry_of(name, name, ["predict"], rate=rate)).key_of(name.encode())


def asked(usage: KeyUsage, of: Key, times: int) -> int:
    """How many of so many requests at once are taken."""
    taken = 0
    for _ in range(times):
        try:
            usage.note(of)
        except RateLimited:
            continue
        taken += 1
    return taken


def test_a_burst_is_taken_and_then_as_many_a_second_as_the_rate_says() -> None:
    """However long nobody asked before, never more than the burst at once."""
    clock = Clock()
    usage, bounded = KeyUsage(clock), key("2/5")
    assert asked(usage, bounded, 20) == 5
    clock.now += 1.0
    assert asked(usage, bounded, 20) == 2
    clock.now += 3600.0
    assert asked(usage, bounded, 20) == 5
    assert usage.requests == {"k": 60}
    assert usage.refused == {"k": 48}


def test_who_is_refused_is_told_when_to_come_again() -> None:
    """After that long the next one is taken, and not a moment sooner."""
    clock = Clock()
    usage, bounded = KeyUsage(clock), key("0.5")
    usage.note(bounded)
    with pytest.raises(RateLimited) as refused:
        usage.note(bounded)
    assert refused.value.retry_after_s == pytest.approx(2.0)
    clock.now += 1.9
    assert asked(usage, bounded, 1) == 0
    clock.now += 0.1
    assert asked(usage, bounded, 1) == 1


def test_keys_have_nothing_to_do_with_each_other() -> None:
    """A key without a rate is never refused, nor is one for what another asked."""
    usage = KeyUsage(Clock())
    assert asked(usage, key("1"), 10) == 1
    assert asked(usage, key(None, "free"), 1000) == 1000
    assert asked(usage, key("3", "other"), 10) == 3


def test_another_rate_counts_at_once() -> None:
    """As the keys file says it now."""
    usage = KeyUsage(Clock())
    assert asked(usage, key("1"), 10) == 1
    assert asked(usage, key("4"), 10) == 4


def test_what_was_asked_with_keys_that_are_gone_is_forgotten() -> None:
    """So there are never more names than keys."""
    usage = KeyUsage(Clock())
    usage.note(key("5"))
    usage.note(key(None, "stays"))
    usage.forget_all_but(["stays"])
    assert usage.requests == {"stays": 1}
