"""What modules of these tests have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.supervised import zygote_of_a_replica


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """The machine's zygote, as replicas have one: templates don't import for themselves."""
    with zygote_of_a_replica() as address:
        yield address
