"""What may be shown of lines with credentials."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.masking import credentials_in, masked, shown


def test_credentials_of_urls_are_masked_wherever_they_stand() -> None:
    """Users, passwords and queries of URLs aren't shown; hashes and names in them are."""
    text = (
        "error: https://user:pa55word@h.example/simple/x?sig=abc&se=1 failed, "  # pragma: allowlist secret  # noqa: E501
        "git+ssh://git@h/r#egg=x, see https://h/f.whl#sha256=00ff"
    )
    assert masked(text) == (
        "error: https://***@h.example/simple/x?sig=***&se=*** failed, "
        "git+ssh://***@h/r#egg=x, see https://h/f.whl#sha256=00ff"
    )


def test_a_known_secret_is_masked_outside_urls_too() -> None:
    """A tool may repeat a password, as it was written or as it is meant."""
    secrets = credentials_in(["--index-url https://u:p%40ssword@h/s", "https://tokentoken@h"])
    assert masked("used p@ssword, p%40ssword and tokentoken", secrets) == "used ***, *** and ***"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("--index-url someone:pa55word@h/simple", "--index-url ***@h/simple"),
        ("-i https:/someone:pa55word@h/simple", "-i ***@h/simple"),
        ("https:someone:pa55word@h", "***@h"),
        ("x" * 5000 + "https://someone:pa55word@h", "…"),  # pragma: allowlist secret
        ("error " + "https://" + "a" * 5000 + "@h", "error …"),
        ("git@h:r is what foo@1.0 @ 10:30 means: b @ c", None),
    ],
)
def test_what_is_to_be_a_url_and_is_none_is_masked_too(text: str, told: str | None) -> None:
    """A typing error shows no password, nor does a line that is cut."""
    assert shown(text) == (told or text)


@pytest.mark.parametrize("piece", ["a", "?", "?a", "://", "a:", "a@", " ", "[", "x://a?", "=", ";"])
@pytest.mark.timeout(20)
def test_no_text_takes_long(piece: str) -> None:
    """Tools say what they like."""
    assert masked(piece * 300_000) or piece == " "


def test_control_characters_and_colours_are_left_out() -> None:
    """What is shown on a terminal or a page can't control it."""
    assert shown("\x1b[31merror\x1b[0m: no\x07 \x9b space") == "error: no  space"


@given(st.text(max_size=800))
def test_a_line_is_bounded_and_one_line(text: str) -> None:
    """Whatever is given, one bounded line comes of it."""
    line = shown(text)
    assert len(line) <= 300
    assert "\n" not in line
    assert "\x1b" not in line


@given(st.from_regex(r"[A-Za-z0-9%._~-]{6,20}", fullmatch=True))
def test_a_password_is_never_shown(password: str) -> None:
    """Whatever the password, the masked URL hasn't got it."""
    assert password not in masked(f"x https://someone:{password}@host/simple y")
