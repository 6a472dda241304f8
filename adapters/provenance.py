"""Where a number or a model comes from: machine, commit, locked environment. Standard library only."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
LOCKED: Final = ROOT / "requirements" / "training.txt"


def hardware() -> dict[str, Any]:
    """Processor, usable cores, memory in GiB, system and Python: what a measured number depends on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu(), "cores": cores, "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
    }


def stamp() -> dict[str, Any]:
    """When, from which commit and on what machine: what stands beside every measured number."""
    return {"at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(), "hardware": hardware()}


def commit() -> str:
    """The commit of this code; `unknown` outside a checkout, with `-dirty` when tracked files differ from it (other
    than the results and the README's numbers, which are made from it). An image has no checkout but
    its commit in a file."""
    head = _git("rev-parse", "HEAD")
    if not head:
        return (ROOT / ".commit").read_text().strip() if (ROOT / ".commit").exists() else "unknown"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results", ":!README.md")
    return head + ("-dirty" if changed else "")


def environment_digest() -> str:
    """SHA-256 of the locked requirements that the training environment is made from."""
    return hashlib.sha256(LOCKED.read_bytes()).hexdigest() if LOCKED.exists() else "unknown"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (OSError, ValueError, AttributeError):
        return None
