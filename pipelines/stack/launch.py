"""What a part needs to be started, and how to start one for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.errors import Misconfigured, Unavailable
from settings import ROOT

VENVS = ROOT / ".venv"

# Threads that wait for one another sleep instead of spinning: on cores that are shared with a broker, a database and a
# model server, LightGBM trains five times as fast.
SHARED_CORES = {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Launch:
    """A command line and what is added to the environment for it. The working directory is the project's root."""

    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


class CannotRun(Misconfigured):
    """This machine cannot run an optional part; the platform goes on without it. The message says why and the fix."""


def python_of(environment: str) -> str:
    """The interpreter of `.venv/<environment>`, or the running one where that set is not installed."""
    path = VENVS / environment / "bin" / "python"
    return str(path) if path.exists() else sys.executable


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """`count` different ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((host, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def port_open(host: str, port: int, timeout_s: float = 0.5) -> bool:
    """Whether something accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout_s):
        return True
    return False


@contextlib.contextmanager
def running(
    launch: Launch, *, log: Path, ready: Callable[[], bool], timeout_s: float = 90
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the process, wait until `ready()`, and stop it and its children at the end of the block.

    Raises Unavailable with the end of its log when it exits early or is not ready within `timeout_s` seconds.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen(
            launch.command, cwd=ROOT, env={**os.environ, **launch.environment}, stdin=subprocess.DEVNULL,
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )
    try:
        _await(process, launch.command[0], ready, timeout_s, log)
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[Any], grace_s: float = 10) -> None:
    """Ask the process group to end, and end it by force after `grace_s` seconds."""
    for signal_number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _await(
    process: subprocess.Popen[bytes], name: str, ready: Callable[[], bool], timeout_s: float, log: Path
) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        ended = process.poll()
        if ended is not None or time.monotonic() > deadline:
            how = f"is not ready after {timeout_s:.0f} s" if ended is None else f"ended with exit code {ended}"
            tail = log.read_text(errors="replace")[-2000:]
            raise Unavailable(f"{Path(name).name} {how}; the end of {log}:\n{tail}")
        time.sleep(0.1)
