"""A stream of events that is hard to count: late, twice, out of order, hot, with wrong clocks, old and unreadable.

Drawn in columns with numpy, so that a million take seconds; the same recipe gives the same bytes. Knows nothing of
Kafka nor of features: it only knows what an event looks like.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from pipelines.parity.payloads import SPOILED, TOPICS, Drawn, payloads

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
SHARES: Final = {"shop.impressions": 0.15, "shop.clicks": 0.47, "shop.carts": 0.14, "shop.orders": 0.10,
                 "shop.payments": 0.14}
CATEGORIES: Final = 12


class Act(NamedTuple):
    """Arrivals of one part of the stream: `share` of all events in `bursts` bursts of `minutes`, from `first` to `last`
    days before the end. The gaps between acts leave room to read windows at times when nothing arrives."""

    share: float
    first: float
    last: float
    bursts: int
    minutes: int


# Forty days, for windows of up to 30; the hours that arrive in one piece cross the horizon of deduplication.
LONG: Final = (Act(0.3, 38, 13, 10, 50), Act(0.25, 9, 7.9, 14, 90), Act(0.25, 5, 2, 6, 55), Act(0.2, 1.2, 0, 20, 60))
SHORT: Final = (Act(0.6, 38, 9, 5, 30), Act(0.4, 1.1, 0, 9, 30))


@dataclass(frozen=True)
class Recipe:
    """What is drawn. `now_ms` is the end of the stream; `topics` which of them are fed; shares are of all events."""

    events: int
    seed: int
    now_ms: int
    topics: tuple[str, ...]
    acts: tuple[Act, ...] = LONG
    late: float = 0.07
    duplicates: float = 0.025
    clock_ahead: float = 0.004
    too_late: float = 0.006
    poison: float = 0.003
    spoiled: tuple[str, ...] = tuple(SPOILED)
    """The kinds of poison."""

    def __post_init__(self) -> None:
        if self.events < 1_000:
            raise ValueError(f"events {self.events}: at least 1000 are needed for every kind of fault to occur")
        for name, given, known in (("topics", self.topics, SHARES), ("spoiled", self.spoiled, SPOILED)):
            if unknown := set(given) - set(known):
                raise ValueError(f"{name} {sorted(unknown)} cannot be drawn; known are {', '.join(known)}")


class Stream(NamedTuple):
    """Records in the order in which they are sent; `acts`: where the acts end; `planted`: what was drawn on purpose."""

    topics: list[str]
    keys: list[str]
    payloads: list[bytes]
    arrivals: list[int]
    acts: list[int]
    planted: Counter[str]


def draw(recipe: Recipe) -> Stream:
    rng = np.random.default_rng(recipe.seed)
    n = recipe.events
    arrival, ends = _arrivals(recipe, rng)
    event_time, kinds = _event_times(recipe, rng, arrival)
    drawn = _contents(recipe, rng, event_time)
    source, copied, changed = _duplicates(recipe, rng)
    planted = Counter({name: int((kinds == at).sum()) for at, name in enumerate(KINDS) if name != "prompt"})
    clash = (rng.random(n) < 0.001) & ~copied & (np.arange(n) > 0)
    planted.update(duplicate=int(copied.sum()), same_id_other_content=int(changed.sum()),
                   same_id_elsewhere=int(clash.sum()))
    exact = copied & ~changed
    drawn = drawn.taken(np.where(exact, source, np.arange(n)))
    # The id, the topic and the shopper are those of the first sighting, or it would be no duplicate of it.
    for column in (drawn.event, drawn.topic, drawn.user):
        column[changed] = column[source[changed]]
    # Another shopper's event under an id that was used before: a duplicate in the same partition, none in another.
    earlier = (rng.random(n) * np.arange(n)).astype(np.int64)
    for column in (drawn.event, drawn.topic):
        column[clash] = column[earlier[clash]]
    bad = np.where(rng.random(n) < recipe.poison, rng.integers(0, len(recipe.spoiled), n), -1)
    planted["poison"] = int((bad >= 0).sum())
    return Stream([TOPICS[t] for t in drawn.topic.tolist()], [f"u{u}" for u in drawn.user.tolist()],
                  payloads(drawn, bad, recipe.spoiled), arrival.tolist(), ends, planted)


KINDS: Final = ("prompt", "late", "slightly_ahead", "clock_ahead", "too_late", "on_the_edge")


def _arrivals(recipe: Recipe, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """When each record arrives, mostly rising: two senders' clocks differ by up to three seconds."""
    parts, ends = [], []
    left = recipe.events
    for act in recipe.acts:
        size = left if act is recipe.acts[-1] else round(act.share * recipe.events)
        left -= size
        starts = np.linspace(act.first * DAY, act.last * DAY + act.minutes * MINUTE, act.bursts)
        starts = recipe.now_ms - starts + rng.integers(0, act.minutes * MINUTE // 4, act.bursts) * (starts > HOUR * 3)
        burst = np.sort(rng.integers(0, act.bursts, size))
        parts.append(np.sort(starts[burst] + rng.random(size) * act.minutes * MINUTE * 0.99).astype(np.int64))
        ends.append(sum(map(len, parts)))
    arrival = np.concatenate(parts)
    return arrival - (rng.random(len(arrival)) < 0.1) * rng.integers(0, 3_000, len(arrival)), ends


def _event_times(recipe: Recipe, rng: np.random.Generator, arrival: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(event time, index in KINDS) of each record."""
    n = len(arrival)
    edge = 0.01
    rest = 1 - recipe.late - 0.005 - recipe.clock_ahead - recipe.too_late - edge
    kind = rng.choice(len(KINDS), n, p=[rest, recipe.late, 0.005, recipe.clock_ahead, recipe.too_late, edge])
    limits = np.array([-5 * MINUTE, -5 * MINUTE - 1, 7 * DAY, 7 * DAY + 1])  # the late rule's own edges
    behind = np.choose(kind, [
        (rng.random(n) ** 3 * 40_000).astype(np.int64) - 1_000,
        np.exp(rng.uniform(np.log(90_000), np.log(6.9 * DAY), n)).astype(np.int64),
        -rng.integers(1_000, 5 * MINUTE, n),
        -rng.integers(5 * MINUTE + 1, 30 * HOUR, n),
        rng.integers(7 * DAY + 1, 20 * DAY, n),
        limits[rng.integers(0, 4, n)]])
    when = arrival - behind
    # Clocks of seconds give equal times; events on the very edge of a minute, an hour or a day try the window's edges.
    when = np.where((kind < 2) & (rng.random(n) < 0.3), when // 1_000 * 1_000, when)
    grain = np.array([MINUTE, HOUR, DAY])[rng.choice(3, n, p=[0.6, 0.3, 0.1])]
    on_edge = when // grain * grain - (rng.random(n) < 0.5)
    return np.where((kind == 1) & (rng.random(n) < 0.3), on_edge, when), kind


def _contents(recipe: Recipe, rng: np.random.Generator, event_time: np.ndarray) -> Drawn:
    n = len(event_time)
    users, items = max(60, n // 120), max(40, n // 400)
    shares = np.array([SHARES[t] * (t in recipe.topics) for t in TOPICS])
    item = _hot(rng, items, n)
    return Drawn(
        event=np.arange(n), topic=rng.choice(len(TOPICS), n, p=shares / shares.sum()), event_time=event_time,
        user=_hot(rng, users, n), item=item,
        category=np.where(rng.random(n) < 0.9, item, rng.integers(0, 99, n)) % CATEGORIES,
        price=rng.integers(0, 99_999, n) // (1 + item % 7), dice=rng.integers(0, 2**31, n))


def _hot(rng: np.random.Generator, size: int, n: int) -> np.ndarray:
    """Ranks with Zipf's law, the hottest about 2 % of all, and one in four from all alike."""
    weight = 1.0 / np.arange(8, size + 8) ** 0.9
    hot = np.searchsorted(np.cumsum(weight / weight.sum()), rng.random(n)).clip(0, size - 1)
    return np.where(rng.random(n) < 0.25, rng.integers(0, size, n), hot)


def _duplicates(recipe: Recipe, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(the record that each repeats, whether it repeats one, whether only its id): two in three near, one far apart."""
    n = recipe.events
    at = np.arange(n)
    copied = (rng.random(n) < recipe.duplicates) & (at > 0)
    near = at - 1 - rng.exponential(200, n).astype(np.int64)
    far = (rng.random(n) * at).astype(np.int64)
    source = np.where(copied, np.where(rng.random(n) < 0.67, near, far).clip(0, np.maximum(at - 1, 0)), at)
    while (source[source] != source).any():  # a copy of a copy is a copy of the first
        source = source[source]
    return source, copied, copied & (rng.random(n) < 0.1)
