"""The tables that people see of the composed platform: containers with state, address and memory, as plain text."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.stack.compose import engine
from pipelines.stack.compose.engine import Container
from pipelines.stack.parts import BY_NAME

HEADINGS = ("part", "where", "state", "memory", "try there")
COLOURS = {True: "\033[32m", False: "\033[31m", None: "\033[33m"}


@dataclass(frozen=True)
class Row:
    """One container, or a service without one, as it is now. A job that ended well is `done`, and healthy."""

    name: str
    what: str
    address: str
    state: str
    healthy: bool
    reason: str
    memory_mib: int
    try_there: str
    job: bool


def rows(services: Mapping[str, Mapping[str, Any]], found: Sequence[Container], memory: Mapping[str, int]) -> list[Row]:
    """A row for every container and for every service that has none though it should."""
    replicas = Counter(one.service for one in found)
    shown = [_row(one, services.get(one.service, {}), memory.get(one.id, 0), replicas[one.service]) for one in found]
    shown += [
        Row(name, _what(name), "", "down", False, f"make start S={name} STACK=compose", 0, "", engine.one_shot(service))
        for name, service in services.items() if name not in replicas and not service.get("profiles")
    ]  # fmt: skip
    place = {name: number for number, name in enumerate([*BY_NAME, *services])}
    return sorted(shown, key=lambda row: (row.job, place.get(row.name.rpartition("-")[0] or row.name, 999), row.name))


def _row(one: Container, service: Mapping[str, Any], memory: int, replicas: int) -> Row:
    job = engine.one_shot(service)
    name = one.service if replicas == 1 else f"{one.service}-{one.number}"
    part = BY_NAME.get(one.service)
    state, healthy = _state(one, job)
    look = f"make logs S={one.service} STACK=compose"
    reason = "" if healthy or state == "starting" else engine.last_check(one) or look
    try_there = part.try_there.format(port=one.published[0][1]) if part and one.published else ""
    return Row(name, _what(one.service), address(one), state, healthy, reason, memory, try_there, job)


def _state(one: Container, job: bool) -> tuple[str, bool]:
    if one.state == "running":
        return {"": ("running", True), "healthy": ("ready", True), "starting": ("starting", job)}.get(
            one.health, ("not ready", False)
        )
    if job and one.state == "exited" and one.exit_code == 0:
        return "done", True
    return f"{one.state} ({one.exit_code})" if one.state == "exited" else one.state, False


def address(one: Container) -> str:
    """Where this machine reaches it: a page for people where it has one, else host:port; empty inside the network."""
    part = BY_NAME.get(one.service)
    if not one.published:
        return ""
    host, port, _ = one.published[0]
    base = f"{host or '127.0.0.1'}:{port}"
    return f"http://{base}{part.page}" if part and part.page is not None else base


def _what(service: str) -> str:
    part = BY_NAME.get(service)
    return part.what if part else ""


def table(shown: Sequence[Row]) -> str:
    """Part, address, state, memory and what to try there; jobs that are done are one line below."""
    lines = [row for row in shown if not (row.job and row.healthy)]
    cells = [
        (row.name, row.address, row.state + (f" ({row.reason})" if row.reason else ""),
         f"{row.memory_mib} MiB" if row.memory_mib else "", row.try_there)
        for row in lines
    ]  # fmt: skip
    widths = [max(len(line[i]) for line in (HEADINGS, *cells)) for i in range(len(HEADINGS))]
    out = ["  ".join(heading.ljust(widths[i]) for i, heading in enumerate(HEADINGS)).rstrip()]
    out.append("-" * len(out[0]))
    for number, row in enumerate(lines):
        padded = [text.rjust(widths[i]) if i == 3 else text.ljust(widths[i]) for i, text in enumerate(cells[number])]
        if sys.stdout.isatty():
            padded[2] = f"{COLOURS[row.healthy]}{padded[2]}\033[0m"
        out.append("  ".join(padded).rstrip())
    return "\n".join(out)


def total(shown: Sequence[Row]) -> str:
    """The sum of the memory, in words."""
    gib = sum(row.memory_mib for row in shown) / 1024
    done = sum(row.job and row.healthy for row in shown)
    running = sum(bool(row.memory_mib) for row in shown)
    return f"{gib:.1f} GiB of memory in all, containers running: {running}, jobs done: {done}"


def as_json(shown: Sequence[Row]) -> str:
    """For machines: a list of objects."""
    return json.dumps([asdict(row) for row in shown], indent=1)
