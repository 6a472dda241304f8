"""The run of the Python stream workers: killed at named and at random points, restarted, more of them and fewer.

A named point is a place in the worker's commit at which it ends by itself as by kill -9 (MINIMART_CRASH_POINT); a
random one is a share of an act's records, drawn by the seed, at which a worker, drawn too, gets kill -9.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from adapters.errors import Unavailable
from pipelines.parity.sending import Sender
from pipelines.parity.servers import Process, Servers, kill, stop
from pipelines.stack.launch import free_ports

POINTS: Final = ("after_poll", "after_count", "during_publish", "after_publish", "after_commit")
NAMES: Final = ("a", "b", "c")
RECORDS_PER_TURN: Final = 5_000
WAIT_S: Final = 300.0  # without any progress
Tell = Callable[[str], None]


class Script(NamedTuple):
    """What happens during one act: named crashes of a lone worker, then so many workers and kills at random points."""

    workers: int
    named: tuple[str, ...] = ()
    random: int = 0


LONG: Final = (Script(2, named=POINTS), Script(2, random=1), Script(3, random=1), Script(1, random=1))
SHORT: Final = (Script(2, named=POINTS), Script(1, random=1))


@dataclass(frozen=True)
class Fault:
    """What was done to the workers, for the report. `seconds` since the run began, `sent` and `committed` records."""

    what: str
    seconds: float
    sent: int
    committed: int


class Play:
    """Runs acts on real workers, and the event log beside them."""

    def __init__(self, servers: Servers, sender: Sender, rng: random.Random, tell: Tell) -> None:
        self._servers, self._sender, self._rng, self._tell = servers, sender, rng, tell
        self._ports = free_ports(len(NAMES) + 1)
        self._state = servers.state
        self._workers: dict[str, Process] = {}
        self._event_log: Process | None = None
        self._began = time.monotonic()
        self._elsewhere: int | None = None
        self.faults: list[Fault] = []
        self.timeline: list[tuple[float, int, int]] = []  # seconds, records sent, records committed

    def act(self, script: Script, until: int) -> None:
        """Send the stream up to record `until` under the script's faults; returns when all of it is committed."""
        first = self._sender.sent
        if script.named:
            self._named_crashes(script.named, first, until)
        self._sender.begin(until)
        self._hire(NAMES[:script.workers])
        for share in sorted(self._rng.uniform(0.2, 0.8) for _ in range(script.random)):
            self._kill_at(first + int(share * (until - first)))
        self._sender.finish()
        self._drain()

    def start_event_log(self) -> None:
        self._event_log = self._servers.start("event_log", self._ports[-1])

    def kill_event_log(self) -> None:
        """kill -9, and start it again: the lake's file names say where to go on."""
        if self._event_log is not None:
            kill(self._event_log)
            self.note("event log killed")
        self.start_event_log()

    def end(self) -> None:
        """Stop workers and event log in order. Raises Unavailable when one does not end well."""
        self._hire(())
        if self._event_log is not None:
            stop(self._event_log)
        self._state.close()

    def _named_crashes(self, points: tuple[str, ...], first: int, until: int) -> None:
        self._hire(())
        piece = (until - first) // (len(points) + 1)
        for n, point in enumerate(points):
            nth = 1 + self._rng.randrange(max(1, min(4, piece // (2 * RECORDS_PER_TURN))))
            self._sender.begin(first + (n + 1) * piece)
            worker = self._start("a", f"{point}:{nth}")
            self._watch(lambda worker=worker: worker.poll() is not None, f"no crash at {point}:{nth}")  # type: ignore[misc]
            if worker.returncode != 137:
                raise Unavailable(f"a worker ended with {worker.returncode}, not at {point}; see {self._servers.home}")
            self.note(f"crash {point}:{nth}")
            self._sender.finish()

    def _kill_at(self, records: int) -> None:
        """Kill one worker once so many records of the stream are committed, and start it again."""
        self._watch(lambda: self._committed() >= records, f"{records} records were not reached")
        name = self._rng.choice(sorted(self._workers))
        kill(self._workers.pop(name))
        self.note(f"kill -9 of worker {name}, one of {len(self._workers) + 1}")
        time.sleep(self._rng.uniform(0, 1.5))
        self._workers[name] = self._start(name)

    def _drain(self) -> None:
        # What was sent and not yet committed also waits between the two stages: only `done` knows that.
        self._watch(lambda: self._committed() >= self._sender.sent, "the workers do not catch up")
        self._servers.wait_done(WAIT_S)
        self._sample()

    def _hire(self, names: tuple[str, ...]) -> None:
        """Have exactly these workers."""
        for name in set(self._workers) - set(names):
            stop(self._workers.pop(name))
        for name in names:
            if name not in self._workers:
                self._workers[name] = self._start(name)
        if names:
            self.note(f"{len(names)} worker{'s' * (len(names) > 1)}")

    def _start(self, name: str, crash_point: str = "") -> Process:
        return self._servers.start("stream_features", self._ports[NAMES.index(name)], stream_worker=name,
                                   crash_point=crash_point)

    def _watch(self, ready: Callable[[], bool], otherwise: str) -> None:
        """Wait for `ready`, telling how far all is. Raises Unavailable after a while without any progress."""
        moved, told, before = time.monotonic(), 0.0, (-1, -1)
        while not ready():
            now = time.monotonic()
            sent, committed = self._sample()
            if (sent, committed) != before:
                moved, before = now, (sent, committed)
            if now - moved > WAIT_S:
                raise Unavailable(f"{otherwise}, and nothing moves for {WAIT_S:.0f} s: sent {sent:,}, committed "
                                  f"{committed:,}; see {self._servers.home}/*.log")
            if now - told > 5:
                self._tell(f"sent {sent:,}, committed {committed:,}")
                told = now
            time.sleep(0.2)

    def _committed(self) -> int:
        topics = set(self._servers.plan.topics)
        return sum(n for (topic, _), n in self._servers.committed(self._state).items() if topic in topics)

    def came(self, committed: int) -> None:
        """So many records are done by an engine that is not the stream workers."""
        self._elsewhere = committed
        self._sample()

    def _sample(self) -> tuple[int, int]:
        sent, committed = self._sender.sent, self._committed() if self._elsewhere is None else self._elsewhere
        self.timeline.append((time.monotonic() - self._began, sent, committed))
        return sent, committed

    def note(self, what: str) -> None:
        """A fault, and how far the run has come by then."""
        sent, committed = self._sample()
        self.faults.append(Fault(what, self.timeline[-1][0], sent, committed))
        self._tell(f"{what}  (sent {sent:,}, committed {committed:,})")
