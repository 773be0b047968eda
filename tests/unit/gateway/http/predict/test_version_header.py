"""`X-Model-Version` and Ray's header: what they name, and when they disagree."""

from __future__ import annotations

import pytest

from gateway.errors import ConflictingVersion
from gateway.http.predict.version_header import selector_of

OURS, RAYS = b"x-model-version", b"serve_multiplexed_model_id"


@pytest.mark.parametrize(
    ("value", "selector"),
    [
        (b"7", "7"),
        (b" champion ", "champion"),
        ("größe".encode(), "größe"),
        ("größe".encode("latin-1"), "größe"),
        ("日本".encode(), "日本"),
        (b"\xff\xfe", "ÿþ"),
        (b"", None),
        (b"  ", None),
    ],
)
def test_a_value_is_utf_8_or_else_latin_1(value: bytes, selector: str | None) -> None:
    """An alias of any script can be sent by clients of both kinds; no bytes are an error."""
    for name in (OURS, RAYS):
        assert selector_of([(b"accept", b"*/*"), (name, value)]) == selector


def test_one_version_may_be_named_twice_and_two_may_not() -> None:
    """Both headers may say the same, be it in two encodings; different values are refused."""
    given = [(OURS, "größe".encode()), (RAYS, "größe".encode("latin-1")), (OURS, b"")]
    assert selector_of(given) == "größe"
    with pytest.raises(ConflictingVersion):
        selector_of([*given, (RAYS, b"1")])
    assert selector_of([(b"accept", b"*/*")]) is None
