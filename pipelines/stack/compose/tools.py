"""Runs `python -m module ...` inside the composed network: the same programs, with Docker as all that is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from adapters.errors import Unavailable
from pipelines.stack.compose import drill, engine
from pipelines.stack.compose.engine import ROOT, ask, compose

SERVICE: Final = "tools"
OUTPUT: Final = "/tmp/output"  # in the container: what MINIMART_OUTPUT says there
HERE: Final = ROOT / ".minimart.compose"  # where it lies afterwards


def python(arguments: Sequence[str]) -> int:
    """Run it in a container of its own and bring home what it wrote for people; gives its exit code."""
    if not any(one.state == "running" for one in engine.containers()):
        raise Unavailable(engine.NOT_UP)
    image = str(engine.model()[SERVICE]["image"])
    if not ask(["docker", "images", "--quiet", image]).strip():
        raise Unavailable(f"the image {image} is not there: docker compose build {SERVICE} makes it")
    return drill.run(SERVICE, arguments, _run) if drill.is_drill(arguments) else _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    name = f"minimart-tools-{os.getpid()}"
    plain = [] if sys.stdin.isatty() and sys.stdout.isatty() else ["--no-TTY"]
    columns = ["--env", f"COLUMNS={os.environ['COLUMNS']}"] if "COLUMNS" in os.environ else []
    command = compose(
        "run", *plain, "--no-deps", "--name", name, "--env", f"MINIMART_OUTPUT={OUTPUT}", *columns, SERVICE,
        "python", *arguments,
    )  # fmt: skip
    try:
        code = subprocess.run(command, cwd=str(ROOT), check=False).returncode
        for file in bring_home(name):
            print(f"on this machine: {file}", file=sys.stderr)
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False)
    return code


def bring_home(container: str) -> list[Path]:
    """Copy the container's output folder to this machine; gives the files that came, none where it wrote none."""
    HERE.mkdir(parents=True, exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in HERE.rglob("*")}
    try:
        ask(["docker", "cp", f"{container}:{OUTPUT}/.", str(HERE)])
    except Unavailable:
        return []
    return [path for path in sorted(HERE.rglob("*")) if path.is_file() and before.get(path) != path.stat().st_mtime_ns]
