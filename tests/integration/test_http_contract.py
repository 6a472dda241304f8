"""Our public routes under fuzz and a hand-made corpus: the answer is expected or a 4xx problem document.

The apps run in this process between fakes; the same corpus over real sockets is in tests/e2e/test_http_sockets.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck
from hypothesis import settings as examples
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.http_apps import APPS
from tests.integration.http_corpus import BODIES, CORPUS, Bad

SECONDS = 5.0
STREAMS = {"/stream"}


@schemathesis.check
def refusals_are_problem_documents(ctx: Any, response: Any, case: Any) -> None:
    assert response.status_code < 500, f"{response.status_code} for {case.method} {case.path}: {response.text[:500]}"
    if response.status_code >= 400:
        assert response.headers["content-type"][0].startswith("application/problem+json")
        body = response.json()
        assert body["status"] == response.status_code
        assert body["detail"]
        assert body["request_id"] == response.headers["x-request-id"][0]


CHECKS = [
    refusals_are_problem_documents,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.mark.parametrize("service", list(APPS))
def test_generated_requests_get_expected_answers(service: str) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", APPS[service]())
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path not in STREAMS:
            _fuzz(operation)


def _fuzz(operation: Any) -> None:
    from hypothesis import given

    quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

    @given(case=operation.as_strategy())
    @examples(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=quiet)
    def expected(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
    @examples(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=quiet)
    def refused(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    expected()
    if operation.body or operation.query or operation.path_parameters:
        refused()


@pytest.fixture(params=list(APPS))
async def served(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, httpx.AsyncClient]]:
    app: FastAPI = APPS[request.param]()
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service", timeout=SECONDS) as client,
    ):
        yield request.param, client


def check(answer: httpx.Response, bad: Bad) -> None:
    assert answer.status_code in bad.status, f"{bad}: {answer.status_code} {answer.text[:400]}"
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert len(answer.content) < 8000, "a problem document must not echo the body"
    if bad.names:
        named = [e["field"] for e in problem.get("errors", [])]
        assert any(bad.names in name for name in named), f"{bad.names} is not named: {problem}"
        assert all(e["allowed"] for e in problem["errors"] if bad.names in e["field"])


async def test_the_corpus_is_refused_quickly_with_reasons(served: tuple[str, httpx.AsyncClient]) -> None:
    service, client = served
    for bad in CORPUS[service]:
        started = time.monotonic()
        answer = await client.request(bad.method, bad.path, content=bad.body, headers=bad.headers)
        check(answer, bad)
        assert time.monotonic() - started < SECONDS


@pytest.mark.parametrize("body", list(BODIES))
@pytest.mark.parametrize("served", ["recommender", "collector", "feature_server"], indirect=True)
async def test_no_route_takes_a_body_that_is_not_strict_json(served: tuple[str, httpx.AsyncClient], body: str) -> None:
    service, client = served
    path = {"recommender": "/v1/recommendations", "collector": "/v1/events", "feature_server": "/v1/features"}[service]
    content = BODIES[body]
    answer = await client.post(path, content=content, headers={"Content-Type": "application/json"})
    check(answer, Bad(path, status=(413,) if len(content) > 1 << 20 else (400, 422)))


async def test_bodies_without_a_length_are_limited_too(served: tuple[str, httpx.AsyncClient]) -> None:
    service, client = served
    path = {"recommender": "/v1/recommendations", "collector": "/v1/events", "shop": "/cart",
            "feature_server": "/v1/features"}[service]
    kind = "application/x-www-form-urlencoded" if service == "shop" else "application/json"

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"x" * 10_000
            await asyncio.sleep(0)

    headers = {"Content-Type": kind, "Transfer-Encoding": "chunked"}
    check(await client.post(path, content=chunks(), headers=headers), Bad(path, status=(413,)))


async def test_unknown_addresses_and_methods(served: tuple[str, httpx.AsyncClient]) -> None:
    _, client = served
    for path in ("/nowhere", "/v1/", "/%00", "/%ff%fe", "/" + "a" * 5000, "/../../etc/passwd", "/v1/%2e%2e/x"):
        check(await client.get(path), Bad(path, status=(404, 405)))
    for method in ("DELETE", "PUT", "PATCH", "TRACE"):
        check(await client.request(method, "/livez"), Bad("/livez", status=(405,)))
