"""The compiled job on a gateway: its topic, its statements, its checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from adapters.flink import SqlGateway
from adapters.kafka import ensure_topic
from feature_repo import flink_sql
from feature_repo.flink_sql import Job
from feature_repo.plan import FeaturePlan

EVERY_S = 5.0
Tell = Callable[[str], None]


def prepare(job: Job, partitions: int) -> None:
    """Create the topic of tiles: compacted, and what no window can reach any more is dropped. Raises Unavailable."""
    ensure_topic(job.bootstrap, job.topic, partitions,
                 {"cleanup.policy": "compact,delete", "retention.ms": str(flink_sql.RETENTION_MS)})


def run(plan: FeaturePlan, job: Job, gateway: str, tell: Tell, enough: Callable[[], bool] = lambda: False) -> None:
    """Submit the job and stay with it until somebody stops it, or until `enough`, asked twice a second, is true.

    Raises BadInput with Flink's complaint, Unavailable when the gateway goes away.
    """
    session = SqlGateway(gateway)
    begun = time.monotonic()
    told = begun

    def left_alone() -> bool:
        nonlocal told
        if time.monotonic() - told > EVERY_S:
            told = time.monotonic()
            tell(f"the job runs for {told - begun:.0f} s")
        return enough()

    try:
        *before, start = flink_sql.statements(plan, job)
        session.run_all([*before, "SET 'table.dml-sync' = 'true'"])
        tell(f"{len(before)} statements accepted after {time.monotonic() - begun:.0f} s; starting the job")
        session.wait(session.submit(start), start, left_alone)
    finally:
        session.close()


def newest_checkpoint(folder: Path) -> str:
    """The address of the newest complete checkpoint of any run under `folder`; empty if there is none."""
    found = _newest(folder)
    return found.as_uri() if found else ""


def checkpoint_number(folder: Path) -> int:
    """The number of that checkpoint: 1, 2, ..., counted on by a job that goes on from one; 0 if there is none."""
    found = _newest(folder)
    return int(found.name.removeprefix("chk-")) if found else 0


def _newest(folder: Path) -> Path | None:
    def made(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except FileNotFoundError:  # Flink has dropped it for a newer one
            return 0.0

    complete = sorted(folder.glob("*/chk-*/_metadata"), key=made)
    return complete[-1].parent if complete else None
