"""Bad requests over real sockets: always a refusal in time, never a 5xx, never a hang, and the service goes on."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.platform import Platform
from tests.integration.http_corpus import BODIES, CORPUS

SECONDS = 15.0
ROUTES = {"recommender": "/v1/recommendations", "collector": "/v1/events", "shop": "/cart",
          "feature_server": "/v1/features"}
POST = b"POST {route} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
RAW = {
    "not HTTP": b"hello\r\n\r\n",
    "TLS": bytes.fromhex("1603010200010001fc0303") + b"\x00" * 64,
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a length of letters": POST + b"Content-Length: many\r\n\r\n",
    "length and chunks": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "bad chunks": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a huge header": GET + b"X-Long: " + b"a" * 200_000 + b"\r\n\r\n",
    "a huge path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "control characters in a header": GET + b"X-Request-ID: a\x01b\r\n\r\n",
    "a body that stops": POST + b"Content-Length: 500\r\n\r\n{",
}


@pytest.fixture(params=list(ROUTES))
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_corpus_over_sockets(platform: Platform, service: str) -> None:
    for bad in CORPUS[service]:
        answer = platform.http.request(
            bad.method, platform.settings.url(service) + bad.path, content=bad.body, headers=dict(bad.headers)
        )
        assert 400 <= answer.status_code < 500, f"{bad}: {answer.status_code}"
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"]


@pytest.mark.parametrize("route", ["recommender", "collector", "feature_server"])
def test_bodies_over_sockets(platform: Platform, route: str) -> None:
    url = platform.settings.url(route) + ROUTES[route]
    for name, body in BODIES.items():
        answer = platform.http.post(url, content=body, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500, f"{name}: {answer.status_code}"
        assert answer.json()["status"] == answer.status_code


@pytest.mark.parametrize("name", list(RAW))
def test_raw_bytes_end_in_time(platform: Platform, name: str) -> None:
    with ThreadPoolExecutor(len(ROUTES)) as pool:  # a time-out of ten seconds is waited for once
        list(pool.map(lambda service: ends_in_time(platform, service, name), ROUTES))


def ends_in_time(platform: Platform, service: str, name: str) -> None:
    payload = RAW[name].replace(b"{route}", ROUTES[service].encode())
    began = time.monotonic()
    with socket.create_connection((platform.settings.host, platform.settings.port(service)), timeout=SECONDS) as raw:
        try:
            raw.sendall(payload)
            first = raw.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            first = b""
    assert time.monotonic() - began < SECONDS
    assert not first.startswith(b"HTTP/1.1 5"), first[:200]
    assert platform.http.get(f"{platform.settings.url(service)}/livez").status_code == 200
