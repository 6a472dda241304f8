"""The process manager: supervisord with a configuration made from the parts list, reached over a private socket.

It restarts what dies, rotates logs and ends whole process groups. It outlives the command that started it.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import http.client
import os
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from adapters.errors import Unavailable
from pipelines.stack.launch import SHARED_CORES, Launch
from settings import ROOT

MARK = "STACK_HOME"  # in the environment of every process that we start: how `down` recognises its own
HIDERS = {"redis-server": "redis"}  # programs that overwrite their environment: executable -> its folder under home
_GONE = (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError)


@dataclass(frozen=True)
class Process:
    """What the manager knows of a part. `state` is its word: RUNNING, STARTING, STOPPED, BACKOFF, FATAL, EXITED."""

    name: str
    state: str
    pid: int
    uptime_s: int
    detail: str


class Supervisor:
    """The manager of one home. Its calls raise Unavailable when it does not run; `alive` says whether it does."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.run = home / "run"
        self.logs = home / "logs"
        self.config = self.run / "supervisord.conf"
        self.socket = _socket_path(home)

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    @property
    def alive(self) -> bool:
        with contextlib.suppress(Unavailable):
            return bool(self._call("supervisor.getState"))
        return False

    def start(self, programs: dict[str, Launch]) -> bool:
        """Start the manager with these programs, all stopped. Keeps a running one that has the same configuration.

        Returns whether it was started or restarted now.
        """
        text = self.render(programs)
        if self.alive:
            if self.config.read_text() == text:
                return False
            self.shutdown()
        self.end_orphans()
        self.run.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        self.config.write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.config)],
            cwd=ROOT, env={**os.environ, MARK: str(self.home)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Unavailable(f"the process manager did not start: {(done.stderr or done.stdout).strip()[-500:]}")
        _until(lambda: self.alive, 10, "the process manager does not answer")
        return True

    def processes(self) -> dict[str, Process]:
        """Every part by name; {} when the manager does not run."""
        with contextlib.suppress(Unavailable):
            return {info["name"]: _process(info) for info in self._call("supervisor.getAllProcessInfo")}
        return {}

    def start_part(self, name: str) -> None:
        """Start a part that does not run; returns without waiting for it."""
        if self.processes()[name].state not in ("RUNNING", "STARTING"):
            self._call("supervisor.startProcess", name, False)

    def stop_part(self, name: str) -> None:
        """End a part and wait; it stays down until it is started again."""

        def stopped() -> bool:
            if self.processes()[name].state in ("STOPPED", "FATAL"):
                return True
            with contextlib.suppress(Unavailable):  # between two states it refuses; ask again
                self._call("supervisor.stopProcess", name, True)
            return False

        _until(stopped, 40, f"{name} does not end")

    def kill_part(self, name: str, *, stay_down: bool) -> int:
        """kill -9 the part's processes; gives the pid. The manager restarts it at once unless `stay_down`."""
        process = self.processes()[name]
        if process.pid:
            _kill_group(process.pid)
        if stay_down:
            self.stop_part(name)
        return process.pid

    def shutdown(self) -> int:
        """Stop every part and the manager itself, and wait until they are gone; gives how many it had lost sight of."""
        pid = 0
        with contextlib.suppress(Unavailable):
            pid = int(self._call("supervisor.getPID"))
            self._call("supervisor.shutdown")
        if pid:
            _until(lambda: not _lives(pid), 60, "the process manager does not end")
        left = self.end_orphans()
        self.socket.unlink(missing_ok=True)
        return left

    def end_orphans(self) -> int:
        """End what an earlier manager of this home left behind when it was killed itself; gives how many."""
        left = list(_ours(self.home))
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, stubborn = psutil.wait_procs(left, timeout=10)
        for process in stubborn:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return len(left)

    def render(self, programs: dict[str, Launch]) -> str:
        """supervisord's configuration as text."""
        sections: dict[str, dict[str, Any]] = {
            "unix_http_server": {"file": self.socket, "chmod": "0700"},
            "supervisord": {
                "logfile": self.logs / "supervisord.log", "logfile_maxbytes": "2MB", "logfile_backups": 1,
                "pidfile": self.run / "supervisord.pid", "childlogdir": self.logs, "directory": ROOT, "minfds": 1024,
                **({"user": getpass.getuser()} if os.getuid() == 0 else {}),
            },
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
            },
            **{f"program:{name}": self._program(name, launch) for name, launch in programs.items()},
        }  # fmt: skip
        return "\n".join(_section(name, values) for name, values in sections.items())

    def _program(self, name: str, launch: Launch) -> dict[str, Any]:
        environment = {**SHARED_CORES, **launch.environment}
        return {
            "command": " ".join(_quote(word) for word in launch.command),
            "environment": ",".join(f"{key}={_quote(value)}" for key, value in environment.items()),
            "directory": ROOT, "autostart": "false", "autorestart": "true", "startsecs": 1, "startretries": 20,
            "stopsignal": "TERM", "stopwaitsecs": 15, "stopasgroup": "true", "killasgroup": "true",
            "redirect_stderr": "true", "stdout_logfile": self.log(name), "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": 2,
        }  # fmt: skip

    def _call(self, method: str, *arguments: Any) -> Any:
        proxy = xmlrpc.client.ServerProxy("http://localhost", transport=SupervisorTransport("", "", f"unix://{self.socket}"))
        try:
            return getattr(proxy, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            raise Unavailable(f"{method}{arguments}: {fault.faultString}") from None
        except _GONE:
            raise Unavailable("the platform does not run; start it with make demo") from None


def _socket_path(home: Path) -> Path:
    """Under home where the path fits into a socket address (about 100 bytes), else in the temporary folder."""
    path = home / "run" / "supervisor.sock"
    if len(str(path)) <= 90:
        return path
    return Path(tempfile.gettempdir()) / f"minimart-{hashlib.sha256(str(home).encode()).hexdigest()[:16]}.sock"


def _process(info: dict[str, Any]) -> Process:
    uptime = info["now"] - info["start"] if info["statename"] == "RUNNING" else 0
    return Process(info["name"], info["statename"], info["pid"], uptime, info["spawnerr"])


def _section(name: str, values: dict[str, Any]) -> str:
    return f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())


def _quote(word: str) -> str:
    """A word for supervisord: `%` starts an expansion there, quotes keep spaces, commas and semicolons."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _kill_group(pid: int) -> None:
    for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _lives(pid: int) -> bool:
    """Whether a process has this number and is not just waiting to be buried."""
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _ours(home: Path) -> Iterable[psutil.Process]:
    """Living processes with the mark of this home, or of a hiding program that works in its own folder under it."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and _lives(process.pid) and (_marked(process, home) or _hides(process, home)):
                yield process


def _marked(process: psutil.Process, home: Path) -> bool:
    return process.environ().get(MARK) == str(home)


def _hides(process: psutil.Process, home: Path) -> bool:
    folder = HIDERS.get(Path(process.exe()).name)
    return folder is not None and Path(process.cwd()) == home / folder


def _until(condition: Any, timeout_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise Unavailable(f"{otherwise} after {timeout_s:.0f} s")
        time.sleep(0.1)
