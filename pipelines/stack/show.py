"""The tables that people see: parts with their state, addresses, memory."""

from __future__ import annotations

import contextlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from pipelines.stack import probes
from pipelines.stack.parts import Part, native
from pipelines.stack.supervisor import Supervisor
from settings import Settings

console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
MIB = 1 << 20


@dataclass(frozen=True)
class Row:
    """One part as it is now. `healthy` is None for a part that this machine cannot run."""

    name: str
    what: str
    address: str
    state: str
    healthy: bool | None
    reason: str
    pid: int
    uptime_s: int
    memory_mib: int
    try_there: str


def rows(settings: Settings) -> list[Row]:
    """Every part that belongs to this machine, probed all at once."""
    processes = Supervisor(settings.home).processes()

    def row(part: Part) -> Row:
        process = processes.get(part.name)
        if process is None:
            skipped = part.optional and bool(processes)
            return _row(part, settings, "not here" if skipped else "down", None if skipped else False, "")
        if process.state != "RUNNING":
            return _row(part, settings, process.state.lower(), False, process.detail or f"make logs S={part.name}")
        health = probes.check(part, settings)
        memory = memory_of(process.pid) // MIB
        state = "ready" if health.ready else "not ready"
        return _row(part, settings, state, health.ready, health.reason, process.pid, process.uptime_s, memory)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(row, native(settings)))


def _row(
    part: Part, settings: Settings, state: str, healthy: bool | None, reason: str,
    pid: int = 0, uptime_s: int = 0, memory_mib: int = 0,
) -> Row:  # fmt: skip
    try_there = part.try_there.format(port=part.port(settings))
    return Row(
        part.name, part.what, part.address(settings), state, healthy, reason, pid, uptime_s, memory_mib, try_there
    )


def memory_of(pid: int) -> int:
    """Bytes of a process and its children; memory that they share counts once (PSS) where the system tells it."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                info = one.memory_full_info()
                total += int(getattr(info, "pss", 0) or info.uss)
    return total


def table(found: list[Row], *, title: str) -> Table:
    """Part, address, state, memory and what to try there."""
    out = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("part", "where", "state", "memory", "try there"):
        out.add_column(name, justify="right" if name == "memory" else "left", overflow="fold", no_wrap=name == "part")
    colours = {True: "green", False: "red", None: "yellow"}
    for row in found:
        state = f"[{colours[row.healthy]}]{row.state}[/]" + (f" ({row.reason})" if row.reason else "")
        out.add_row(row.name, row.address, state, f"{row.memory_mib} MiB" if row.pid else "", row.try_there)
    return out


def total(found: list[Row]) -> str:
    """The sum of the memory, in words."""
    gib = sum(row.memory_mib for row in found) / 1024
    return f"{gib:.1f} GiB of memory in all, {sum(1 for row in found if row.pid)} parts running"


def as_json(found: list[Row]) -> str:
    """For machines: a list of objects."""
    return json.dumps([asdict(row) for row in found], indent=1)
