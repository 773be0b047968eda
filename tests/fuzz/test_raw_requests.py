"""What is no request, hardly one, or two at once: each is answered in the envelope, and the next
caller notices nothing."""

from __future__ import annotations

import gzip
import json
import random
import time

import pytest

from tests.fuzz.conftest import SECONDS, SEED
from tests.support.processes import Gateway
from tests.support.raw_requests import Answer, answers_to, request

PATH = b"POST /models/versions/predict HTTP/1.1"
JSON = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"
GOOD = b'{"x":1}'
ONE_CHUNK = b"7\r\n" + GOOD + b"\r\n0\r\n\r\n"


def lines(*head: bytes, body: bytes = b"") -> bytes:
    """A request of exactly these lines."""
    return b"\r\n".join((*head, b"", b"")) + body


def framed(*headers: bytes, body: bytes = b"") -> bytes:
    """A prediction whose headers say how long it is."""
    return lines(PATH, b"Host: gateway", JSON, *headers, body=body)


def path(target: bytes) -> bytes:
    return request(target=target)


PROBLEMS: dict[str, tuple[bytes, str]] = {
    "slash in a name": (path(b"/models/a%2Fb/predict"), "route_not_found"),
    "two slashes": (path(b"//models//versions/predict"), "route_not_found"),
    "no name": (path(b"/models//predict"), "route_not_found"),
    "two slashes at the end": (path(b"/models/versions/predict//"), "route_not_found"),
    "way up": (path(b"/models/../../etc/passwd/predict"), "route_not_found"),
    "way up, encoded": (path(b"/models/%2e%2e%2f%2e%2e/predict"), "route_not_found"),
    "way around": (path(b"/models/../models/versions/predict"), "route_not_found"),
    "dots": (path(b"/models/%2e%2e/predict"), "model_not_found"),
    "NUL in a name": (path(b"/models/versions%00/predict"), "model_not_found"),
    "line end in a name": (path(b"/models/a%0d%0aX-A:%20b/predict"), "model_not_found"),
    "overlong UTF-8": (path(b"/models/%c0%ae%c0%ae/predict"), "model_not_found"),
    "no UTF-8": (path(b"/models/%ff%fe/predict"), "model_not_found"),
    "half a character": (path(b"/models/%ed%a0%80/predict"), "model_not_found"),
    "bad percent sign": (path(b"/models/%zz/predict"), "model_not_found"),
    "twice encoded": (path(b"/models/%2576ersions/predict"), "model_not_found"),
    "8,000 characters": (path(b"/models/" + b"a" * 8000 + b"/predict"), "model_not_found"),
    "other case": (path(b"/models/VERSIONS/predict"), "model_not_found"),
    "parameters in the path": (path(b"/models/versions;v=1/predict"), "model_not_found"),
    "assets, way up": (
        request(method=b"GET", target=b"/docs/assets/..%2f..%2fapp.py", body=None),
        "route_not_found",
    ),
    "assets, NUL": (
        request(method=b"GET", target=b"/docs/assets/a%00", body=None), "route_not_found"
    ),
    "assets, no UTF-8": (
        request(method=b"GET", target=b"/docs/assets/%ff", body=None), "route_not_found"
    ),
    "two versions": (
        request(b"X-Model-Version: 1", b"X-Model-Version: 2"), "conflicting_version"
    ),
    "Ray's version and ours": (
        request(b"X-Model-Version: 1", b"Serve-Multiplexed-Model-Id: 2"), "conflicting_version"
    ),
    **{
        f"version {text!r}": (request(b"X-Model-Version: " + text), "version_not_found")
        for text in (b"0", b"01", b"-1", b"+1", b"1.0", b"1, 1", b"1" + b"0" * 100, b"9" * 9000,
                     b"\xd9\xa1", b"\xb2", b"\xff", b"1_0", b"0x1", b"%31")
    },
    "Ray's version, no UTF-8": (request(b"serve_multiplexed_model_id: \xff"), "version_not_found"),
    "control character in a version": (request(b"X-Model-Version: 1\x01"), "malformed_request"),
    "control character in a header": (request(b"X-A: \x01\x02"), "malformed_request"),
    "unknown method": (request(method=b"FOO"), "malformed_request"),
    "method in small letters": (request(method=b"post"), "malformed_request"),
    "long method": (request(method=b"A" * 3000), "malformed_request"),
    "compressed by nobody's coding": (
        request(b"Content-Encoding: compress", body=gzip.compress(GOOD)), "unsupported_media_type"
    ),
    "not compressed": (request(b"Content-Encoding: gzip", body=GOOD), "malformed_body"),
    "no media type": (request(json=False), "unsupported_media_type"),
    "media type, no text": (request(b"Content-Type: \xff", json=False), "unsupported_media_type"),
    "UTF-16": (request(body='{"x":1}'.encode("utf-16")), "malformed_json"),
    "two byte order marks": (request(body=b"\xef\xbb\xbf" * 2 + GOOD), "malformed_json"),
    "empty body": (request(body=b""), "malformed_json"),
    "no body": (request(JSON, body=None), "malformed_json"),
    "a million lists": (request(body=b"[" * 10**6), "malformed_json"),
    "a million objects": (
        request(body=b"[" + b",".join([b"{}"] * 10**6) + b"]"),
        "payload_too_large",
    ),
    "beyond a double": (request(body=b'{"x":1e400}'), "invalid_input"),
    "declared too large": (framed(b"Content-Length: 999999999999"), "payload_too_large"),
    "WebSocket": (
        request(
            b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", method=b"GET", body=None,
        ),
        "method_not_allowed",
    ),
    "asterisk": (request(method=b"OPTIONS", target=b"*", body=None), "route_not_found"),
    "tunnel to a path": (
        request(method=b"CONNECT", target=b"/models", body=None), "method_not_allowed"
    ),
    "WebSocket without a key": (
        request(b"Connection: Upgrade", b"Upgrade: websocket", method=b"GET", body=None),
        "method_not_allowed",
    ),
    "WebSocket of no version": (
        request(
            b"Connection: Upgrade", b"Upgrade: websocket",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", method=b"GET", body=None,
        ),
        "method_not_allowed",
    ),
}  # fmt: skip

ANSWERED: dict[str, bytes] = {
    "absolute target": path(b"http://gateway/models/versions/predict"),
    "query": path(b"/models/versions/predict?x=/../"),
    "encoded letters": path(b"/models/%76ersions/predict"),
    "chunks": framed(CHUNKED, body=b'3\r\n{"x\r\n4;a=b\r\n":1}\r\n0\r\nX-T: 1\r\n\r\n'),
    "other host in the target": path(b"http://other/models/versions/predict"),
    "line ends before": b"\r\n\r\n" + request(),
    "header of 12 kB": request(b"X-A: " + b"a" * 12_000),
    "no UTF-8 in a header": request(b"X-A: \xff\xfe"),
    "no UTF-8 in Ray's": request(b"X-Request-Timeout-Seconds: \xff", b"X-Session-Id: \xff"),
    "one version twice": request(b"X-Model-Version: 1", b"X-Model-Version: 1"),
    "no version": request(b"X-Model-Version:"),
    "UTF-8 in headers": request(
        *(name + ": 日本".encode() for name in (b"X-Request-ID", b"traceparent", b"Authorization",
                                               b"Accept", b"Cookie", b"If-None-Match"))
    ),
    "alias beyond Latin-1": request("X-Model-Version: 日本".encode()),
    "alias in Latin-1": request("X-Model-Version: größe".encode("latin-1")),
    "expectation": request(b"Expect: 200-nonsense"),
    "upgrade to HTTP/2": request(b"Connection: Upgrade", b"Upgrade: h2c"),
    "HTTP/1.0": lines(b"POST /models/versions/predict HTTP/1.0", JSON, b"Content-Length: 7",
                      body=GOOD),
}  # fmt: skip

NOT_HTTP: dict[str, bytes] = {
    "length and chunks": framed(b"Content-Length: 4", CHUNKED, body=ONE_CHUNK),
    "one length twice": framed(b"Content-Length: 7", b"Content-Length: 7", body=GOOD),
    "folded header": request(b"X-A: b\r\n  folded: c"),
    "two lengths": framed(b"Content-Length: 7", b"Content-Length: 3", body=GOOD),
    **{
        f"length {length!r}": framed(b"Content-Length: " + length, body=GOOD)
        for length in (b"", b"-1", b"+7", b"0x7", b"abc", b"7 7", b"9" * 24)
    },
    **{
        f"chunk of {size!r}": framed(CHUNKED, body=size + b"\r\n" + GOOD + b"\r\n0\r\n\r\n")
        for size in (b"zz", b"-1", b"F" * 17, b"3", b"")
    },
    "other coding": framed(b"Transfer-Encoding: xchunked", body=ONE_CHUNK),
    "space before the colon": framed(b"Transfer-Encoding : chunked", body=ONE_CHUNK),
    "header without a colon": request(b"nocolon"),
    "header without a name": request(b": b"),
    "space in a header's name": request(b"X A: b"),
    "NUL in a header": request(b"X-A: b\0c"),
    "CR in a header": request(b"X-A: b\rX-B: c"),
    "two hosts": request(b"Host: other"),
    "no host": lines(b"GET /models HTTP/1.1"),
    "fragment": path(b"/models/versions/predict#a"),
    "NUL in the path": path(b"/models/a\0b/predict"),
    "UTF-8 in the path": path("/models/Größe/predict".encode()),
    "70,000 characters": path(b"/models/" + b"a" * 70_000 + b"/predict"),
    "header of 64 kB": request(b"X-A: " + b"a" * 65_536),
    "10,000 headers": request(*(b"X-%d: a" % n for n in range(10_000))),
    "tunnel to a host": request(method=b"CONNECT", target=b"gateway:80", body=None),
    "relative target": path(b"models/versions/predict"),
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "TLS": bytes.fromhex("16030100a5010000a10303") + b"\0" * 100,
    "binary": b"\x00\x01\x02\x03\r\n\r\n",
    "words": b"hello there\r\n\r\n",
}

NO_REQUEST = ("malformed_request", "head_too_large")

METHODS = (b"HEAD", b"OPTIONS", b"TRACE", b"PATCH", b"PUT", b"DELETE", b"GET", b"POST")
TARGETS = (
    b"/", b"/models", b"/models/versions", b"/models/versions/predict", b"/openapi.json",
    b"/models/versions/openapi.json", b"/docs", b"/docs/assets/favicon.svg", b"/healthz",
    b"/readyz", b"/registry/sync", b"/nope",
)  # fmt: skip


def the_answer(gateway: Gateway, sent: bytes) -> Answer:
    """The one answer to what was sent, as a single word of it is enough to say."""
    (answer,) = answers_to(gateway.url, sent)
    return answer


def problem_of(answer: Answer) -> dict[str, object]:
    """The problem document, which agrees with the response that it came in."""
    assert answer.header("content-type") == "application/problem+json", answer
    problem: dict[str, object] = json.loads(answer.body)
    assert problem["status"] == answer.status
    if problem["code"] not in NO_REQUEST:  # which has no id
        assert problem["request_id"] == answer.header("x-request-id")
    return problem


def serves_on(gateway: Gateway) -> bool:
    return the_answer(gateway, request()).body == b'[{"x":1.0}]'


@pytest.mark.parametrize(("sent", "code"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_can_t_be_served_is_a_problem_document(
    fuzzed: Gateway, sent: bytes, code: str
) -> None:
    """What is HTTP is answered in the envelope, with the code that tells what is wrong."""
    assert problem_of(the_answer(fuzzed, sent))["code"] == code
    assert serves_on(fuzzed)


@pytest.mark.parametrize("sent", ANSWERED.values(), ids=ANSWERED)
def test_what_is_odd_but_clear_is_answered(fuzzed: Gateway, sent: bytes) -> None:
    """What can be read in one way only is a request like any other."""
    answer = the_answer(fuzzed, sent)
    assert (answer.status, answer.body) == (200, b'[{"x":1.0}]')


@pytest.mark.parametrize("sent", NOT_HTTP.values(), ids=NOT_HTTP)
def test_what_is_not_http_ends_its_connection(fuzzed: Gateway, sent: bytes) -> None:
    """What can't be parsed, or what two servers could read differently, is refused in the envelope,
    and the connection closed: what follows on it is never taken for a request."""
    (answer,) = answers_to(fuzzed.url, sent + request(), expected=2)
    assert problem_of(answer)["code"] in NO_REQUEST
    assert answer.header("connection") == "close"
    assert serves_on(fuzzed)


def test_a_hidden_request_is_not_answered(fuzzed: Gateway) -> None:
    """Behind a request with a length and chunks another one is hidden: its bytes are dropped with
    the connection."""
    hidden = request(method=b"GET", target=b"/models", body=None)
    sent = framed(b"Content-Length: 4", CHUNKED, body=ONE_CHUNK + hidden)
    assert len(answers_to(fuzzed.url, sent, expected=2)) == 1


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_every_route(fuzzed: Gateway, method: bytes, target: bytes) -> None:
    """Done, or refused in the envelope; never a 5xx."""
    sent = request(method=method, target=target, body=None)
    (answer,) = answers_to(fuzzed.url, sent, head=method == b"HEAD")
    if answer.status >= 400:
        assert answer.status in (400, 404, 405, 415)
        assert answer.header("content-type") == "application/problem+json"
        assert (answer.header("allow") != "") == (answer.status == 405)


@pytest.mark.parametrize(
    "accept",
    [b"text/plain;version=latest", b"application/openmetrics-text; version=abc", b"\xff", b";=,"],
)
def test_metrics_are_told_in_some_format_whatever_is_asked_for(
    fuzzed: Gateway, accept: bytes
) -> None:
    """An `Accept` header is never an error."""
    sent = request(b"Accept: " + accept, method=b"GET", target=b"/metrics", body=None)
    answer = the_answer(fuzzed, sent)
    assert (answer.status, answer.header("content-type")[:10]) == (200, "text/plain")


@pytest.mark.parametrize(
    "given", [b"", b"a b", b"a" * 129, b"a" * 10_000, b"\xff", b"a%0d%0aX-A: b"]
)
def test_an_unusable_request_id_is_replaced_everywhere(fuzzed: Gateway, given: bytes) -> None:
    """Header and body tell the same new id; what was sent is nowhere in the answer."""
    sent = request(b"X-Request-ID: " + given, target=b"/models/nope/predict")
    answer = the_answer(fuzzed, sent)
    assert problem_of(answer)["request_id"] == answer.header("x-request-id")
    assert len(answer.header("x-request-id")) == 32


SEEDS = [
    *ANSWERED.values(),
    *(sent for sent, _ in PROBLEMS.values() if len(sent) < 20_000),
    request(method=b"GET", target=b"/models", body=None),
    request(method=b"GET", target=b"/openapi.json", body=None),
    request(b"Accept: text/plain;version=1.0.0", method=b"GET", target=b"/metrics", body=None),
]
PIECES = [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"/", b"//", b"..", b"%",
          b"%00", b"%2f", b"\xff", b"\xc3\xa4", b"HTTP/1.1", b"Host: a\r\n", CHUNKED + b"\r\n",
          b"Content-Length: 7\r\n", b"0\r\n\r\n", b"-", b"9" * 30, b"A" * 20_000]  # fmt: skip


def damaged(chance: random.Random) -> bytes:
    """One of the seeds with a few bytes put in, taken out or repeated."""
    sent = chance.choice(SEEDS)
    for _ in range(chance.randint(1, 3)):
        start = chance.randrange(len(sent))
        end = min(len(sent), start + chance.choice((0, 0, 1, 8)))
        middle = chance.choice(
            (b"", sent[start:end] * 2, chance.choice(PIECES), chance.randbytes(2))
        )
        sent = sent[:start] + middle + sent[end:]
    return sent


def test_damaged_requests_are_answered_in_one_of_the_known_ways(fuzzed: Gateway) -> None:
    """Requests with bytes changed by chance: no 5xx, and no refusal but in the envelope. What is
    cut short is waited for, so that the caller ends it."""
    chance = random.Random(SEED)
    ends_at = time.monotonic() + SECONDS
    while time.monotonic() < ends_at:
        sent = damaged(chance)
        for answer in answers_to(fuzzed.url, sent, complete=True):
            assert answer.status < 500, (SEED, sent, answer)
            if answer.status >= 400 and answer.body:
                problem_of(answer)
    assert serves_on(fuzzed)
