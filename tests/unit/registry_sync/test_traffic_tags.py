"""Shares of traffic, as tags say them."""

import pytest

from registry_sync.traffic_tags import InvalidShare, Share, parse_share


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("challenger:10", Share(selector="challenger", percent=10.0)),
        (" challenger : 0.5 ", Share(selector="challenger", percent=0.5)),
        ("3:100", Share(selector="3", percent=100.0)),
        ("latest:0", Share(selector="latest", percent=0.0)),
    ],
)
def test_a_share_is_a_name_and_a_percentage(text: str, share: Share) -> None:
    """An alias, a number or `latest`, and from 0 to 100 of a hundred requests."""
    assert parse_share(text) == share


def test_a_percentage_may_be_left_out_where_there_is_a_default() -> None:
    """Then that is it; what is said wins over it."""
    assert parse_share("challenger", 100.0) == Share(selector="challenger", percent=100.0)
    assert parse_share("challenger:7", 100.0) == Share(selector="challenger", percent=7.0)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":10", "challenger", "challenger:", "challenger:ten", "challenger:101"),
        *("challenger:-1", "challenger:10%", "challenger:nan", "challenger:1e1", "a:b:10"),
        "challenger:٣",
    ],
)
def test_what_says_no_share_is_refused(text: str) -> None:
    """Rather than guessed at."""
    with pytest.raises(InvalidShare):
        parse_share(text)


@pytest.mark.parametrize("text", ["", "challenger:", "challenger:ten"])
def test_a_default_is_for_what_is_left_out_only(text: str) -> None:
    """A percentage that can't be read isn't replaced by it."""
    with pytest.raises(InvalidShare):
        parse_share(text, 100.0)
