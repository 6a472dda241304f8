"""Which requests share one decision: identical ones at the same time, and strangers within a moment.

- Identical requests (shopper, surface, k and context, on the same models and arm) that come while the first is under
  way wait for its decision instead of asking for another one.
- A stranger is known neither to the online store nor to the models, so nothing that ranks depends on who it is: all
  strangers with the same surface, k and context get the same answer. It is kept for `keep_ms` for the next ones, never
  for another arm or other models, and never when a product in it has sold out since.

Each answer has a request id and a record of its own; `made_for` names the request that the decision was made for, and
`cached_ms` is its age. Degraded answers are not kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, replace
from typing import Any, Final

from prometheus_client import Counter, Histogram

from services.recommender.admission import Admission
from services.recommender.flights import SingleFlight
from services.recommender.lineup import Lineup
from services.recommender.recommend import Recommender
from services.recommender.roles import Choice
from services.recommender.run import Run
from services.recommender.terms import KAFKA_DOWN, Ask, Decision, Shopper

COALESCED: Final = Counter("minimart_coalesced_total", "Requests that waited for an identical one's decision")
CACHE: Final = Counter("minimart_popular_cache_total", "Strangers' requests, by what the cache had", ["outcome"])
CACHED_AGE: Final = Histogram(
    "minimart_popular_cache_age_seconds", "Age of the answers that came from the cache",
    buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
)  # fmt: skip
MOST_KEPT: Final = 256
for _outcome in ("hit", "joined", "miss", "sold_out"):
    CACHE.labels(_outcome)


class Answers:
    """Answers requests through the door, the flights and the cache. `clock()` is Unix milliseconds."""

    def __init__(
        self, recommender: Recommender, admission: Admission, clock: Callable[[], int], *, keep_ms: float = 2000,
        coalesce: bool = True,
    ) -> None:  # fmt: skip
        """`keep_ms` 0 and `coalesce` False switch the sharing off."""
        self.admission, self.clock = admission, clock
        self._recommender, self._coalesce = recommender, coalesce
        self._strangers = Strangers(recommender.in_stock, keep_ms) if keep_ms > 0 else None
        self._flights: SingleFlight[Decision] = SingleFlight()

    async def answer(self, ask: Ask) -> Decision:
        """A decision for this request. Raises Overloaded where there is no room, Unavailable without any product."""
        choice = self._recommender.choose(ask.user_id)
        if not self._coalesce:
            return await self._decide(ask, choice)
        key = (id(choice.shelf.lineup), choice.arm, choice.rollout, ask.user_id, *_circumstances(ask))
        if key not in self._flights:
            self.admission.refuse_if_full()  # here, and not in a task of its own that has to wait for the loop's turns
        decision, joined = await self._flights.do(key, lambda: self._decide(ask, choice))
        if not joined:
            return decision
        COALESCED.inc()
        return shared(decision, ask, self.clock() - decision.ask.now_ms)

    async def _decide(self, ask: Ask, choice: Choice) -> Decision:
        async with self.admission.turn():
            return await self._recommender.recommend(ask, choice, self._strangers)


@dataclass(frozen=True)
class _Kept:
    decision: Decision
    lineup: Lineup
    """Held, so that its id in the key stays its own."""


class Strangers:
    """Decisions for strangers, kept for a moment."""

    def __init__(self, in_stock: Callable[[str], bool], keep_ms: float) -> None:
        self._in_stock, self._keep_ms = in_stock, keep_ms
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._flights: SingleFlight[Decision] = SingleFlight()

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, shopper: Shopper, lineup: Lineup, run: Run) -> bool:
        """Whether nothing is known of this shopper, and that for sure."""
        unknown = not shopper.seen_before and not shopper.recent and shopper.user_id not in lineup.users
        return unknown and _sound(run.degraded)

    async def answer(
        self, ask: Ask, choice: Choice, run: Run, decide: Callable[[], Coroutine[Any, Any, Decision]]
    ) -> Decision:
        """What the last stranger in these circumstances got, or a new decision."""
        key = (id(choice.shelf.lineup), choice.arm, choice.rollout, *_circumstances(ask))
        kept = self._usable(key, ask.now_ms)
        if kept is not None:
            decision, outcome = kept, "hit"
            CACHED_AGE.observe((ask.now_ms - kept.ask.now_ms) / 1000)
        else:
            decision, joined = await self._flights.do(key, decide)
            outcome = "joined" if joined else "miss"
        CACHE.labels(outcome).inc()
        if outcome != "miss":
            return shared(decision, ask, ask.now_ms - decision.ask.now_ms, run)
        if _sound(decision.degraded):
            self._kept[key] = _Kept(decision, choice.shelf.lineup)
            self._kept.move_to_end(key)
        return decision

    def _usable(self, key: Hashable, now_ms: int) -> Decision | None:
        while self._kept and not 0 <= now_ms - next(iter(self._kept.values())).decision.ask.now_ms <= self._keep_ms:
            self._kept.popitem(last=False)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        kept = self._kept.get(key)
        if kept is None or now_ms - kept.decision.ask.now_ms > self._keep_ms:
            return None
        if not all(self._in_stock(item.item_id) for item in kept.decision.placed):
            del self._kept[key]
            CACHE.labels("sold_out").inc()
            return None
        return kept.decision


def shared(decision: Decision, ask: Ask, age_ms: float, run: Run | None = None) -> Decision:
    """The decision as an answer to another request. It stays dated when it was made, for its features are of then."""
    return replace(
        decision,
        ask=replace(ask, now_ms=decision.ask.now_ms),
        shopper=replace(decision.shopper, user_id=ask.user_id),
        timings_ms=decision.timings_ms if run is None else run.timings_ms(),
        degraded=decision.degraded if run is None else run.degraded,
        cached_ms=max(float(age_ms), 0.0),
        made_for=decision.made_for or decision.ask.request_id,
    )


def _circumstances(ask: Ask) -> tuple[Hashable, ...]:
    return ask.surface, ask.k, ask.device, ask.country, ask.of_age


def _sound(degraded: tuple[str, ...]) -> bool:
    """Whether the answer lacks nothing. That its record cannot be sent just now does not change the answer."""
    return set(degraded) <= {KAFKA_DOWN}
