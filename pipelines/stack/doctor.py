"""What this machine has, what it misses and the command that installs it, and who holds our ports. Changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich import box
from rich.table import Table

from adapters.errors import MinimartError
from pipelines.stack import kafka_broker, preflight, prometheus_server, redis_server, triton_server
from pipelines.stack.launch import VENVS, port_open
from pipelines.stack.parts import native
from pipelines.stack.supervisor import Supervisor
from settings import Settings

GIB = 1 << 30


@dataclass(frozen=True)
class Finding:
    """`ok` None: something optional is missing. `fix` is a command or a setting."""

    what: str
    ok: bool | None
    found: str
    fix: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Everything that the platform needs or can use, in the order of need."""
    return [
        *_machine(settings), *_environments(), *_tools(), *_state(settings), *_ports(settings),
    ]  # fmt: skip


def table(findings: list[Finding]) -> Table:
    out = Table(box=box.SIMPLE_HEAD)
    for name in ("", "what", "found", "what to do"):
        out.add_column(name, overflow="fold")
    marks = {True: "[green]ok[/]", False: "[red]no[/]", None: "[yellow]--[/]"}
    for one in findings:
        out.add_row(marks[one.ok], one.what, one.found, one.fix)
    return out


def _machine(settings: Settings) -> Iterator[Finding]:
    yield Finding("system", True, f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    good = (3, 11) <= sys.version_info[:2] <= (3, 12)
    yield Finding("Python", good, platform.python_version(), "" if good else "install Python 3.11 or 3.12")
    memory = psutil.virtual_memory()
    enough = memory.total >= 8 * GIB
    yield Finding(
        "memory", enough or None, f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free",
        "" if enough else "the platform takes about 5 GiB; close something if it is tight",
    )  # fmt: skip
    folder = settings.home if settings.home.exists() else settings.home.parent
    free = shutil.disk_usage(folder).free
    roomy = free >= settings.disk_needed_gib * GIB
    yield Finding("disk", roomy, f"{free / GIB:.1f} GiB free for {settings.home}", "" if roomy else "set MINIMART_HOME")


def _environments() -> Iterator[Finding]:
    for name, verb in (("platform", "demo"), ("training", "demo"), ("triton", "demo"), ("dev", "test")):
        there = (VENVS / name / "bin" / "python").exists()
        yield _optional(f"environment {name}", "installed" if there else None, f"make {verb}")
    yield _optional("Kafka", kafka_broker.VERSION if kafka_broker.installed() else None, "make demo")


def _tools() -> Iterator[Finding]:
    yield _tool("Redis", redis_server.binary, "make demo")
    yield _tool("Triton", lambda: str(triton_server.wheel().server), "")
    yield _tool("Prometheus", lambda: prometheus_server.binary("prometheus"), "apt install prometheus")
    yield _tool("promtool", lambda: prometheus_server.binary("promtool"), "apt install prometheus")
    yield _tool(
        "Alertmanager", lambda: prometheus_server.binary("prometheus-alertmanager", "alertmanager"),
        "apt install prometheus-alertmanager",
    )  # fmt: skip
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    yield _optional("Chromium (browser tests)", browser, "apt install chromium")


def _optional(what: str, found: str | None, fix: str) -> Finding:
    return Finding(what, True, found) if found else Finding(what, None, "missing", fix)


def _tool(what: str, find: Callable[[], str], fix: str) -> Finding:
    try:
        return Finding(what, True, find())
    except MinimartError as reason:
        return Finding(what, None, reason.detail, fix)


def _state(settings: Settings) -> Iterator[Finding]:
    home = settings.home
    if not home.exists():
        yield Finding("state", True, f"{home} is empty")
        return
    try:
        preflight.check_state(home)
    except MinimartError as reason:
        yield Finding("state", False, reason.detail, "make reset")
        return
    yield Finding("state", True, f"{home}, {_size(home) / GIB:.2f} GiB")


def _ports(settings: Settings) -> Iterator[Finding]:
    ours = {name for name, process in Supervisor(settings.home).processes().items() if process.pid}
    for part in native(settings):
        for port in part.ports:
            number = settings.port(port)
            if not port_open(settings.host, number):
                continue
            held = preflight.holder(number)
            fix = "" if part.name in ours else f"MINIMART_{port.upper()}_PORT or MINIMART_PORT_OFFSET moves it"
            yield Finding(f"port {number} ({port})", part.name in ours, f"in use by {held}", fix)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
