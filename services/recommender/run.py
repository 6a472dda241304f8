"""The clockwork of one request: how long each stage took, what it may take, and what had to be left out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeVar

import structlog

from adapters.errors import MinimartError
from services.recommender.terms import REASONS, STAGES, Stage

T = TypeVar("T")
LATE: Final[Mapping[Stage, str]] = {
    "retrieve": "retrieve_late", "features": "features_late", "prerank": "prerank_skipped", "rank": "rank_skipped",
    "rerank": "rerank_skipped",
}
_log = structlog.get_logger()


class Run:
    """One request's stages. A stage that fails or is late is left out and named; it never fails the request."""

    def __init__(self, budgets_ms: Mapping[Stage, float]) -> None:
        self._budgets_ms = budgets_ms
        self._started = time.perf_counter()
        self._spent: dict[Stage, float] = dict.fromkeys(STAGES, 0.0)
        self._begun: dict[Stage, float] = {}
        self._reasons: set[str] = set()

    def say(self, reason: str) -> None:
        """Name something that the answer lacks; one of REASONS."""
        assert reason in REASONS, reason
        self._reasons.add(reason)

    @property
    def degraded(self) -> tuple[str, ...]:
        return tuple(reason for reason in REASONS if reason in self._reasons)

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        begun = self._begun[stage] = time.perf_counter()
        try:
            yield
        finally:
            del self._begun[stage]
            self._spent[stage] += time.perf_counter() - begun

    async def stage(self, stage: Stage, work: Awaitable[T], otherwise: T) -> T:
        """What `work` gives within what is left of the stage's budget; `otherwise` if it fails or is late."""
        with self.timed(stage), self.skipping(stage):
            async with asyncio.timeout(max(self.left_s(stage), 0.0)):
                return await work
        return otherwise

    @contextmanager
    def skipping(self, stage: Stage) -> Iterator[None]:
        """Leave out what fails inside, and name it."""
        try:
            yield
        except (TimeoutError, MinimartError) as error:
            _log.debug("stage_skipped", stage=stage, why=str(error) or "late")
            self.say(LATE[stage])
        except Exception:  # noqa: BLE001 whatever a stage does, the shopper gets an answer
            _log.exception("stage_failed", stage=stage)
            self.say(LATE[stage])

    def left_s(self, stage: Stage) -> float:
        """Seconds that the stage may still take."""
        now = time.perf_counter()
        return self._budgets_ms[stage] / 1000 - self._spent[stage] - (now - self._begun.get(stage, now))

    def timings_ms(self) -> dict[str, float]:
        total = time.perf_counter() - self._started
        return {**{s: round(1000 * t, 3) for s, t in self._spent.items()}, "total": round(1000 * total, 3)}
