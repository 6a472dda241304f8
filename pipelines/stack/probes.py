"""Whether a part is well, asked over the network as its clients would."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from pipelines.stack import redis_server
from pipelines.stack.launch import port_open
from pipelines.stack.parts import Part
from settings import Settings


@dataclass(frozen=True)
class Health:
    """`reason` is empty when the part is well."""

    ready: bool
    reason: str = ""


def check(part: Part, settings: Settings, timeout_s: float = 2.0) -> Health:
    """Ask one part; answers within about `timeout_s` seconds and never raises."""
    host, port = settings.host, part.port(settings)
    if part.probe == "tcp":
        return Health(True) if port_open(host, port, timeout_s) else Health(False, f"nothing listens on {host}:{port}")
    if part.probe == "redis":
        return Health(True) if redis_server.ready(host, port) else Health(False, "does not answer PING")
    try:
        answer = httpx.get(f"http://{host}:{port}{part.probe_path}", timeout=timeout_s)
    except httpx.HTTPError as error:
        return Health(False, f"{part.probe_path}: {type(error).__name__}")
    if answer.status_code == 200:
        return Health(True)
    return Health(False, _reason(answer))


def _reason(answer: httpx.Response) -> str:
    """The detail of a problem document, else the status."""
    try:
        body = answer.json()
    except ValueError:
        return f"HTTP {answer.status_code}"
    detail = body.get("detail") if isinstance(body, dict) else None
    return str(detail or f"HTTP {answer.status_code}")
