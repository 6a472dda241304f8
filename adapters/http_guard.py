"""What stands before every route: request ids, RED metrics, and bodies that are small, whole, timely and strict JSON.

Plain ASGI, so that it also sees chunked bodies, routes that do not exist and exceptions that nobody expected.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, NoReturn

import structlog
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters import telemetry
from adapters.problems import INTERNAL, problem
from feature_repo.events import is_id

MAX_DEPTH: Final = 32
BODY_SECONDS: Final = 10.0
PROBES: Final = frozenset({"/livez", "/readyz", "/metrics"})
SECURITY: Final = ((b"x-content-type-options", b"nosniff"),)
_strings: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_brackets: Final = re.compile(rb"[\[\]{}]")
log = structlog.get_logger()


class BadBody(Exception):
    """The body was refused: HTTP status and what to say."""

    def __init__(self, status: int, detail: str, field: str = "body") -> None:
        super().__init__(detail)
        self.status, self.detail, self.field = status, detail, field


def uuid7() -> str:
    """A UUIDv7 (RFC 9562): its first 48 bits are the Unix time in milliseconds, so ids sort by time."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def check_json(body: bytes) -> None:
    """Refuse what RFC 8259 forbids or leaves open: NaN, Infinity, numbers beyond a float, repeated names, deep nesting,
    lone surrogates, bytes that are not UTF-8. Raises BadBody (400)."""
    depth = 0
    for bracket in _brackets.finditer(_strings.sub(b"", body)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            raise BadBody(400, f"The JSON is nested deeper than {MAX_DEPTH} levels; at most {MAX_DEPTH} are allowed.")
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_constant, parse_float=_float, object_pairs_hook=_pairs)
        if b"\\ud" in body.lower():
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except BadBody:
        raise
    except UnicodeDecodeError as error:
        raise BadBody(400, f"The body is not UTF-8: byte {error.start} cannot be read; send UTF-8.") from None
    except UnicodeEncodeError:
        raise BadBody(400, "The JSON holds half of a surrogate pair; send whole Unicode characters.") from None
    except json.JSONDecodeError as error:
        raise BadBody(400, f"The body is not JSON: {error.msg} at line {error.lineno} column {error.colno}.") from None
    except (ValueError, RecursionError):
        raise BadBody(400, "The JSON holds a number of too many digits; at most 4300 are allowed.") from None


def _constant(text: str) -> NoReturn:
    raise BadBody(400, f"The JSON holds {text}; only finite numbers are allowed (null says missing).")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadBody(400, f"The JSON holds {text[:40]}, which is no finite number; allowed: -1.8e308 to 1.8e308.")
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(n for n in names if names.count(n) > 1)
        raise BadBody(400, f"The JSON names {twice[:64]!a} twice in one object; each name may stand once.", twice[:64])
    return found


def _match(routes: Sequence[BaseRoute], scope: Scope) -> BaseRoute | None:
    """The route that will answer, None for a 404 or 405, which it is whatever the body."""
    return next((route for route in routes if route.matches(scope)[0] is Match.FULL), None)


def _template(scope: Scope, matched: BaseRoute | None) -> str:
    """After the answer: the template of the route that gave it, e.g. `/v1/decisions/{request_id}`."""
    if matched is None:
        return "unmatched"
    included = scope.get("fastapi", {}).get("effective_route_context")
    for route in (included, scope.get("route"), matched):
        if path := getattr(route, "path", None):
            return str(path)
    return "refused"


class Guard:
    """The outermost layer of an app. `accepts`: content types that a body may have; `routes`: the app's; while
    `leaving()` every answer closes its connection."""

    def __init__(
        self, app: ASGIApp, *, service: str, routes: Sequence[BaseRoute], body_limit: int, accepts: Collection[str],
        leaving: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self.app, self.service, self.routes = app, service, routes
        self.body_limit, self.accepts, self.leaving = body_limit, accepts, leaving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {k.lower(): v for k, v in scope["headers"]}
        offered = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = offered if is_id(offered) else uuid7()
        scope.setdefault("state", {})["request_id"] = request_id
        matched = _match(self.routes, scope)
        sender = _Sender(send, request_id, self.leaving)
        started = time.perf_counter()
        telemetry.HTTP_IN_FLIGHT.labels(self.service).inc()
        try:
            body = await self._body(receive, headers, scope["method"]) if matched is not None else receive
            await self.app(scope, body, sender)
        except BadBody as refused:
            errors = [{"field": refused.field, "allowed": refused.detail}]
            extra = {"Connection": "close"} if refused.status in (408, 413) else {}
            answer = problem(request_id, refused.status, refused.detail, errors=errors, headers=extra)
            await answer(scope, receive, sender)
        except ClientDisconnect:
            sender.status = sender.status or 499
        except Exception as error:
            log.error("unexpected_error", request_id=request_id, exc_info=error)
            if sender.status:
                raise
            await problem(request_id, 500, INTERNAL)(scope, receive, sender)
        finally:
            telemetry.HTTP_IN_FLIGHT.labels(self.service).dec()
            seconds, where = time.perf_counter() - started, _template(scope, matched)
            self._record(where, scope["method"], sender.status or 499, seconds, request_id)

    async def _body(self, receive: Receive, headers: dict[bytes, bytes], method: str) -> Receive:
        """Read the body whole, checked, and hand it on as one message. Raises BadBody."""
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length[:20]) > self.body_limit:
            raise BadBody(413, f"The body has {length[:20].decode()} bytes; at most {self.body_limit} are allowed.")
        if method in ("GET", "HEAD") or (length in (b"", b"0") and b"transfer-encoding" not in headers):
            return receive
        media = headers.get(b"content-type", b"").decode("latin-1").split(";")[0].strip().lower()
        if media not in self.accepts:
            allowed = " or ".join(self.accepts)
            raise BadBody(415, f"The body's Content-Type is {media[:60]!r}; allowed: {allowed}.", "Content-Type")
        body = await self._read(receive)
        if media == "application/json":
            check_json(body)
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        return replay

    async def _read(self, receive: Receive) -> bytes:
        chunks, size = [], 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > self.body_limit:
                        raise BadBody(413, f"The body is over the limit; at most {self.body_limit} bytes are allowed.")
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            raise BadBody(408, f"The body did not come whole within {BODY_SECONDS:g} s; send it faster.") from None

    def _record(self, where: str, method: str, status: int, seconds: float, request_id: str) -> None:
        known = method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS") else "OTHER"
        telemetry.HTTP_REQUESTS.labels(self.service, where, known, str(status)).inc()
        telemetry.HTTP_SECONDS.labels(self.service, where, known).observe(seconds)
        if where not in PROBES:
            took = round(seconds * 1e3, 2)
            log.debug("http", route=where, method=known, status=status, ms=took, request_id=request_id)


class _Sender:
    """Passes messages on, adds the request id and security headers, and remembers the status (0: nothing sent)."""

    def __init__(self, send: Send, request_id: str, leaving: Callable[[], bool]) -> None:
        self.send, self.status, self.leaving = send, 0, leaving
        self.headers = [(b"x-request-id", request_id.encode("latin-1")), *SECURITY]

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            present = {k.lower() for k, _ in message.get("headers", [])}
            headers = [*self.headers, (b"connection", b"close")] if self.leaving() else self.headers
            extra = [(k, v) for k, v in headers if k not in present]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await self.send(message)
