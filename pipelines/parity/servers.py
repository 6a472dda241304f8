"""A broker and a Redis of its own, the services as processes on them, and how far they have come."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition

from adapters.errors import Unavailable
from adapters.feature_state import FeatureState
from adapters.kafka import ensure_topics
from feature_repo import events
from feature_repo.plan import FeaturePlan
from pipelines.stack import kafka_broker, redis_server
from pipelines.stack.launch import free_ports, running
from settings import ROOT

HOST: Final = "127.0.0.1"
PARTITIONS: Final = 4
Process = subprocess.Popen[bytes]


@dataclass
class Servers:
    """A home folder with the plan, a broker, a Redis, and the processes started on them."""

    home: Path
    bootstrap: str
    redis_url: str
    plan: FeaturePlan
    python: str
    partitions: int = PARTITIONS
    processes: list[Process] = field(default_factory=list)

    @property
    def lake(self) -> Path:
        return self.home / "lake"

    @property
    def state(self) -> FeatureState:
        return FeatureState(self.redis_url, self.plan)

    def start(self, service: str, port: int, **settings: str) -> Process:
        """Start `python -m services.<service>` with MINIMART_<settings>; logs to `<service>-<port>.log`."""
        own = {f"{service}_port": str(port)} | settings
        return self.start_module(f"services.{service}", f"{service}-{port}", **own)

    def start_module(self, module: str, log_name: str, *arguments: str, **settings: str) -> Process:
        own = {"home": str(self.home), "kafka_bootstrap": self.bootstrap, "redis_url": self.redis_url,
               "kafka_partitions": str(self.partitions)} | settings
        env = os.environ | {f"MINIMART_{k.upper()}": v for k, v in own.items()}
        with (self.home / f"{log_name}.log").open("ab") as log:
            process = subprocess.Popen([self.python, "-m", module, *arguments], cwd=ROOT, env=env, stdout=log,
                                       stderr=log)
        self.processes.append(process)
        return process

    def end(self) -> None:
        """Kill every process that was started and still runs."""
        for process in self.processes:
            process.kill()
            process.wait(10)

    def ends(self, topics: tuple[str, ...]) -> dict[tuple[str, int], int]:
        """(topic, partition) -> the offset after its last record."""
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap)
        wanted = [TopicPartition(t, p) for t in topics for p in range(self.partitions)]
        found = {(tp.topic, tp.partition): end for tp, end in consumer.end_offsets(wanted).items()}
        consumer.close()
        return found

    def committed(self, state: FeatureState) -> dict[tuple[str, int], int]:
        """(topic, partition) -> the next offset that the stream workers have committed."""
        return {(topic, p): offset for p in range(self.partitions) for topic, offset in state.account(p)[0].items()}

    def committed_by(self, group: str, topics: tuple[str, ...]) -> dict[tuple[str, int], int]:
        """(topic, partition) -> the next offset that a group of Kafka's own has committed; 0 before its first."""
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap, group_id=group, enable_auto_commit=False)
        found = {(t, p): consumer.committed(TopicPartition(t, p)) or 0 for t in topics for p in range(self.partitions)}
        consumer.close()
        return found

    def done(self) -> float:
        """The share of what is in Kafka that has been committed, the topic between the stages included."""
        ends = self.ends((*self.plan.topics, events.REKEYED))
        state = self.state
        committed = self.committed(state)
        state.close()
        total = sum(ends.values())
        return 1 - sum(end - committed.get(place, 0) for place, end in ends.items()) / max(total, 1)

    def wait_done(self, seconds: float = 90) -> None:
        """Wait until everything in Kafka has been committed. Raises Unavailable after `seconds` without progress."""
        before, since = -1.0, time.monotonic()
        while (now := self.done()) < 1:
            if now > before:
                before, since = now, time.monotonic()
            if time.monotonic() - since > seconds:
                raise Unavailable(f"the stream workers stand at {now:.2%} for {seconds:.0f} s; see {self.home}/*.log")
            time.sleep(0.3)


@contextmanager
def servers(folder: Path, plan: FeaturePlan, python: str, *, heap_mb: int = 512, redis_mb: int = 2048
            ) -> Iterator[Servers]:
    """Everything lies under `folder`; what was started is ended at the end of the block. Raises Unavailable."""
    home = folder / "home"
    for path in (folder / "kafka", folder / "redis", home / "features"):
        path.mkdir(parents=True)
    (home / "features" / "plan.json").write_bytes(plan.dump())
    kafka_port, controller, redis_port = free_ports(3)
    broker = kafka_broker.launch(folder / "kafka", host=HOST, port=kafka_port, controller_port=controller,
                                 partitions=PARTITIONS, heap_mb=heap_mb)
    store = redis_server.launch(folder / "redis", host=HOST, port=redis_port, memory_mb=redis_mb)
    with (running(broker, log=folder / "kafka.log", ready=lambda: kafka_broker.ready(HOST, kafka_port)),
          running(store, log=folder / "redis.log", ready=lambda: redis_server.ready(HOST, redis_port))):
        found = Servers(home, f"{HOST}:{kafka_port}", f"redis://{HOST}:{redis_port}/0", plan, python)
        ensure_topics(found.bootstrap, PARTITIONS, forever=True)
        try:
            yield found
        finally:
            found.end()


def kill(process: Process) -> None:
    """End it as by kill -9."""
    process.send_signal(signal.SIGKILL)
    process.wait(10)


def stop(process: Process, seconds: float = 30) -> None:
    """Ask it to end. Raises Unavailable when it has not ended well after `seconds`; one that was still starting, and
    knew no signals yet, may end by the signal itself."""
    process.terminate()
    try:
        code: Any = process.wait(seconds)
    except subprocess.TimeoutExpired:
        kill(process)
        code = f"had to be killed after {seconds:.0f} s"
    if code not in (0, -signal.SIGTERM):
        raise Unavailable(f"{process.args!r}: ended with {code}")
