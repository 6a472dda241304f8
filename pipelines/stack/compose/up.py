"""`make demo STACK=compose`: check, build, start, wait for health, and say in one line what went wrong where it did."""

from __future__ import annotations

import subprocess
import sys
from collections import deque

from adapters.errors import Unavailable
from pipelines.stack.compose import advice, doctor, engine, show
from pipelines.stack.compose.engine import ROOT, Container, ask, compose

KEPT_LINES = 200


def demo() -> int:
    """Everything from nothing to a running platform; a second run is quick."""
    doctor.require()
    said: deque[str] = deque(maxlen=KEPT_LINES)
    process = subprocess.Popen(
        compose("--ansi", "never", "up", "--detach", "--build", "--wait"), cwd=str(ROOT), text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        sys.stdout.write(line)
        sys.stdout.flush()
    if process.wait():
        raise Unavailable(what_failed("".join(said)))
    found = engine.containers()
    memory = engine.memory_mib([one.id for one in found if one.state == "running"])
    shown = show.rows(engine.model(), found, memory)
    print(show.table(shown))
    print(f"{show.total(shown)}\nmake walk STACK=compose follows one event, make down STACK=compose stops it")
    return 0 if all(row.healthy for row in shown) else 1


def what_failed(said: str) -> str:
    """The end of the log of every container that failed; else what Docker said, explained."""
    failed = [one for one in engine.containers() if is_failed(one)]
    ends = [f"{one.service} ended with {one.exit_code}:\n{_end_of_log(one)}" for one in failed]
    return "\n".join(ends) or advice.explain(said, engine.settings_of_ports())


def is_failed(one: Container) -> bool:
    """Whether a container ended badly or its health check fails."""
    return one.health == "unhealthy" or (one.state in ("exited", "dead", "restarting") and one.exit_code != 0)


def _end_of_log(one: Container) -> str:
    text = ask(["docker", "inspect", "--format", "{{.State.Error}}", one.id]).strip()
    done = subprocess.run(
        ["docker", "logs", "--tail", "10", one.id], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", check=False,
    )  # fmt: skip
    lines = [f"  {line}" for line in (advice.explain(text) if text else "", *done.stdout.splitlines()) if line]
    return "\n".join(lines)
