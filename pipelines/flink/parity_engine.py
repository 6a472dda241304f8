"""Flink under the parity proof: the compiled job reads it all, is killed on its way, goes on from its checkpoint."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from adapters.errors import MinimartError, Unavailable
from feature_repo.flink_partials import why_not
from feature_repo.flink_sql import Job, topic_of
from pipelines.flink import gateway, job
from pipelines.flink.serve import TileSink
from pipelines.parity import packed
from pipelines.parity.servers import Servers
from pipelines.stack.launch import free_ports, running

HOST: Final = "127.0.0.1"
CHECKPOINT_MS: Final = 1_000
HEAP_MB: Final = 2_048
START_S: Final = 300.0
Tell = Callable[[str], None]


class FlinkEngine:
    """What Flink makes of the topics, read as serving reads it: from Redis, through the packed reader."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._folder = servers.home / "flink"
        self.killed = False

    def refused(self) -> Mapping[str, str]:
        return why_not(self._servers.plan)

    def process(self, tell: Tell) -> None:
        gateway.install(tell=tell)
        servers = self._servers
        self._job = Job(bootstrap=servers.bootstrap, topic=topic_of(servers.plan), bounded=True,
                        checkpoint_ms=CHECKPOINT_MS, checkpoints=self._folder.joinpath("checkpoints").as_uri())
        job.prepare(self._job, servers.partitions)
        begun = time.monotonic()
        if not self._finished(self._job, tell, kill=True):
            origin = job.newest_checkpoint(self._folder / "checkpoints")
            tell(f"Flink was killed (kill -9) after {time.monotonic() - begun:.0f} s, goes on from {Path(origin).name}")
            self._finished(replace(self._job, resume_from=origin), tell, kill=False)
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

    def _finished(self, asked: Job, tell: Tell, *, kill: bool) -> bool:
        """Run the job on a gateway of its own; False if it was killed on its way, after its first checkpoint."""
        (port,) = free_ports(1)
        start = gateway.launch(self._folder, host=HOST, port=port, heap_mb=HEAP_MB)
        log = self._folder / "gateway.log"
        with running(start, log=log, ready=lambda: gateway.ready(HOST, port), timeout_s=START_S) as process:
            done = threading.Event()
            killer = threading.Thread(target=self._kill, args=(process, done), daemon=True)
            if kill:
                killer.start()
            try:
                job.run(self._servers.plan, asked, f"http://{HOST}:{port}", tell)
            except MinimartError as error:
                if self.killed and kill:
                    return False
                raise Unavailable(f"{error.detail}; the end of {log}:\n{log.read_text(errors='replace')[-2000:]}"
                                  ) from None
            finally:
                done.set()
        return True

    def _kill(self, process: subprocess.Popen[Any], done: threading.Event) -> None:
        """Kill -9 once there is a checkpoint to go on from and rows that no reader may see: of an open transaction."""
        while not done.wait(0.2):
            if job.newest_checkpoint(self._folder / "checkpoints") and any(
                    self._servers.ends((self._job.topic,)).values()):
                self.killed = True
                process.send_signal(signal.SIGKILL)
                return
