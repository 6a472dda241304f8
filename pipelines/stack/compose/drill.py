"""A drill on the composed platform: controller and recommender run at the drill's pace, and at their own afterwards.

Natively a drill runs these parts itself. From a container it cannot, so their containers are made anew around it with
the settings that the drill says it needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from adapters.errors import Unavailable
from pipelines.stack.compose import advice, engine
from pipelines.stack.compose.engine import ask, compose

MODULE: Final = "pipelines.drills"
READY_S: Final = 180


def is_drill(arguments: Sequence[str]) -> bool:
    return list(arguments[:2]) == ["-m", MODULE]


def run(service: str, arguments: Sequence[str], program: Callable[[Sequence[str]], int]) -> int:
    """`program(arguments)` while the parts have the drill's settings; its exit code. Raises Unavailable."""
    said = ask(compose("run", "--rm", "--no-TTY", "--no-deps", service, "python", *arguments, "--settings"), READY_S)
    needed: dict[str, dict[str, str]] = json.loads(said.strip().splitlines()[-1])
    try:
        for part, settings in needed.items():
            print(f"{part}: made anew, with the drill's settings", file=sys.stderr)
            renew(part, settings)
        return program(arguments)
    finally:
        with ExitStack() as ending:  # whatever becomes of one part, the others get their settings back
            for part in reversed(needed):
                ending.callback(_restore, part)


def _restore(part: str) -> None:
    print(f"{part}: made anew, with its own settings", file=sys.stderr)
    renew(part, {})


def renew(part: str, settings: Mapping[str, str]) -> None:
    """Make a part's containers anew with these settings, all its replicas, and wait until they are healthy."""
    replicas = sum(one.service == part for one in engine.containers())
    command = compose("up", "--detach", "--no-deps", "--no-build", "--wait", "--wait-timeout", str(READY_S),
                      "--scale", f"{part}={max(1, replicas)}", part)  # fmt: skip
    done = subprocess.run(command, cwd=str(engine.ROOT), env={**os.environ, **settings}, capture_output=True, text=True,
                          check=False)  # fmt: skip
    if done.returncode:
        raise Unavailable(f"{part} did not come back: {advice.explain(done.stderr or done.stdout)}")
