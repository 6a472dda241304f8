"""Packed tiles of made-up keys, for any view that the plan declares and whatever functions it uses."""

from __future__ import annotations

import random

from feature_repo import tiles
from feature_repo.layout import Feed, layout_of
from feature_repo.plan import ViewPlan
from feature_repo.windows import CLOCK_AHEAD_MS, TOO_LATE_MS

DAY = 86_400_000


def is_text(feed: Feed, at: int) -> bool:
    """Whether a value of a feed is text: ids and categories are, prices and quantities are not."""
    return len(feed.values[at]) == 1 and feed.values[at][0].endswith(("_id", "category"))


def packed_key(view: ViewPlan, rng: random.Random, now: int, n: int, *, values: int = 12) -> bytes:
    """The packed tiles of one key after `n` random rows; `values`: how many different texts there are."""
    layout = layout_of(view)
    state = tiles.State(layout)
    for _ in range(n):
        feed = rng.randrange(len(layout.feeds))
        arrival = now - rng.choice([rng.randint(0, 3_600_000), rng.randint(0, 2 * DAY), rng.randint(0, 40 * DAY)])
        behind = rng.choice([0, rng.randint(-CLOCK_AHEAD_MS, 60_000), rng.randint(0, TOO_LATE_MS)])
        row = [None if rng.random() < 0.05 else f"v{rng.randrange(values)}" if is_text(layout.feeds[feed], i)
               else rng.choice([rng.randint(0, 5), rng.randint(1, 10**7)])
               for i in range(len(layout.feeds[feed].values))]
        tiles.apply(layout, state, feed, arrival - behind, arrival, row, rng.randint(1, 3))
    return tiles.pack(layout, state)
