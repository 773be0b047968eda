"""What may be shown of lines with credentials."""

from __future__ import annotations

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
