"""Whom the console asks. An answer, or in plain words why there is none: a panel says so and the page goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from adapters.telemetry import NEIGHBOUR_ERRORS

SECONDS: Final = 2.0
LONG_SECONDS: Final = 20.0  # for what a person waits for: a decision made again, an order to the controller


@dataclass(frozen=True)
class Answer:
    """`value` is the JSON (or text) of a good answer, None otherwise; then `away` says why."""

    value: Any = None
    away: str = ""
    status: int = 0


class Neighbours:
    """Asks parts of the platform by name. Never raises for what a neighbour does."""

    def __init__(self, url: Callable[[str], str], client: httpx.AsyncClient) -> None:
        """`url(part)` is where a part is, without a path."""
        self._url, self._client = url, client

    async def get(self, part: str, path: str, *, seconds: float = SECONDS, **params: str) -> Answer:
        """What a part says at a path."""
        return await self._ask("GET", part, path, seconds, params=params)

    async def post(self, part: str, path: str, body: Mapping[str, Any]) -> Answer:
        """Ask a part to do something."""
        return await self._ask("POST", part, path, LONG_SECONDS, json=dict(body))

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, method: str, part: str, path: str, seconds: float, **more: Any) -> Answer:
        try:
            answer = await self._client.request(method, self._url(part) + path, timeout=seconds, **more)
        except httpx.HTTPError as error:
            NEIGHBOUR_ERRORS.labels("console", part).inc()
            return Answer(away=f"The {part} does not answer ({type(error).__name__}).")
        body: Any = answer.text
        if "json" in answer.headers.get("content-type", ""):
            with contextlib.suppress(ValueError):
                body = answer.json()
        if answer.is_success:
            return Answer(body, status=answer.status_code)
        detail = body.get("detail") if isinstance(body, dict) else None
        return Answer(away=str(detail or f"The {part} answered {answer.status_code}."), status=answer.status_code)


async def listens(host: str, port: int, seconds: float = 0.5) -> bool:
    """Whether something accepts connections there."""
    with contextlib.suppress(OSError, TimeoutError):
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), seconds)
        writer.close()
        return True
    return False
