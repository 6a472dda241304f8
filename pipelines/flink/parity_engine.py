"""Flink under the parity proof: the compiled job reads it all, is killed on its way, goes on from its checkpoint.

The job is the one that runs for ever. It has read everything once its group's offsets, which Flink commits with each
complete checkpoint, are at the end of every topic, and it has written everything once its own topic stands still over
two more of them. (Flink 2.3's bounded Kafka source does not serve here: gone on from a checkpoint that was made after
its splits were handed out, it is not told that there are no more, and never ends.)
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from adapters.errors import MinimartError, Unavailable
from feature_repo.flink_partials import why_not
from feature_repo.flink_sql import Job, topic_of
from pipelines.flink import gateway, job
from pipelines.flink.serve import TileSink
from pipelines.parity import packed
from pipelines.parity.engines import Witness
from pipelines.parity.servers import Servers
from pipelines.stack.launch import free_ports, running

HOST: Final = "127.0.0.1"
CHECKPOINT_MS: Final = 1_000
MORE: Final = 2
"""Complete checkpoints that must pass while nothing is written: the first may have begun before the last row."""
ATTEMPTS: Final = 3
ACCEPTED: Final = {
    "a field that nobody knows": "Flink's JSON format reads the fields of the table and passes over all others",
    "a field of another type": "it is drawn as a field said twice, of which Flink's JSON format takes the last",
}
QUIET_S: Final = 180.0
HEAP_MB: Final = 2_048
START_S: Final = 300.0
Tell = Callable[[str], None]


class CaughtUp:
    """Whether a job has read all that is in its topics, and has written all that it makes of it."""

    def __init__(self, servers: Servers, asked: Job, checkpoints: Path, witness: Witness) -> None:
        self._servers, self._job, self._checkpoints, self._witness = servers, asked, checkpoints, witness
        self._since, self._from = (-1, -1), 0
        self._quiet = time.monotonic()
        self.seen = False

    def __call__(self) -> bool:
        """Raises Unavailable when neither side has moved for QUIET_S."""
        servers = self._servers
        ends = servers.ends(servers.plan.topics)
        read = servers.committed_by(self._job.name, servers.plan.topics)
        left = sum(end - read[place] for place, end in ends.items())
        self._witness.came(sum(read.values()))
        written = sum(servers.ends((self._job.topic,)).values())
        complete = job.checkpoint_number(self._checkpoints)
        if (left, written) != self._since:
            self._since, self._from, self._quiet = (left, written), complete, time.monotonic()
        self.seen = left == 0 and written > 0 and complete >= self._from + MORE
        if time.monotonic() - self._quiet > QUIET_S:
            raise Unavailable(f"Flink has not moved for {QUIET_S:.0f} s: {left} records are not read, {written} are "
                              f"written, checkpoint {complete}")
        return self.seen


class FlinkEngine:
    """What Flink makes of the topics, read as serving reads it: from Redis, through the packed reader."""

    accepts: ClassVar[Mapping[str, str]] = ACCEPTED

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._folder = servers.home / "flink"
        self.killed = False

    def refused(self) -> Mapping[str, str]:
        return why_not(self._servers.plan)

    def process(self, tell: Tell, witness: Witness) -> None:
        gateway.install(tell=tell)
        servers = self._servers
        self._job = Job(bootstrap=servers.bootstrap, topic=topic_of(servers.plan), attempts=ATTEMPTS,
                        checkpoint_ms=CHECKPOINT_MS, checkpoints=self._folder.joinpath("checkpoints").as_uri())
        job.prepare(self._job, servers.partitions)
        begun = time.monotonic()
        if not self._finished(self._job, tell, witness, kill=True):
            origin = job.newest_checkpoint(self._folder / "checkpoints")
            after = time.monotonic() - begun
            witness.note(f"kill -9 of Flink after {after:.0f} s, it goes on from {Path(origin).name}")
            if not self._finished(replace(self._job, resume_from=origin), tell, witness, kill=False):
                raise Unavailable(f"Flink ended before it had read everything; see {self._folder}/gateway.log")
        tell(f"Flink read everything after {time.monotonic() - begun:.0f} s")
        state = servers.state
        try:
            sink = TileSink(servers.plan, state, servers.bootstrap, self._job.topic)
            tell(f"{sink.run(threading.Event(), tell, to_end=True)} records of tiles are in Redis")
        finally:
            state.close()

    def read(self, view: str, keys: Sequence[tuple[str, ...]], times: Sequence[int]) -> list[dict[str, np.ndarray]]:
        return packed.columns(self._servers.redis_url, self._servers.plan, view, keys, times)

    def outcomes(self) -> Mapping[str, int] | None:
        """Flink drops what does not count without a word."""
        return None

    def close(self) -> None:
        """Nothing runs on."""

    def _finished(self, asked: Job, tell: Tell, witness: Witness, *, kill: bool) -> bool:
        """Run the job on a gateway of its own; False if it was killed on its way, after its first checkpoint.

        Raises Unavailable with the end of its log when it failed, or did nothing for QUIET_S.
        """
        caught_up = CaughtUp(self._servers, asked, self._folder / "checkpoints", witness)
        (port,) = free_ports(1)
        start = gateway.launch(self._folder, host=HOST, port=port, heap_mb=HEAP_MB)
        log = self._folder / "gateway.log"
        with running(start, log=log, ready=lambda: gateway.ready(HOST, port), timeout_s=START_S) as process:
            done = threading.Event()
            killer = threading.Thread(target=self._kill, args=(process, done), daemon=True)
            if kill:
                killer.start()
            try:
                job.run(self._servers.plan, asked, f"http://{HOST}:{port}", tell, caught_up)
            except MinimartError as error:
                if self.killed and kill:
                    return False
                raise Unavailable(f"{error.detail}; the end of {log}:\n{log.read_text(errors='replace')[-2000:]}"
                                  ) from None
            finally:
                done.set()
        return caught_up.seen

    def _kill(self, process: subprocess.Popen[Any], done: threading.Event) -> None:
        """Kill -9 once there is a checkpoint to go on from and rows that no reader may see: of an open transaction."""
        while not done.wait(0.2):
            if job.newest_checkpoint(self._folder / "checkpoints") and any(
                    self._servers.ends((self._job.topic,)).values()):
                self.killed = True
                process.send_signal(signal.SIGKILL)
                return
