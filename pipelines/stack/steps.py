"""Programs that end, run one after another with elapsed time on the screen and a stamp when done.

A step whose stamp carries the same key is skipped, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from adapters.errors import Unavailable
from pipelines.stack.launch import SHARED_CORES, python_of, stop
from settings import ROOT

HEARTBEAT_S = 10.0


@dataclass(frozen=True)
class Step:
    """`python -m <module>` in the environment `set`. `key` is all that its result depends on; None: never skipped."""

    name: str
    what: str
    module: str
    arguments: tuple[str, ...] = ()
    key: Any = None
    set: str = "training"


class Runner:
    """Runs steps; the output of each goes to a log under home, its newest line to the screen."""

    def __init__(self, home: Path, console: Console) -> None:
        self.home = home
        self.console = console
        self.started = time.monotonic()
        self.done: list[dict[str, Any]] = []  # {"name", "seconds", "skipped"}, in order

    def run(self, step: Step) -> bool:
        """Run it unless its stamp holds; gives whether it ran. Raises Unavailable with the end of its log."""
        stamp = self.home / "run" / "stamps" / step.name
        key = hashlib.sha256(json.dumps([step.module, step.arguments, step.key], sort_keys=True).encode()).hexdigest()
        if step.key is not None and stamp.exists() and stamp.read_text() == key:
            self.say(f"[dim]{step.name}: {step.what}: done before[/]")
            self.done.append({"name": step.name, "seconds": 0.0, "skipped": True})
            return False
        begun = time.monotonic()
        stamp.unlink(missing_ok=True)
        self._execute(step)
        if step.key is not None:
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.write_text(key)
        self.finished(step.name, step.what, begun)
        return True

    def finished(self, name: str, what: str, begun: float) -> None:
        """Say and remember that something is done that began at the monotonic time `begun`."""
        seconds = time.monotonic() - begun
        self.done.append({"name": name, "seconds": round(seconds, 1), "skipped": False})
        self.say(f"[green]{name}[/]: {what}: {seconds:.1f} s")

    def say(self, text: str) -> None:
        """One line, with the time since the start in front."""
        self.console.print(f"[dim]{time.monotonic() - self.started:6.1f} s[/]  {text}")

    def _execute(self, step: Step) -> None:
        log = self.home / "logs" / f"step-{step.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(
            [python_of(step.set), "-m", step.module, *step.arguments], cwd=ROOT, stdin=subprocess.DEVNULL,
            env={**SHARED_CORES, **os.environ},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        watcher = _Watcher(process.stdout, log)
        try:
            self._watch(step, process, watcher)
        finally:
            stop(process)
            watcher.join()
        if process.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise Unavailable(f"step {step.name} ended with {process.returncode}; its log is {log}; the end:\n{tail}")

    def _watch(self, step: Step, process: subprocess.Popen[str], watcher: _Watcher) -> None:
        begun = time.monotonic()
        if not self.console.is_terminal:
            self._print_heartbeats(step, process, watcher, begun)
            return
        with self.console.status("") as status:
            while process.poll() is None:
                elapsed = time.monotonic() - begun
                line = watcher.line[: max(20, self.console.width - len(step.name) - 16)].replace("[", "\\[")
                status.update(f"{step.name} {elapsed:5.1f} s  [dim]{line}[/]")
                time.sleep(0.1)

    def _print_heartbeats(
        self, step: Step, process: subprocess.Popen[str], watcher: _Watcher, begun: float
    ) -> None:
        due = begun + HEARTBEAT_S
        while process.poll() is None:
            if (now := time.monotonic()) > due:
                self.console.print(f"          {step.name} {now - begun:5.1f} s  {watcher.line}", markup=False)
                due += HEARTBEAT_S
            time.sleep(0.1)


class _Watcher(threading.Thread):
    """Copies a process's output to its log and remembers the newest line."""

    def __init__(self, source: IO[str], log: Path) -> None:
        super().__init__(daemon=True)
        self.line = ""
        self._source = source
        self._log = log
        self.start()

    def run(self) -> None:
        with self._log.open("w") as out:
            for line in self._source:
                out.write(line)
                out.flush()
                self.line = line.strip() or self.line
