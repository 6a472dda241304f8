"""Who is let in: few requests in the funnel at once, a short queue before it, and an early no to those beyond.

`most` bounds the requests that are here at all. Where a queue *stands*, that is, where for a whole `interval_ms` nobody
waited less than `target_ms` (the signal of CoDel, Nichols and Jacobson 2012), the limit falls to what the queue's
measured pace works off within that time; after every other interval it rises a little. So a burst that the funnel works
off is queued, and an overload is refused at the door, within microseconds and before any work. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from adapters.errors import Overloaded
from adapters.telemetry import SECONDS_BUCKETS

SHED: Final = Counter("minimart_shed_total", "Requests refused with 429, by the limit that they met", ["limit"])
QUEUE_SECONDS: Final = Histogram(
    "minimart_queue_seconds", "Seconds that a request waited for its turn in the funnel", buckets=SECONDS_BUCKETS
)
LIMIT: Final = Gauge(
    "minimart_admission_limit", "Requests that may be here at once just now", multiprocess_mode="livesum"
)
RETRY_AFTER_S: Final = 1.0
_SMOOTHING: Final = 0.1  # weight of the newest gap between two ends in the pace
for _limit in ("in_flight", "queue"):
    SHED.labels(_limit)


@dataclass(frozen=True)
class AdmissionConfig:
    """`at_once` in the funnel, the others wait: taking turns would delay all more. Times in milliseconds."""

    at_once: int = 4
    most: int = 16
    target_ms: float = 20.0
    interval_ms: float = 100.0

    def __post_init__(self) -> None:
        if self.at_once < 1 or self.most < 1:
            raise ValueError(f"at_once {self.at_once} and most {self.most} must be at least 1")
        if self.target_ms <= 0 or self.interval_ms <= 0:
            raise ValueError(f"target_ms {self.target_ms} and interval_ms {self.interval_ms} must be above 0")


class Door:
    """Who may come in, by what the queue behind it shows. Counts and decides; lets nobody wait and knows no loop.

    `clock()` is seconds. Whoever `enter`s tells how long it `waited` for its turn, and `leave`s.
    """

    def __init__(self, config: AdmissionConfig, clock: Callable[[], float]) -> None:
        self.config, self._clock = config, clock
        self.in_flight = 0
        """Requests that were let in and are not answered yet."""
        self.limit = config.most
        """Requests that may be here at once just now, at most `most`."""
        self._pace_s = 0.0
        """Seconds between two ends while others waited, smoothed; 0 = not known yet."""
        self._ended: float | None = None
        self._least_s = float("inf")
        self._interval_ends = 0.0

    @property
    def full(self) -> bool:
        return self.in_flight >= self.limit

    def enter(self) -> bool:
        """Whether there is room for one more, who then is here."""
        if self.full:
            return False
        self.in_flight += 1
        return True

    def waited(self, seconds: float) -> None:
        """Note a wait; at the end of an interval set the limit by whether a queue stood."""
        now, config = self._clock(), self.config
        self._least_s = min(self._least_s, seconds)
        if now < self._interval_ends:
            return
        stands = self._least_s > config.target_ms / 1000 and self._pace_s > 0
        room = config.at_once + int(config.target_ms / 1000 / self._pace_s) if stands else self.limit + 1
        self.limit = min(config.most, room)
        self._least_s, self._interval_ends = float("inf"), now + config.interval_ms / 1000

    def leave(self) -> None:
        """One is answered. Learn the pace from gaps during which the funnel was full: then somebody waits now."""
        self.in_flight -= 1
        now = self._clock()
        if self.in_flight < self.config.at_once:
            self._ended = None
            return
        if self._ended is not None:
            gap = now - self._ended
            self._pace_s = gap if self._pace_s == 0 else self._pace_s + _SMOOTHING * (gap - self._pace_s)
        self._ended = now


class Admission:
    """One process's door. `async with turn()` waits for a place in the funnel, or raises Overloaded at once."""

    def __init__(
        self, config: AdmissionConfig = AdmissionConfig(), *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.config, self._clock = config, clock
        self._door = Door(config, clock)
        self._turns = asyncio.Semaphore(config.at_once)
        LIMIT.set(self._door.limit)

    @property
    def in_flight(self) -> int:
        """Requests that were let in and are not answered yet."""
        return self._door.in_flight

    @property
    def busy(self) -> bool:
        """Whether half of the funnel is taken: work that can wait should."""
        return self._door.in_flight >= max(1, self.config.at_once // 2)

    @property
    def limit(self) -> int:
        """Requests that may be here at once just now, at most `most`."""
        return self._door.limit

    def refuse_if_full(self) -> None:
        """Raise Overloaded where `turn` would."""
        if self._door.full:
            raise self._refused()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A place in the funnel, in order of arrival. Raises Overloaded, without waiting, where there is no room."""
        if not self._door.enter():
            raise self._refused()
        arrived = self._clock()
        try:
            async with self._turns:
                waited = self._clock() - arrived
                QUEUE_SECONDS.observe(waited)
                before = self._door.limit
                self._door.waited(waited)
                if self._door.limit != before:
                    LIMIT.set(self._door.limit)
                yield
        finally:
            self._door.leave()

    def _refused(self) -> Overloaded:
        here, limit = self._door.in_flight, self._door.limit
        SHED.labels("in_flight" if limit == self.config.most else "queue").inc()
        return Overloaded(
            f"{here} requests are here and {limit} may be just now; try again after {RETRY_AFTER_S:g} s",
            retry_after_s=RETRY_AFTER_S,
        )
