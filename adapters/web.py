"""The HTTP edge that all our services share: one app factory, one way to serve, one small server for workers.

An app from here answers errors as problem documents (adapters/problems.py), refuses bad bodies
(adapters/http_guard.py), and offers /docs (its routes, for people), /livez (the process runs), /readyz (it can do
its work; otherwise which part cannot, and why) and /metrics.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from types import FrameType
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from adapters import api_page, problems
from adapters.errors import MinimartError, Misconfigured
from adapters.http_guard import Guard, uuid7

__all__ = [
    "JSON_ONLY", "create_app", "draining", "listen", "request_id", "require_port", "serve", "serve_on", "side_server",
    "uuid7",
]  # fmt: skip

Ready = Callable[[], Mapping[str, str]]
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Any]]
JSON_ONLY: Final = ("application/json",)
DRAIN_SECONDS: Final = 10
LEAVING_SECONDS: Final = 0.3


def create_app(
    name: str,
    *,
    title: str,
    ready: Ready,
    lifespan: Lifespan | None = None,
    body_limit: int = 1 << 20,
    accepts: Collection[str] = JSON_ONLY,
    notes: Ready | None = None,
    metrics: Callable[[], bytes] = generate_latest,
) -> FastAPI:
    """An app with our edge. `ready()` returns part -> reason for each part that is not ready (empty: ready).

    `notes()` is what /readyz shows beside that without being unready, e.g. an artifact that was refused. `body_limit`
    is in bytes, `accepts` names the content types that a request body may have; `metrics()` is what /metrics shows.
    """
    app = FastAPI(
        title=title,
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=dict(problems.RESPONSES),
    )
    app.state.draining = asyncio.Event()
    app.add_exception_handler(MinimartError, problems.from_minimart)
    app.add_exception_handler(HTTPException, problems.from_http)
    app.add_exception_handler(RequestValidationError, problems.from_validation)
    app.add_middleware(
        Guard, service=name, routes=app.router.routes, body_limit=body_limit, accepts=accepts,
        leaving=app.state.draining.is_set,
    )  # fmt: skip
    _add_probes(app, name, ready, notes or dict, metrics)
    return app


def _add_probes(app: FastAPI, name: str, ready: Ready, notes: Ready, exposition: Callable[[], bytes]) -> None:
    @app.get("/livez", tags=["operations"], summary="Whether the process runs")
    async def livez() -> dict[str, str]:
        return {"service": name, "status": "alive"}

    @app.get("/readyz", tags=["operations"], summary="Whether it can do its work; otherwise each part and its reason")
    async def readyz(request: Request) -> Response:
        waiting = dict(ready())
        if app.state.draining.is_set():
            waiting["process"] = "it is shutting down"
        if not waiting:
            return JSONResponse({"service": name, "status": "ready", "notes": dict(notes())})
        detail = "; ".join(f"{part}: {reason}" for part, reason in waiting.items())
        waiting |= dict(notes())
        errors = [{"field": part, "value": reason} for part, reason in waiting.items()]
        return problems.problem(request_id(request), 503, detail, title="Not ready", errors=errors)

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return HTMLResponse(api_page.render(app.openapi()))

    @app.get("/metrics", tags=["operations"], summary="Prometheus metrics", response_class=PlainTextResponse)
    def metrics() -> Response:
        return Response(exposition(), media_type=CONTENT_TYPE_LATEST)


def request_id(request: Request) -> str:
    """The id of this request: the caller's X-Request-ID where it is valid, else a new UUIDv7."""
    return problems.request_id_of(request)


def draining(request: Request) -> bool:
    """Whether the process was told to stop; endless answers (server-sent events) must end when it was."""
    return bool(request.app.state.draining.is_set())


class _Server(uvicorn.Server):
    """uvicorn that tells the app at once when it is asked to stop, so that endless answers end and probes say so.

    For LEAVING_SECONDS more it accepts, and every answer closes its connection: clients that keep theirs open move
    elsewhere between two requests, not in the middle of one.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self.application = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.application.state.draining.set()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if not self.force_exit:
            await asyncio.sleep(LEAVING_SECONDS)
        await super().shutdown(sockets)


def _server(app: FastAPI) -> _Server:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        backlog=512,
        h11_max_incomplete_event_size=64 << 10,
    )
    return _Server(config, app)


def listen(host: str, port: int, name: str) -> socket.socket:
    """A socket bound to the port. Raises Misconfigured where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Misconfigured(
            f"{name}: cannot listen on {host}:{port} ({error.strerror}). Stop what uses the port, "
            f"or set MINIMART_PORT_OFFSET (moves all ports) or MINIMART_{name.upper()}_PORT to another one.",
        ) from None
    return listener


def require_port(host: str, port: int, name: str) -> None:
    """Raise Misconfigured, with the setting that moves it, where a port is taken that somebody else will listen on."""
    listen(host, port, name).close()


def serve(app: FastAPI, host: str, port: int, name: str | None = None) -> None:
    """Serve until SIGTERM or SIGINT: stop accepting, finish what is in flight (DRAIN_SECONDS), run the lifespan's end.

    Returns after a graceful end; exits with 2 and one clear line where the port is taken.
    """
    try:
        listener = listen(host, port, name or "service")
    except Misconfigured as error:
        sys.exit(_complain(error))
    serve_on(app, listener)


def serve_on(app: FastAPI, listener: socket.socket) -> None:
    """The same on a socket that is bound already."""
    server = _server(app)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)  # before uvicorn listens for signals, and when it raises them again
    server.run([listener])


def _complain(error: Misconfigured) -> int:
    print(error.detail, file=sys.stderr, flush=True)
    return 2


class SideServer:
    """/livez, /readyz and /metrics of a worker that speaks no HTTP otherwise, in a thread of their own."""

    def __init__(self, name: str, host: str, port: int, ready: Ready) -> None:
        listener = listen(host, port, name)
        self.port = int(listener.getsockname()[1])
        self._server = _server(create_app(name, title=f"Minimart {name}", ready=ready))
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name=f"{name}-probes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(5)


def side_server(name: str, port: int, ready: Ready, *, host: str = "127.0.0.1") -> SideServer:
    """Start the probes of a worker; `port` 0 takes a free one. Raises Misconfigured where the port is taken."""
    return SideServer(name, host, port, ready)
