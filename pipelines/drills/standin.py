"""A part run by the drill itself for as long as the drill takes, with settings of the drill's own.

The supervised part is stopped first and comes back afterwards. A drill that was killed leaves its stand-in behind with
the platform's mark, so that `make down` ends it; the next drill ends it too, by the file it wrote its process id to.
Where no process manager of this home runs (the platform lives in containers) the part is used as it is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import psutil

from adapters.errors import Unavailable
from pipelines.drills.neighbours import Neighbours
from pipelines.drills.report import Report
from pipelines.stack.launch import SHARED_CORES, python_of
from pipelines.stack.parts import BY_NAME
from pipelines.stack.supervisor import MARK, Supervisor
from settings import ROOT, Settings

READY_S: Final = 60.0
END_S: Final = 20.0


def child_environment(extra: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The environment of a child of the drill: the platform's settings, the extra ones, and the mark of its home."""
    return {**os.environ, **settings.given(), **SHARED_CORES, **extra, MARK: str(settings.home)}


class StandIn:
    """One of our services as a child of the drill."""

    def __init__(self, part: str, settings: Settings, environment: Mapping[str, str]) -> None:
        self.part, self._settings, self._environment = part, settings, dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._pid_file = settings.home / "run" / f"stand-in-{part}.pid"
        self._log = settings.home / "logs" / f"stand-in-{part}.log"

    def start(self) -> None:
        """Start it; returns without waiting until it is ready."""
        self._end_leftover()
        environment = child_environment(self._environment, self._settings)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [python_of(BY_NAME[self.part].environment), "-m", f"services.{self.part}"], cwd=ROOT, env=environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        self._pid_file.write_text(str(self._process.pid))

    def kill(self) -> int:
        """kill -9 the process and what it started; gives its number."""
        assert self._process is not None
        pid = self._process.pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        self._process.wait()
        return pid

    def stop(self) -> None:
        """End it in order, or with force after END_S."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._pid_file.unlink(missing_ok=True)

    def _end_leftover(self) -> None:
        """What an earlier drill of this home left behind when it was killed."""
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int(self._pid_file.read_text()))
            if process.environ().get(MARK) == str(self._settings.home):
                process.kill()
                process.wait(5)


@contextlib.contextmanager
def stand_in(
    part: str, neighbours: Neighbours, environment: Mapping[str, str], report: Report
) -> Iterator[StandIn | None]:
    """Within: the part runs as a child of the drill with this environment. None: the running part is used as it is."""
    settings = neighbours.settings
    supervisor = Supervisor(settings.home)
    if part not in supervisor.processes():
        report.say(f"{part}: runs elsewhere, with the settings that it was given there", "note")
        neighbours.wait_ready(part, READY_S)
        yield None
        return
    supervisor.stop_part(part)
    child = StandIn(part, settings, environment)
    try:
        child.start()
        neighbours.wait_ready(part, READY_S)
        knobs = ", ".join(f"{k.removeprefix('MINIMART_').lower()} {v}" for k, v in environment.items())
        report.say(f"{part}: runs under the drill with {knobs}", "note")
        yield child
    finally:
        child.stop()
        supervisor.start_part(part)
        with contextlib.suppress(Unavailable):
            neighbours.wait_ready(part, READY_S)


class Breaker:
    """Kills one part in the middle of a drill and brings it back after a while (KILL=mlflow, kafka, controller ...)."""

    def __init__(self, part: str, settings: Settings, children: Mapping[str, StandIn | None], away_s: float) -> None:
        self.part, self.away_s = part, away_s
        self._child = children.get(part)
        self._supervisor = Supervisor(settings.home)
        self.killed_at: float | None = None
        self.back = False
        if self._child is None and part not in self._supervisor.processes():
            have = ", ".join(sorted(self._supervisor.processes()))
            fix = f"there are: {have}" if have else f"from in here none can be; make kill S={part} in another terminal"
            raise Unavailable(f"KILL={part}: no part that this drill can kill; {fix}")

    def kill(self, report: Report) -> None:
        """kill -9, once."""
        if self.killed_at is not None:
            return
        self.killed_at = time.monotonic()
        if self._child is not None:
            self._child.kill()
        else:
            self._supervisor.kill_part(self.part, stay_down=True)
        report.say(f"kill -9 {self.part}; it stays away for {self.away_s:.0f} s", "bad")

    def tick(self, report: Report) -> None:
        """Bring it back when its time is over."""
        if self.killed_at is None or self.back or time.monotonic() - self.killed_at < self.away_s:
            return
        self.back = True
        if self._child is not None:
            self._child.start()
        else:
            self._supervisor.start_part(self.part)
        report.say(f"{self.part} is started again", "note")


def folder_of(settings: Settings, name: str) -> Path:
    """A new folder for one drill's report."""
    return settings.out / "drills" / f"{name}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
