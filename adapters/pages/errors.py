"""Errors for browsers: a page where programs get a problem document; status and words are the same."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from adapters import problems
from adapters.errors import MinimartError

Document = Callable[[Request, Exception], Awaitable[JSONResponse]]
Handler = Callable[[Request, Exception], Awaitable[Response]]


def friendly_errors(app: FastAPI, draw: Callable[..., Response]) -> None:
    """`draw(request, fragment, page, status, title=, problem=)` makes the page, of `_problem.html` or `page.html`."""
    kinds: tuple[tuple[type[Exception], Document], ...] = (
        (MinimartError, problems.from_minimart),
        (HTTPException, problems.from_http),
        (RequestValidationError, problems.from_validation),
    )
    for kind, document in kinds:
        app.add_exception_handler(kind, _either(document, draw))


def _either(document: Document, draw: Callable[..., Response]) -> Handler:
    async def handle(request: Request, error: Exception) -> Response:
        answer = await document(request, error)
        if "text/html" not in request.headers.get("accept", "") and "hx-request" not in request.headers:
            return answer
        problem: dict[str, Any] = json.loads(bytes(answer.body))
        drawn = draw(request, "_problem.html", "page.html", answer.status_code, title=problem["title"], problem=problem)
        drawn.headers["X-Request-ID"] = problem["request_id"]
        return drawn

    return handle
