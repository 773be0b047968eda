"""Responses that the servers in front send by themselves."""

from __future__ import annotations

import io
import json
from http.client import HTTPResponse
from typing import Any

import pytest

from gateway.http.server.canned_responses import front_door_refusals, malformed_request


class Line(io.BytesIO):
    """Bytes as a socket, for `HTTPResponse`."""

    def makefile(self, mode: str) -> Any:
        return self


@pytest.mark.parametrize("raw", [malformed_request(), *front_door_refusals().values()])
def test_a_refusal_is_a_whole_response_in_the_envelope(raw: bytes) -> None:
    """A client reads it to its end and finds a problem document of the response's status."""
    response = HTTPResponse(Line(raw))  # type: ignore[arg-type]
    response.begin()
    problem = json.loads(response.read())
    assert problem["status"] == response.status
    assert response.getheader("Content-Type") == "application/problem+json"
    assert response.getheader("Connection") == "close"
    assert (response.getheader("Retry-After") is not None) == (response.status == 503)
    assert (problem["instance"], problem["request_id"]) == ("", "")
