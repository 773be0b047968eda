"""Keys: how they are written down, found, and what each may do."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Forbidden, Unauthenticated
from gateway.security import api_keys as access
from gateway.security.api_keys import BadKeys, Key, Rate, Scope, entry_of, new_secret, parse_keys

SECRET = "mmx_" + "aB3x" * 10 + "aB3"  # pragma: allowlist secret
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


def key(*scopes: str) -> Key:
    """A key with these scopes, by way of its line."""
    return parse_keys(entry_of("k", SECRET, scopes)).key_of(SECRET.encode())


@pytest.mark.parametrize(
    ("scopes", "calls", "sees", "admin"),
    [
        (["predict"], {"a1", "a2", "b"}, {"a1", "a2", "b"}, False),
        (["predict:a*"], {"a1", "a2"}, {"a1", "a2"}, False),
        (["predict:a1", "predict:b"], {"a1", "b"}, {"a1", "b"}, False),
        (["predict:a1", "predict"], {"a1", "a2", "b"}, {"a1", "a2", "b"}, False),
        (["read"], set(), {"a1", "a2", "b"}, False),
        (["read", "predict:b"], {"b"}, {"a1", "a2", "b"}, False),
        (["admin"], {"a1", "a2", "b"}, {"a1", "a2", "b"}, True),
        (["admin", "predict:b"], {"a1", "a2", "b"}, {"a1", "a2", "b"}, True),
    ],
)
def test_scopes_say_what_a_key_may_do(
    scopes: list[str], calls: set[str], sees: set[str], admin: bool
) -> None:
    """`predict` calls and sees its models, `read` sees all, `admin` does everything."""
    made = key(*scopes)
    names = ("a1", "a2", "b")
    assert {name for name in names if made.may_call(name)} == calls
    assert {name for name in names if made.may_see(name)} == sees
    assert made.is_admin is admin


def test_globs_match_whole_names_and_their_case() -> None:
    """A glob is no prefix and no regular expression, and a name with a line break is another."""
    made = key("predict:a.b?")
    assert made.may_call("a.bc")
    for name in ("a.bcd", "xa.bc", "A.bc", "aXbc", "a.b", "a.bc\n"):
        assert not made.may_call(name), name


@given(st.text(min_size=1, max_size=20))
def test_a_glob_may_name_any_model(name: str) -> None:
    """Whatever characters a model's name has, a glob can be written that is it."""
    glob = "".join(f"[{c}]" if c in "*?[" else c for c in name)
    try:
        made = key(f"predict:{glob}")
    except UnicodeEncodeError:
        return  # a lone surrogate: no registry has such a name
    assert made.may_call(name)
    assert not made.may_call(name + "x")


def test_what_is_not_allowed_says_the_scope_that_is_missing() -> None:
    """403, with RFC 6750's challenge."""
    made = key("predict:a*")
    for ask, scope in (
        (lambda: made.require_call("b"), "predict"),
        (lambda: made.require_sight("b"), "read"),
        (made.require_admin, "admin"),
    ):
        with pytest.raises(Forbidden) as caught:
            ask()
        assert caught.value.challenge is not None
        assert f'error="insufficient_scope", scope="{scope}"' in caught.value.challenge
    made.require_call("a")
    made.require_sight("a")


def test_only_the_secret_itself_finds_its_key() -> None:
    """Neither a part of it nor the digest that the file holds is a key."""
    ring = parse_keys(entry_of("k", SECRET, ["read"]))
    assert ring.key_of(SECRET.encode()).name == "k"
    for wrong in (b"", SECRET[:-1].encode(), SECRET.upper().encode(), DIGEST.encode()):
        with pytest.raises(Unauthenticated) as caught:
            ring.key_of(wrong)
        assert caught.value.challenge == 'Bearer realm="modelmux", error="invalid_token"'


def test_a_secret_is_never_compared_but_by_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding a key asks for the SHA-256 of what was sent, once, whatever was sent: so its time
    can't tell how much of a secret was guessed."""
    ring = parse_keys(entry_of("k", SECRET, ["read"]))
    hashed: list[bytes] = []
    real = hashlib.sha256

    class Noting:
        @staticmethod
        def sha256(data: bytes) -> object:
            hashed.append(data)
            return real(data)

    monkeypatch.setattr(access, "hashlib", Noting)
    sent = [SECRET.encode(), SECRET[:-1].encode() + b"!", b"x"]
    for each in sent:
        try:
            ring.key_of(each)
        except Unauthenticated:
            continue
    assert hashed == sent
    assert SECRET.encode() not in ring._by_digest
    assert all(isinstance(digest, bytes) and len(digest) == 32 for digest in ring._by_digest)


def test_secrets_are_long_and_new_each_time() -> None:
    """256 bits in visible ASCII, with the prefix that scanners can look for."""
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(s.startswith("mmx_") and len(s) == 47 and s.isascii() for s in made)


def test_a_line_does_not_hold_the_secret() -> None:
    """What goes into the file gives nothing away, and neither does a key that is printed."""
    line = entry_of("shop", SECRET, ["predict:my model", "read"])
    assert line == f"shop sha256:{DIGEST} predict:my%20model,read"
    assert SECRET not in line
    assert DIGEST not in repr(key("read"))


def test_empty_lines_comments_and_semicolons_are_fine() -> None:
    """A variable has semicolons where a file has lines."""
    one, two = entry_of("one", "s1", ["read"]), entry_of("two", "s2", ["admin"])
    text = f"# keys\n\n  {one}  # since May\n#{two};{two};"
    ring = parse_keys(text)
    assert len(ring) == 2
    assert ring.key_of(b"s2").scopes == {Scope.ADMIN}
    assert len(parse_keys(" \n # nothing\n")) == 0


@pytest.mark.parametrize(
    "line",
    [
        "name",
        "name sha256:00 read",
        f"name {DIGEST} read",
        f"name sha256:{DIGEST}",
        f"name sha256:{DIGEST} read predict",
        f"name sha256:{DIGEST} write",
        f"name sha256:{DIGEST} read:a",
        f"name sha256:{DIGEST} predict:",
        f"name sha256:{DIGEST} read,",
        f"na/me sha256:{DIGEST} read",
        f"name sha256:{DIGEST.upper()} read",
        f"name {SECRET} read",
        f"name sha256:{DIGEST} read rate=0",
        f"name sha256:{DIGEST} read rate=5/0",
        f"name sha256:{DIGEST} read rate=-1",
        f"name sha256:{DIGEST} read {SECRET}",
        f"name sha256:{DIGEST} read rate=5 rate=6",
    ],
)
def test_a_line_that_is_none_is_refused_without_repeating_it(line: str) -> None:
    """The line's number and what is expected, but nothing of what is there: it may be a secret."""
    with pytest.raises(BadKeys) as caught:
        parse_keys(f"{entry_of('first', 'x', ['read'])}\n{line}")
    assert str(caught.value).startswith("line 2: ")
    assert SECRET not in str(caught.value)
    assert DIGEST not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "rate"),
    [(None, None), ("5", Rate(5.0, 5)), ("0.5", Rate(0.5, 1)), ("2.5/40", Rate(2.5, 40))],
)
def test_a_key_may_have_a_rate(written: str | None, rate: Rate | None) -> None:
    """Requests a second, and how many of them at once: as many as a second has, if not said."""
    ring = parse_keys(entry_of("k", "s", ["read"], rate=written))
    assert ring.key_of(b"s").rate == rate
    assert ring.names == ["k"]


def test_names_and_secrets_come_once() -> None:
    """Two lines for one key would be two answers to one question."""
    for other in (entry_of("k", "another", ["read"]), entry_of("other", SECRET, ["read"])):
        with pytest.raises(BadKeys, match="line 2"):
            parse_keys(f"{entry_of('k', SECRET, ['read'])}\n{other}")


@pytest.mark.parametrize(
    ("name", "scope", "rate", "told"),
    [
        ("a b", "read", None, "a name has letters"),
        ("#shop", "read", None, "a name has letters"),
        ("", "read", None, "a name has letters"),
        ("shop", "all", None, "a scope is"),
        ("shop", "read", "fast", "a rate is"),
        ("shop", "read", "5 #", "a rate is"),
    ],
)
def test_a_key_that_can_be_none_is_told_by_what_is_wrong(
    name: str, scope: str, rate: str | None, told: str
) -> None:
    """Without the number of a line that nobody has written."""
    with pytest.raises(BadKeys, match=f"^{told}"):
        entry_of(name, SECRET, [scope], rate=rate)
