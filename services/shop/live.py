"""What the stream features know about one shopper now, and the moment they change: so pages refresh themselves."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from adapters.errors import Unavailable
from adapters.online_store import OnlineStore
from feature_repo.plan import FeaturePlan
from feature_repo.tiles import windows

VIEW: Final = "user_activity"
QUICK_S, CALM_S = 0.12, 1.5  # between two looks: just after the shopper did something, and otherwise
EAGER_S: Final = 5.0  # how long after an action we look quickly
GIVE_UP_S: Final = 1.2  # features did not react by then: refresh the feed all the same
BEAT_S: Final = 15.0

Windows = Mapping[str, Any]
Change = Literal["features", "feed", "beat"]


class Features(Protocol):
    """Where the live features of a shopper come from."""

    async def windows(self, user_id: str) -> Windows:
        """Feature name -> value, as of now. Raises Unavailable when the store or the plan is away."""


class StoredFeatures:
    """The features in the online store, merged into windows at the moment of reading."""

    def __init__(self, redis_url: str, plan_file: Path) -> None:
        self._redis_url, self._plan_file = redis_url, plan_file
        self._store: OnlineStore | None = None
        self._plan: FeaturePlan | None = None

    async def windows(self, user_id: str) -> Windows:
        plan, store = self._open()
        (packed,) = await store.read(VIEW, [(user_id,)])
        return windows(plan.view(VIEW), packed, time.time_ns() // 1_000_000)

    def _open(self) -> tuple[FeaturePlan, OnlineStore]:
        if self._plan is None or self._store is None:
            try:
                self._plan = FeaturePlan.load(self._plan_file)
            except (OSError, ValueError):
                raise Unavailable("the feature plan is not there yet; `make demo` writes it") from None
            self._store = OnlineStore(self._redis_url, self._plan, timeout_ms=250)
        return self._plan, self._store

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()


class Watch:
    """Tells a shopper's open pages when to redraw; `acted` says that the shopper just did something."""

    def __init__(self, features: Features, most_shoppers: int = 10_000) -> None:
        self.features = features
        self._acted: OrderedDict[str, float] = OrderedDict()
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._most = most_shoppers

    def acted(self, user_id: str) -> None:
        self._acted[user_id] = time.monotonic()
        self._acted.move_to_end(user_id)
        while len(self._acted) > self._most:
            self._acted.popitem(last=False)
        for waiting in self._waiting.get(user_id, ()):
            waiting.set()

    async def now(self, user_id: str) -> Windows | None:
        """The live features, None while they are away."""
        try:
            return await self.features.windows(user_id)
        except Unavailable:
            return None

    async def changes(self, user_id: str, ended: Callable[[], bool]) -> AsyncIterator[tuple[Change, Windows | None]]:
        """What to redraw, as it happens, until `ended()`: the strip of features, or the feed too; else a beat."""
        seen, woken = await self.now(user_id), asyncio.Event()
        handled, beat = time.monotonic(), time.monotonic()
        self._waiting.setdefault(user_id, set()).add(woken)
        try:
            while not ended():
                await self._pause(user_id, woken)
                acted, moment, found = self._acted.get(user_id, 0.0), time.monotonic(), await self.now(user_id)
                late = acted > handled and moment - acted > GIVE_UP_S
                if late or grew(seen, found):
                    handled = moment
                    yield "feed", found
                elif found != seen:
                    yield "features", found
                elif moment - beat > BEAT_S:
                    yield "beat", None
                else:
                    continue
                seen, beat = found, moment
        finally:
            self._waiting[user_id].discard(woken)
            if not self._waiting[user_id]:
                del self._waiting[user_id]

    async def _pause(self, user_id: str, woken: asyncio.Event) -> None:
        """Wait until it is time for the next look: soon after an action, which also ends a long wait."""
        if time.monotonic() - self._acted.get(user_id, -EAGER_S) < EAGER_S:
            await asyncio.sleep(QUICK_S)
            return
        woken.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(woken.wait(), CALM_S)


def grew(before: Windows | None, after: Windows | None) -> bool:
    """Whether the features saw something new of the shopper; windows that only decay are no reason for a new feed."""
    if after is None or before is None:
        return before is None and after is not None
    more = any(
        (after.get(name) or 0) > (before.get(name) or 0)
        for name in ("user_clicks_count_5m", "user_carts_count_1h", "user_orders_count_24h")
    )
    return more or after.get("user_recent_items") != before.get("user_recent_items")
