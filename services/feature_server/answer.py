"""The decision: what each row is answered with, and what that is called. Knows no HTTP, no gRPC and no Redis.

One read for all views. What the store does not say is filled from what it said last (stale), then from the declared
defaults; a row that it answered it does not have is missing, which is not the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from adapters.breaker import Breaker
from adapters.errors import Overloaded, Unavailable
from adapters.online_rows import Found, Rows, Stored
from adapters.online_store import Key
from feature_repo.plan import FeaturePlan
from services.feature_server import metrics
from services.feature_server.last_known import LastKnown
from services.feature_server.terms import NEVER, STATES, Answer, Ask, Degraded, State, ViewAnswer
from services.feature_server.values import Values

AT_ONCE = 64  # questions in progress; more are shed


class Rowset(NamedTuple):
    """The distinct keys of one view, what is answered for each, and which of them every row asked for."""

    view: str
    keys: list[Key]
    row_of: np.ndarray | None  # None: the keys are the rows
    rows: list[Stored | None]
    states: np.ndarray
    read_ms: np.ndarray


class Answers:
    """Answers questions. Raises Overloaded, and nothing else once a question is checked."""

    def __init__(self, plan: FeaturePlan, rows: Rows, last_known: LastKnown, *, clock: Callable[[], int],
                 breaker: Breaker | None = None) -> None:
        self._plan, self._rows, self._last_known, self._clock = plan, rows, last_known, clock
        self._breaker = breaker or Breaker(threshold=2, rest_s=0.5)
        self._values = Values(plan)
        self._in_progress = 0
        self.reached = False  # the store, once at least
        self.whole = False

    @property
    def away(self) -> bool:
        """Whether the store is being left alone because it did not answer."""
        return self._breaker.is_open

    async def answer(self, ask: Ask) -> Answer:
        if self._in_progress >= AT_ONCE:
            raise Overloaded(f"{self._in_progress} requests are being answered; try again", retry_after_s=1.0)
        self._in_progress += 1
        try:
            keys = [_keys(ask, self._values.join_keys(p.view)) for p in ask.projections]
            distinct = [list(dict.fromkeys(k)) for k in keys]
            found = await self._read([(p.view, k) for p, k in zip(ask.projections, distinct, strict=True)])
        finally:
            self._in_progress -= 1
        now_ms = self._clock()
        views = []
        for i, projection in enumerate(ask.projections):
            rows = None if found is None else found.rows[i]
            whole = found is not None and found.whole
            rowset = self._settle(projection.view, keys[i], distinct[i], rows, whole, now_ms)
            views.append(self._view(ask, rowset, projection.features, now_ms))
        stale = any((v.states >= State.STALE).any() for v in views)
        degraded: tuple[Degraded, ...] = ()
        if found is None:
            degraded = ("store_down",)
        elif not found.whole:
            degraded = ("store_incomplete",)
        return Answer(ask, self._plan.version, tuple(views), bool(stale), degraded)

    async def probe(self) -> None:
        """Ask the store for nothing, so that its return is noticed without costing a caller."""
        await self._read([])

    async def _read(self, asked: Sequence[tuple[str, Sequence[Key]]]) -> Found | None:
        """What the store says; None when it is away."""
        if not self._breaker.allows():
            return None
        try:
            with metrics.READ_SECONDS.time():
                found = await self._rows.read(asked)
        except Unavailable:
            self._breaker.failed()
            metrics.store_failed()
            return None
        self._breaker.succeeded()
        self.reached, self.whole = True, found.whole
        return found

    def _settle(self, view: str, keys: list[Key], distinct: list[Key], rows: list[Stored | None] | None, whole: bool,
                now_ms: int) -> Rowset:
        """Decide each distinct key: what the store has; else the last known or a default, if nothing proves nothing."""
        settled: list[Stored | None] = list(rows) if rows is not None else [None] * len(distinct)
        states = np.full(len(distinct), State.PRESENT, np.uint8)
        read_ms = np.full(len(distinct), now_ms, np.int64)
        for i, row in enumerate(settled):
            if row is not None:
                continue
            if whole:
                states[i] = State.MISSING
            elif (known := self._last_known.find(view, distinct[i])) is not None:
                settled[i], read_ms[i] = known
                states[i] = State.STALE
            else:
                states[i], read_ms[i] = State.DEFAULT, NEVER
        if rows is not None:
            held = [i for i, row in enumerate(rows) if row is not None or whole]
            self._last_known.keep(view, [distinct[i] for i in held], [rows[i] for i in held], now_ms)
        row_of = None
        if len(distinct) != len(keys):
            at = {key: i for i, key in enumerate(distinct)}
            row_of = np.fromiter((at[key] for key in keys), np.int64, len(keys))
        return Rowset(view, distinct, row_of, settled, states, read_ms)

    def _view(self, ask: Ask, rowset: Rowset, features: tuple[str, ...], now_ms: int) -> ViewAnswer:
        columns, made_ms = self._values.read(rowset.view, features, rowset.rows, rowset.states, ask.at_ms)
        ages = np.where(made_ms < 0, NEVER, np.maximum(ask.at_ms - made_ms, 0))
        since = np.where(rowset.read_ms < 0, NEVER, now_ms - rowset.read_ms)
        states = rowset.states
        if rowset.row_of is not None:
            states, ages, since = states[rowset.row_of], ages[rowset.row_of], since[rowset.row_of]
            columns = tuple(c.taken(rowset.row_of) for c in columns)
        for state, n in zip(*np.unique(states, return_counts=True), strict=True):
            metrics.ROWS.labels(rowset.view, STATES[State(state)]).inc(int(n))
        return ViewAnswer(rowset.view, states, ages, since, columns)


def _keys(ask: Ask, join_keys: tuple[str, ...]) -> list[Key]:
    """The key of every row, or of one where each part was given once."""
    given = [ask.entities[name] for name in join_keys]
    rows = max(map(len, given))
    return list(zip(*(values if len(values) == rows else values * rows for values in given), strict=True))
