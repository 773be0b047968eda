"""`modelmux check --url`: would a version keep the contract that a gateway has in force."""

from __future__ import annotations

import httpx
import pytest

from deployments.cli.contract_in_force import check_in_force
from gateway.catalog import Catalog, HeldVersion
from gateway.http.views import describe_model
from registry_sync.contract_check import CannotTell
from tests.support.catalogs import BREAKING, LOOSER, PLAIN, catalog, served, signature, version

HELD = catalog(
    served(
        version(1),
        version(2, BREAKING),
        version(3, LOOSER),
        version(4, None, registry_status="PENDING_REGISTRATION"),
        default=1,
        aliases={"champion": 2, "next": 3},
        held=HeldVersion(number=2, reason="It would break."),
        earlier_contracts=(signature(("x", "double"), ("z", "long", False)),),
    )
)


def gateway(*catalogs: Catalog, sync: int = 200) -> httpx.Client:
    """A client of a gateway that knows the first catalog, and after each look the next one."""
    known = list(catalogs)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            if len(known) > 1:
                del known[0]
            return httpx.Response(sync)
        name = request.url.path.removeprefix("/models/")
        if name not in known[0].models:
            return httpx.Response(
                404, json={"status": 404, "code": "model_not_found", "detail": "No such model."}
            )
        return httpx.Response(200, json=describe_model(known[0], name).model_dump(mode="json"))

    return httpx.Client(base_url="http://gw:8000", transport=httpx.MockTransport(answer))


def test_a_held_version_is_compared_with_the_contract_in_force() -> None:
    """Though the alias names it already, it breaks what callers were promised, and is told so; and
    so does one that means something else by what an earlier contract took."""
    for asked in ("2", "champion"):
        result = check_in_force(gateway(HELD), "m", asked)
        assert (result.candidate, result.against, result.is_compatible) == (2, 1, False)
        assert result.in_force_at == "http://gw:8000"
    assert not check_in_force(gateway(HELD), "m", "next").is_compatible
    assert check_in_force(gateway(HELD), "m", "1").is_compatible


def test_the_latest_is_the_newest_ready_version() -> None:
    """A version that the registry is still taking in isn't it."""
    assert check_in_force(gateway(HELD), "m", "latest").candidate == 3


def test_a_version_that_the_gateway_has_not_seen_is_looked_for() -> None:
    """It is asked to look at the registry; that one may not ask for that is no matter."""
    after = catalog(served(version(1), version(5, PLAIN), default=1))
    for allowed in (200, 403):
        with gateway(catalog(served(version(1))), after, sync=allowed) as client:
            assert check_in_force(client, "m", "5").is_compatible


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("m", "4"), "PENDING_REGISTRATION"),
        (("m", "9"), "knows no version 9 of m"),
        (("m", "nobody"), "knows no version or alias nobody of m"),
        (("other", "1"), "404: No such model"),
    ],
)
def test_what_it_cannot_tell_is_said(asked: tuple[str, str], words: str) -> None:
    """Neither yes nor no where there is nothing to compare."""
    with pytest.raises(CannotTell, match=words):
        check_in_force(gateway(HELD), *asked, seen_within_s=0.0)


def test_a_gateway_that_is_away_cannot_tell() -> None:
    """No answer is no answer to the question."""

    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    client = httpx.Client(base_url="http://gw", transport=httpx.MockTransport(away))
    with pytest.raises(CannotTell, match="No answer from http://gw"):
        check_in_force(client, "m", "1")
