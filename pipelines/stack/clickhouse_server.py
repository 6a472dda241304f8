"""ClickHouse for the native stack: its engine as a library behind its HTTP protocol, in an environment of its own."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from pathlib import Path

import httpx

from pipelines.stack.launch import VENVS, CannotRun, Launch
from settings import ROOT

PYTHON = VENVS / "clickhouse" / "bin" / "python"
PROGRAM = ROOT / "deploy" / "native" / "clickhouse_http.py"


def launch(folder: Path, *, host: str, port: int, user: str = "default", password: str = "",
           memory_mb: int = 1024, threads: int = 2) -> Launch:
    """Data lies in `folder`. The engine takes at most `memory_mb`, one query `threads` threads. Raises CannotRun."""
    if not installed():
        raise CannotRun("chdb-core is not in .venv/clickhouse (it has wheels for Linux and macOS, x86-64 and arm64); "
                        "make demo installs it, or MINIMART_CLICKHOUSE_URL names a ClickHouse of yours")
    command = (str(PYTHON), str(PROGRAM), "--folder", str(folder), "--host", host, "--port", str(port),
               "--memory-mb", str(memory_mb), "--threads", str(threads))
    return Launch(command, {"CLICKHOUSE_USER": user, "CLICKHOUSE_PASSWORD": password})


@lru_cache
def installed() -> bool:
    """Whether the engine is in its environment."""
    looked = "import importlib.util as u; raise SystemExit(u.find_spec('chdb') is None)"
    return PYTHON.exists() and subprocess.run([str(PYTHON), "-c", looked], check=False).returncode == 0


def ready(host: str, port: int) -> bool:
    """Whether it answers /ping."""
    try:
        return httpx.get(f"http://{host}:{port}/ping", timeout=1.0).status_code == 200
    except httpx.HTTPError:
        return False
