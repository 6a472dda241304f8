"""Shadow traffic: requests that the champion has answered are scored by the challenger too, after the answer was sent.

One at a time, and only while few shoppers wait; what does not fit into a short queue is skipped and counted. The result
goes to `decisions.shadow`; nobody sees it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import orjson
import structlog
from prometheus_client import Counter

from adapters.errors import MinimartError
from feature_repo.events import SHADOW
from services.recommender.recommend import Recommender
from services.recommender.roles import Choice, Roles
from services.recommender.terms import Decision

SHADOWED: Final = Counter("minimart_shadow_total", "Requests scored again by the challenger, by outcome", ["outcome"])
WAITING: Final = 8
PATIENCE_S: Final = 0.5
_log = structlog.get_logger()
for _outcome in ("scored", "skipped", "failed"):
    SHADOWED.labels(_outcome)


class Sink(Protocol):
    """The part of adapters.kafka.Publisher that is needed here."""

    def publish(self, topic: str, key: str, value: bytes, *, timestamp_ms: int | None = None) -> None:
        """Never blocks. Raises Overloaded when its buffer is full."""


class Shadow:
    """Scores in the background. `busy()` is true while shoppers wait; then shadows wait too, for a moment."""

    def __init__(
        self, recommender: Recommender, roles: Callable[[], Roles], sink: Sink, busy: Callable[[], bool] = lambda: False
    ) -> None:
        self._recommender, self._roles, self._sink, self._busy = recommender, roles, sink, busy
        self._queue: asyncio.Queue[Decision] = asyncio.Queue(maxsize=WAITING)
        self._task: asyncio.Task[None] | None = None
        self._scoring = 0

    def start(self) -> None:
        self._task = asyncio.create_task(self._work())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    @property
    def waiting(self) -> int:
        """Decisions that are queued or being scored."""
        return self._queue.qsize() + self._scoring

    def watch(self, busy: Callable[[], bool]) -> None:
        """Say how to know whether shoppers wait."""
        self._busy = busy

    def offer(self, decision: Decision) -> None:
        """Take a decision to be scored again where a shadow is asked for. Never blocks."""
        roles = self._roles()
        if roles.challenger is None or not roles.rollout.shadow:
            return
        try:
            self._queue.put_nowait(decision)
        except asyncio.QueueFull:
            SHADOWED.labels("skipped").inc()

    async def _work(self) -> None:
        while True:
            decision = await self._queue.get()
            self._scoring = 1
            try:
                SHADOWED.labels(await self._score(decision)).inc()
            except MinimartError as error:
                _log.warning("shadow_not_published", why=error.detail)
                SHADOWED.labels("failed").inc()
            except Exception:  # noqa: BLE001 a shadow must not end the others
                _log.exception("shadow_failed")
                SHADOWED.labels("failed").inc()
            finally:
                self._scoring = 0

    async def _score(self, decision: Decision) -> str:
        until = asyncio.get_running_loop().time() + PATIENCE_S
        while self._busy() and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.01)
        roles = self._roles()
        if roles.challenger is None or self._busy():
            return "skipped"
        found, error = None, None
        try:
            found = await self._recommender.recommend(
                decision.ask, Choice(roles.challenger, "canary", roles.rollout.rollout)
            )
        except Exception as failed:  # noqa: BLE001 whatever the challenger does is what we want to know
            error = f"{type(failed).__name__}: {failed}"
        record = compared(decision, found, error, dict(roles.challenger.lineup.versions), roles.rollout.rollout)
        self._sink.publish(SHADOW, decision.ask.request_id, orjson.dumps(record))
        return "failed" if found is None else "scored"


def compared(
    champion: Decision, found: Decision | None, error: str | None, versions: dict[str, str], rollout: str | None
) -> dict[str, Any]:
    """The record: what the challenger would have shown, beside what was shown."""
    theirs = [placed.item_id for placed in champion.placed]
    ours = [placed.item_id for placed in found.placed] if found else []
    return {
        "request_id": champion.ask.request_id, "event_time": champion.ask.now_ms, "user_id": champion.ask.user_id,
        "arm": "shadow", "rollout": rollout, "model_versions": dict(found.model_versions) if found else versions,
        "champion_versions": dict(champion.model_versions), "k": champion.ask.k, "items": ours,
        "scores": [placed.score for placed in found.placed] if found else [], "champion_items": theirs,
        "total_ms": found.timings_ms["total"] if found else 0.0,
        "timings_ms": dict(found.timings_ms) if found else {}, "champion_total_ms": champion.timings_ms["total"],
        "degraded": list(found.degraded) if found else [], "error": error,
        "overlap_at_k": len(set(ours) & set(theirs)) / max(len(theirs), 1),
    }  # fmt: skip
