"""The online store as readers see it: packed tiles by key, and all items as columns in memory.

Redis holds Feast's own layout (`feast_redis.py`), so the Feast SDK reads the same values. A read costs one round trip
and never more than its timeout; a Redis that is away, slow or hung raises Unavailable.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import numpy as np
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from adapters import feast_redis
from adapters.errors import Unavailable
from adapters.redis_pipe import RedisPipe
from feature_repo.batch_read import Lasting, ViewReader
from feature_repo.plan import FeaturePlan, ViewPlan
from feature_repo.windows import MINUTE_MS

Key = tuple[str, ...]
NEVER: Final = Retry(NoBackoff(), 0)
CHUNK: Final = 500
PAUSE_S: Final = 0.005
"""Between two chunks of items that are worked out, so that who answers meanwhile is not held up by all at once."""
WRITTEN: Final = "minimart:written"
"""The hash view -> when (ms) any of its keys was last written."""
SNAPSHOT_ENTITY: Final = "item"
"""Only of views of this entity is it kept which keys were written when, for `ItemSnapshot`."""


def touched_key(view: str) -> str:
    """The sorted set of a view's keys, scored by when (ms) each was last written; kept for views of items."""
    return f"minimart:touched:{view}"


def connect(redis_url: str, timeout_s: float) -> Any:
    """A blocking client that connects when first used and gives up after `timeout_s`."""
    return redis.Redis.from_url(redis_url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=NEVER)


class FeatureReader(Protocol):
    """What the recommender asks."""

    async def read_many(self, asked: Sequence[tuple[str, Sequence[Key]]]) -> list[list[bytes | None]]:
        """Packed tiles per (view, keys) in order of asking; None where there are none. Raises Unavailable."""


def tiles_command(project: str, view: ViewPlan) -> Callable[[Key], bytes]:
    """How Redis is asked for the packed tiles of one key of a view, with what all keys share worked out once."""
    make, field = feast_redis.key_maker(project, view.join_keys), feast_redis.field(view.name, view.stored)
    tail = b"\r\n$%d\r\n%b\r\n" % (len(field), field)

    def ask(key: Key) -> bytes:
        name = make(key)
        return b"*3\r\n$4\r\nHGET\r\n$%d\r\n%b%b" % (len(name), name, tail)

    return ask


class OnlineStore:
    """FeatureReader on Redis. `timeout_ms` bounds every read, connecting included."""

    def __init__(self, redis_url: str, plan: FeaturePlan, timeout_ms: float = 50) -> None:
        self._pipe = RedisPipe(redis_url, timeout_ms / 1000)
        self._asks = {view.name: tiles_command(plan.project, view) for view in plan.declared_views}

    async def read(self, view: str, keys: Sequence[Key]) -> list[bytes | None]:
        """Packed tiles of `keys` in their order. Raises Unavailable."""
        return (await self.read_many([(view, keys)]))[0]

    async def read_many(self, asked: Sequence[tuple[str, Sequence[Key]]]) -> list[list[bytes | None]]:
        values = iter(await self._pipe.run([self._asks[name](key) for name, keys in asked for key in keys]))
        return [[feast_redis.bytes_of(next(values)) for _ in keys] for _, keys in asked]

    async def close(self) -> None:
        await self._pipe.close()


class MemoryReader:
    """The fake FeatureReader: `values[view][key]`; `down` makes it Unavailable."""

    def __init__(self) -> None:
        self.values: dict[str, dict[Key, bytes]] = {}
        self.down = False

    async def read(self, view: str, keys: Sequence[Key]) -> list[bytes | None]:
        return (await self.read_many([(view, keys)]))[0]

    async def read_many(self, asked: Sequence[tuple[str, Sequence[Key]]]) -> list[list[bytes | None]]:
        if self.down:
            raise Unavailable("the online store is down")
        return [[self.values.get(view, {}).get(key) for key in keys] for view, keys in asked]

    async def close(self) -> None:
        """Nothing to release."""


class ItemSnapshot:
    """Windows of every item as columns, kept fresh by a thread: only keys written since are read, and once a minute
    those are worked out again which the clock changes. While Redis is away the last known tiles go on decaying."""

    def __init__(self, redis_url: str, plan: FeaturePlan, *, view: str = "item_activity", refresh_s: float = 1.0,
                 timeout_s: float = 2.0) -> None:
        self._view: ViewPlan = plan.view(view)
        self._project = plan.project
        self._client = connect(redis_url, timeout_s)
        self._refresh_s = refresh_s
        self._packed: list[bytes | None] = []
        self._rows: dict[str, int] = {}
        self._reader = ViewReader(self._view)
        self._columns, self._until_ms = self._reader.lasting([], 0)
        self._computed_ms = 0
        self._since = "-inf"
        self._fresh_at: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="item-snapshot", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        self._client.close()

    @property
    def ready(self) -> bool:
        """Whether Redis has been read at least once."""
        return self._fresh_at is not None

    @property
    def items(self) -> tuple[str, ...]:
        """The items in order of their rows."""
        return tuple(self._rows)

    def age_s(self) -> float:
        """Seconds since Redis was last read well; infinite before the first time."""
        return float("inf") if self._fresh_at is None else time.monotonic() - self._fresh_at

    def row_of(self, item_id: str) -> int:
        """The row of an item in every column, or -1. An item that appears now may have a row before its columns do."""
        return self._rows.get(item_id, -1)

    def columns(self, now_ms: int) -> dict[str, np.ndarray]:
        """Feature -> array [items], as of at most two minutes from `now_ms` (recomputed here if the clock jumped)."""
        if abs(now_ms - self._computed_ms) > 2 * MINUTE_MS:
            self._decay(now_ms)
        return self._columns

    def refresh(self, now_ms: int) -> int:
        """Read the keys written since the last time; returns how many. Raises Unavailable, and then still decays."""
        if now_ms // MINUTE_MS != self._computed_ms // MINUTE_MS:
            self._decay(now_ms)
        changed = self._read_changed(now_ms)
        if changed:
            self._compute(now_ms, changed)
        self._fresh_at = time.monotonic()
        return len(changed)

    def _decay(self, now_ms: int) -> None:
        """Work out again what the clock has changed. A clock that was put back changes everything."""
        back = now_ms < self._computed_ms
        self._compute(now_ms, range(len(self._packed)) if back else np.flatnonzero(self._until_ms <= now_ms).tolist())
        self._computed_ms = now_ms

    def _run(self) -> None:
        while not self._stop.is_set():
            with suppress(Unavailable):  # `age_s` tells; the tiles that we have go on decaying
                self.refresh(int(time.time() * 1000))
            self._stop.wait(self._refresh_s)

    def _read_changed(self, now_ms: int) -> list[int]:
        changed: list[int] = []
        try:
            touched = self._client.zrangebyscore(touched_key(self._view.name), self._since, "+inf", withscores=True)
            for start in range(0, len(touched), 500):
                changed += self._read_chunk([member.decode() for member, _ in touched[start:start + 500]])
        except (redis.RedisError, OSError) as error:
            raise Unavailable(f"the online store did not answer: {error!r}") from None
        if touched:
            # Writers' clocks may differ and a commit is stamped before it is done: read two seconds again for a while.
            newest = max(score for _, score in touched)
            self._since = f"({newest}" if newest < now_ms - 10_000 else str(newest - 2_000)
        return changed

    def _read_chunk(self, items: list[str]) -> list[int]:
        field = feast_redis.field(self._view.name, self._view.stored)
        pipe = self._client.pipeline(transaction=False)
        for item in items:
            pipe.hget(feast_redis.redis_key(self._project, self._view.join_keys, (item,)), field)
        changed = []
        for item, message in zip(items, pipe.execute(), strict=True):
            packed = feast_redis.bytes_of(message)
            row = self._rows.get(item, len(self._packed))
            if row == len(self._packed):
                self._packed.append(None)
                self._rows[item] = row
            if packed is not None and packed != self._packed[row]:
                self._packed[row] = packed
                changed.append(row)
        return changed

    def _compute(self, now_ms: int, rows: Sequence[int]) -> None:
        """New columns, in which `rows` are as of now. Readers keep the old arrays until the swap."""
        added = len(self._packed) - len(self._until_ms)
        if added:
            rows = sorted({*rows, *range(len(self._until_ms), len(self._packed))})
        if not len(rows):
            return
        at = np.asarray(rows)
        parts = [self._read_part(rows[start:start + CHUNK], now_ms, start) for start in range(0, len(rows), CHUNK)]
        until = np.concatenate([self._until_ms, np.zeros(added, np.int64)])
        until[at] = np.concatenate([part.until_ms for part in parts])
        columns = {}
        for name, old in self._columns.items():
            new = np.concatenate([part.columns[name] for part in parts])
            column = columns[name] = np.empty(len(until), new.dtype)
            column[: len(old)] = old
            column[at] = new
        self._columns, self._until_ms = columns, until

    def _read_part(self, rows: Sequence[int], now_ms: int, place: int) -> Lasting:
        if place and threading.current_thread() is self._thread:
            self._stop.wait(PAUSE_S)
        return self._reader.lasting([self._packed[row] for row in rows], now_ms)
