"""Where keys come from: settings, a file that changes; which hosts are the machine's own."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from deployments.api_key_source import Keys, is_loopback, keys_of
from deployments.settings import Settings
from gateway.errors import Unauthenticated
from gateway.security.api_keys import BadKeys, entry_of
from tests.support.processes import poll

ONE, TWO = entry_of("one", "1", ["read"]), entry_of("two", "2", ["admin"])


def names(keys: Keys) -> set[str]:
    """The names of the keys that let somebody in."""
    found = set()
    for secret in (b"1", b"2"):
        try:
            found.add(keys.keyring.key_of(secret).name)
        except Unauthenticated:
            continue
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(ONE)
    return path


def test_before_they_are_read_nobody_is_let_in(file: Path) -> None:
    """A gateway that hasn't seen its keys is closed, not open."""
    keys = Keys(text=None, file=file)
    assert names(keys) == set()
    keys.read()
    assert names(keys) == {"one"}


def test_a_file_that_changes_changes_the_keys(file: Path) -> None:
    """Written in place, replaced, or emptied: the next look takes it as it is."""
    keys = Keys(text=None, file=file)
    keys.look_again()
    file.write_text(f"{ONE}\n{TWO}")
    keys.look_again()
    assert names(keys) == {"one", "two"}
    file.with_name("new").write_text(TWO)
    file.with_name("new").replace(file)
    keys.look_again()
    assert names(keys) == {"two"}
    file.write_text("")
    keys.look_again()
    assert names(keys) == set()


def test_a_broken_file_keeps_the_last_good_keys_and_is_told_once(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No text, no key's line, not there: what was good stays, and nothing else gets in."""
    monkeypatch.setattr(logging.getLogger("deployments"), "propagate", True)
    keys = Keys(text=None, file=file)
    keys.look_again()
    for content in (b"a secret that is no line", b"\xff\xfe", None):
        caplog.clear()
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        for _ in range(3):
            keys.look_again()
        assert names(keys) == {"one"}
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "a secret" not in caplog.text
    file.write_text(TWO)
    keys.look_again()
    assert names(keys) == {"two"}


def test_a_file_that_was_never_good_lets_nobody_in(tmp_path: Path) -> None:
    """A replica that starts with a broken file is closed until it is mended."""
    keys = Keys(text=None, file=tmp_path / "keys")
    keys.look_again()
    assert names(keys) == set()
    with pytest.raises(BadKeys, match="can't be read"):
        keys.read()


async def test_who_answers_waits_for_the_first_good_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad file, which the log tells, is waited out; a good one, an empty one too, ends the wait,
    and nothing that comes later begins it again."""
    monkeypatch.setattr(logging.getLogger("deployments"), "propagate", True)
    monkeypatch.setattr("deployments.api_key_source._LOOK_EVERY_S", 0.001)
    file = tmp_path / "keys"
    file.write_text("a secret that is no line")
    keys = Keys(text=None, file=file)
    following = asyncio.create_task(keys.follow())
    waiting = asyncio.create_task(keys.wait_until_read())
    async with asyncio.timeout(10):
        await asyncio.to_thread(poll, lambda: "takes no requests until" in caplog.text)
        assert not waiting.done()
        file.write_text("")
        await waiting
        file.unlink()
        await keys.wait_until_read()
    following.cancel()


def test_settings_name_one_source() -> None:
    """A text or a file; none at all means that keys are off."""
    uri = "http://127.0.0.1:5000"
    assert keys_of(Settings(tracking_uri=uri)) is None
    keys = keys_of(Settings(tracking_uri=uri, keys=f"{ONE};{TWO}"))
    assert keys is not None
    keys.read()
    assert names(keys) == {"one", "two"}
    with pytest.raises(BadKeys):
        keys_of(Settings(tracking_uri=uri, keys=ONE, keys_file=Path("keys")))


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("localhost", True), ("::1", True),
        ("[::1]", True), ("0.0.0.0", False), ("::", False), ("192.0.2.7", False),
        ("", False), ("no.such.host.invalid", False),
    ],
)  # fmt: skip
def test_which_hosts_nobody_else_can_reach(host: str, own: bool) -> None:
    """The loopback by number or name; what can't be told counts as open to others."""
    assert is_loopback(host) is own
