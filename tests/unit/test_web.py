"""The HTTP edge: every refusal is a problem document that names the field and what is allowed; nothing leaks."""

from __future__ import annotations

import asyncio
import inspect
import json
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator

import httpx
import pytest
import structlog
from fastapi import APIRouter, FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from adapters import http_guard, web
from adapters.errors import BadInput, Misconfigured, NotFound, Overloaded, Unavailable
from adapters.http_guard import BadBody, check_json, uuid7


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")
    user_id: str = Field(pattern="^[a-z0-9]+$", max_length=8)
    k: int = Field(20, ge=1, le=100, strict=True)


def build(waiting: dict[str, str] | None = None) -> FastAPI:
    app = web.create_app("toy", title="Toy", ready=lambda: waiting or {}, body_limit=2000)
    router = APIRouter(prefix="/v1")

    @router.post("/orders")
    async def orders(order: Order, request: Request) -> dict[str, object]:
        return {"k": order.k, "request_id": web.request_id(request)}

    @router.get("/fail/{how}")
    async def fail(how: str) -> None:
        raise {
            "bad": BadInput("colour must be red or blue", field="colour"),
            "none": NotFound("no decision x"),
            "away": Unavailable("Redis did not answer"),
            "busy": Overloaded("queue full", retry_after_s=3),
            "ours": Misconfigured("secret path /etc/x"),
        }.get(how, RuntimeError("secret-password"))

    app.include_router(router)
    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(build())
    async with httpx.AsyncClient(transport=transport, base_url="http://toy") as c:
        yield c


def check_problem(answer: httpx.Response, status: int) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert {"type", "title", "status", "detail", "request_id"} <= body.keys()
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    return dict(body)


async def test_a_good_request_passes_and_carries_its_id(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/orders", json={"user_id": "ab", "k": 3}, headers={"X-Request-ID": "r-1"})
    assert answer.json() == {"k": 3, "request_id": "r-1"}
    assert answer.headers["x-request-id"] == "r-1"
    other = await client.post("/v1/orders", json={"user_id": "ab"}, headers={"X-Request-ID": "bad id\x7f"})
    assert uuid.UUID(other.headers["x-request-id"]).version == 7


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({"user_id": "ab", "k": 0}, "k", "minimum 1, maximum 100"),
        ({"user_id": "ab", "k": 10**9}, "k", "maximum 100"),
        ({"user_id": "ab", "k": "3"}, "k", "integer"),
        ({"k": 3}, "user_id", "required"),
        ({"user_id": "ab", "x": 1}, "x", "fields: user_id, k"),
        ({"user_id": "A\x00"}, "user_id", "pattern"),
    ],
)
async def test_invalid_fields_are_named_with_what_is_allowed(
    client: httpx.AsyncClient, body: dict[str, object], field: str, says: str
) -> None:
    errors = check_problem(await client.post("/v1/orders", json=body), 422)["errors"]
    assert isinstance(errors, list)
    assert errors[0]["field"] == field
    assert says in errors[0]["allowed"].lower()


@pytest.mark.parametrize(
    "body",
    [
        b'{"user_id": NaN}',
        b'{"k": Infinity}',
        b'{"k": 1e999}',
        b'{"k": 1, "k": 2}',
        b"{",
        b"\xff\xfe",
        b"",
        b'{"user_id": "\\ud800"}',
        b"[" * 100 + b"]" * 100,
        b'{"k": ' + b"9" * 1900 + b"x}",
    ],
)
async def test_what_is_no_strict_json_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/v1/orders", content=body, headers={"Content-Type": "application/json"})
    check_problem(answer, 422 if body == b"" else 400)


async def test_large_bodies_are_refused_also_when_chunked(client: httpx.AsyncClient) -> None:
    json_type = {"Content-Type": "application/json"}
    check_problem(await client.post("/v1/orders", content=b"x" * 3000, headers=json_type), 413)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 100

    headers = {**json_type, "Transfer-Encoding": "chunked"}
    check_problem(await client.post("/v1/orders", content=chunks(), headers=headers), 413)


async def test_a_body_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch, client: httpx.AsyncClient) -> None:
    monkeypatch.setattr(http_guard, "BODY_SECONDS", 0.05)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(5)

    headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    check_problem(await client.post("/v1/orders", content=slow(), headers=headers), 408)


async def test_routes_methods_and_types(client: httpx.AsyncClient) -> None:
    check_problem(await client.get("/nowhere"), 404)
    assert "POST" in str(check_problem(await client.get("/v1/orders"), 405)["detail"])
    check_problem(await client.post("/v1/orders", content=b"{}", headers={"Content-Type": "text/plain"}), 415)
    check_problem(await client.post("/nowhere", content=b"{}", headers={"Content-Type": "text/plain"}), 404)


async def test_the_error_family_becomes_problems_and_nothing_leaks(client: httpx.AsyncClient) -> None:
    bad = check_problem(await client.get("/v1/fail/bad"), 422)
    assert bad["errors"] == [{"field": "colour", "allowed": "colour must be red or blue"}]
    check_problem(await client.get("/v1/fail/none"), 404)
    away = await client.get("/v1/fail/away")
    check_problem(away, 503)
    assert away.headers["retry-after"] == "1"
    busy = await client.get("/v1/fail/busy")
    check_problem(busy, 429)
    assert busy.headers["retry-after"] == "3"
    for how in ("ours", "unexpected"):
        with structlog.testing.capture_logs():
            answer = await client.get(f"/v1/fail/{how}")
        assert "secret" not in json.dumps(check_problem(answer, 500))


async def test_probes_and_metrics_by_route_template(client: httpx.AsyncClient) -> None:
    assert (await client.get("/livez")).json()["status"] == "alive"
    assert (await client.get("/readyz")).json()["status"] == "ready"
    await client.get("/v1/fail/none")
    text = (await client.get("/metrics")).text
    assert 'minimart_http_requests_total{method="GET",route="/v1/fail/{how}",service="toy",status="404"}' in text
    assert "fail/none" not in text


async def test_the_docs_page_lists_the_routes(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    assert "/v1/orders" in page
    assert "user_id" in page
    assert "<script" not in page


async def test_not_ready_names_the_part() -> None:
    transport = httpx.ASGITransport(build({"redis": "no answer"}))
    async with httpx.AsyncClient(transport=transport, base_url="http://toy") as c:
        assert check_problem(await c.get("/readyz"), 503)["errors"] == [{"field": "redis", "value": "no answer"}]
        assert (await c.get("/livez")).status_code == 200


async def test_notes_are_shown_without_being_unready() -> None:
    app = web.create_app("toy", title="Toy", ready=dict, notes=lambda: {"ranker": "version 4 refused: digest"})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://toy") as c:
        answer = await c.get("/readyz")
    assert (answer.status_code, answer.json()["notes"]) == (200, {"ranker": "version 4 refused: digest"})


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_all_strict_json_is_accepted(value: object) -> None:
    check_json(json.dumps(value).encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_accepted_or_refused(body: bytes) -> None:
    try:
        check_json(body)
    except BadBody as refused:
        assert refused.status == 400  # noqa: PT017


def test_uuid7_is_valid_and_sorts_by_time() -> None:
    first, second = uuid.UUID(uuid7()), uuid.UUID(uuid7())
    assert first.version == 7
    assert first.variant == uuid.RFC_4122
    assert first.int >> 80 <= second.int >> 80
    assert abs((first.int >> 80) - time.time() * 1000) < 5000


def test_side_server_answers_from_its_thread_and_refuses_a_taken_port() -> None:
    server = web.side_server("worker", 0, lambda: {})
    try:
        deadline = time.monotonic() + 5
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/readyz", timeout=1) as answer:
                    assert answer.status == 200
                break
            except OSError:
                assert time.monotonic() < deadline
        with pytest.raises(Misconfigured, match="MINIMART_WORKER_PORT"):
            web.side_server("worker", server.port, lambda: {})
    finally:
        server.close()


SERVED = """
import asyncio, sys
from adapters import web
app = web.create_app("toy", title="Toy", ready=lambda: {})
@app.get("/slow")
async def slow():
    print("in flight", flush=True)
    await asyncio.sleep(0.6)
    return {"done": True}
web.serve(app, "127.0.0.1", int(sys.argv[1]), "toy")
print("ended", flush=True)
"""


def test_sigterm_finishes_what_is_in_flight() -> None:
    import socket
    import threading

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", SERVED, str(port)], stdout=subprocess.PIPE, text=True)
    answers: list[int] = []

    def ask() -> None:
        for _ in range(100):
            try:
                answers.append(httpx.get(f"http://127.0.0.1:{port}/slow", timeout=10).status_code)
                return
            except httpx.ConnectError:
                time.sleep(0.1)

    thread = threading.Thread(target=ask)
    thread.start()
    assert process.stdout is not None
    assert process.stdout.readline() == "in flight\n"
    process.send_signal(signal.SIGTERM)
    thread.join(15)
    assert answers == [200]
    assert process.wait(15) == 0
    assert process.stdout.read().endswith("ended\n")


def test_errors_are_answered_without_a_thread_each() -> None:
    app = web.create_app("t", title="T", ready=dict)
    ours = [handler for handler in app.exception_handlers.values() if handler.__module__.startswith("adapters.")]
    assert len(ours) == 3
    assert all(inspect.iscoroutinefunction(handler) for handler in ours)
