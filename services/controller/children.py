"""The programs that the controller starts, one of each at a time: drift check, check of the contracts, training.

They outlive a controller that is killed; its successor asks for the same job, which goes on where the first one is.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from models.rollout.events import DriftReported, JobEnded
from models.rollout.state import Job, Lineup

_log = structlog.get_logger()
_STOP_S: Final = 5.0
REFUSED: Final = 2
"""Exit code of a training whose challenger the gate refused."""


class Outcome(msgspec.Struct, frozen=True):
    """What a training writes: see pipelines/retrain.py."""

    outcome: str
    reason: str
    challenger: Lineup | None = None
    bypassed: bool = False
    evidence: dict[str, Any] = {}


@dataclass
class _Child:
    what: str
    process: subprocess.Popen[bytes]
    out: Path
    told: bool = False
    """Whether its result was handed on already."""


class Children:
    """Starts and watches them. `python` runs the training environment, `folder` takes results and logs."""

    def __init__(self, python: str, root: Path, folder: Path, window: str) -> None:
        self._python, self._root, self._folder, self._window = python, root, folder, window
        self._job: tuple[str, int, _Child] | None = None
        self._drift: _Child | None = None
        self._contracts: _Child | None = None

    def ensure(self, job: Job) -> None:
        """Have this attempt of this job running."""
        if self._job is not None and self._job[:2] == (job.id, job.attempt):
            return
        self.stop_job()
        out = self._folder / f"{job.id}.json"
        command = ["pipelines.retrain", "--id", job.id, "--out", str(out)]
        command += ["--given", job.folder] if job.folder else []
        command += ["--bypass"] if job.bypass else []
        self._job = (job.id, job.attempt, self._start(f"job {job.id}", command, out))

    def stop_job(self) -> None:
        if self._job is not None:
            _stop(self._job[2])
            self._job = None

    def job_ended(self, at_ms: int) -> JobEnded | None:
        """How the job ended, once."""
        if self._job is None or self._job[2].process.poll() is None:
            return None
        job_id, _, child = self._job
        self._job = None
        try:
            found = msgspec.json.decode(child.out.read_bytes(), type=Outcome)
        except (OSError, msgspec.DecodeError) as error:
            why = f"exit code {child.process.returncode} and no result ({error}); see {self._log_of(child.what)}"
            return JobEnded(at_ms, job_id, "failed", why)
        outcome = found.outcome if found.outcome in ("passed", "refused") else "failed"
        return JobEnded(
            at_ms, job_id, outcome, found.reason, found.challenger, found.bypassed, found.evidence  # type: ignore[arg-type]
        )  # fmt: skip

    def check_drift(self, *, report: bool) -> bool:
        """Start a drift check unless one runs; `report` also makes the pages that people look at."""
        if self._drift is not None:
            return False
        out = self._folder / "drift-check.json"
        out.unlink(missing_ok=True)
        command = ["pipelines.check_drift", "--window", self._window, "--out", str(out), "--quiet"]
        self._drift = self._start("drift check", command + ([] if report else ["--no-html"]), out)
        return True

    def check_contracts(self) -> bool:
        """Start a check of the data contracts unless one runs. It tells Prometheus; nothing here depends on it."""
        if self._contracts is not None and self._contracts.process.poll() is None:
            return False
        out = self._folder / "contracts-check.json"
        command = ["pipelines.check_contracts", "--quiet", "--out", str(out)]
        self._contracts = self._start("contracts check", command, out)
        return True

    def drift_reported(self, at_ms: int) -> DriftReported | None:
        """The report of the check that runs, once it is written; None also where it could not report.

        The check then still sends it to Kafka, which takes seconds where Kafka is away: nobody need wait for that.
        """
        child = self._drift
        if child is None:
            return None
        ended = child.process.poll() is not None  # asked first: what a program leaves behind is there when it ended
        if ended:
            self._drift = None
        if child.told or not (ended or child.out.exists()):
            return None
        child.told = True
        try:
            report = msgspec.json.decode(child.out.read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError):
            _log.warning("drift_check_failed", code=child.process.returncode, log=str(self._log_of(child.what)))
            return None
        return drift_event(report, at_ms)

    def close(self) -> None:
        """End what runs; a training goes on later where it was."""
        self.stop_job()
        for child in (self._drift, self._contracts):
            if child is not None:
                _stop(child)

    def _start(self, what: str, command: list[str], out: Path) -> _Child:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._log_of(what).open("ab") as log:
            process = subprocess.Popen(
                [self._python, "-m", *command], cwd=self._root, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        _log.info("child_started", what=what, pid=process.pid)
        return _Child(what, process, out)

    def _log_of(self, what: str) -> Path:
        return self._folder / f"{what.replace(' ', '-')}.log"


def drift_event(report: dict[str, Any], at_ms: int) -> DriftReported:
    """What a report means here: breakage, and trouble of operations alone, is nothing that training could heal."""
    verdict, reasons = str(report.get("verdict", "insufficient_data")), tuple(map(str, report.get("reasons", ())))
    kinds = {kind for kind, level in dict(report.get("kinds", {})).items() if level == "drift"}
    if verdict == "drift" and (report.get("breakage") or (kinds <= {"operations"} and kinds)):
        verdict = "warn"
    return DriftReported(at_ms, str(report.get("id", "")), verdict, reasons)


def _stop(child: _Child) -> None:
    child.process.terminate()
    try:
        child.process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.process.kill()
        child.process.wait(_STOP_S)
