"""Draws the whole history of a world at once: six-hour slices in order, every slice vectorised.

Within a slice: sessions begin by the daily rhythm; many open a feed (items of a logging policy that mixes popular with
random items); many search or browse on their own; clicked items go into carts, carts become orders, orders are paid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from models.marketplace import behaviour as b
from models.marketplace.config import DAY, HOUR
from models.marketplace.world import COUNTRIES, DEVICES, Ints, World

SLICE: Final = 6 * HOUR
FEED: Final = 20
RECENT: Final = 8  # items that a shopper may come back to
MAX_CLICKS: Final = 9
FEED_SHARE, ORGANIC_SHARE = 0.74, 0.66  # of sessions
ORDER_SHARE, PAID_SHARE = 0.5, 0.96  # of sessions with a cart, of orders
MISSION_SHARE: Final = 0.7  # of searches follow the mission of a shopper who has one

KINDS: Final = ("sessions", "shown", "clicked", "carted", "ordered", "lines", "paid")
REFERS_TO: Final = {"session": "sessions", "shown": "shown", "first": "lines", "order": "ordered"}  # column -> kind

Columns = dict[str, Any]  # name -> array, one row per event


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Events by kind as columns of rows of the world, each kind in order of time.

    sessions: user, start, country, device · shown: session, t, items [n, 20]
    clicked: session, t, item, price, shown (row, or -1), position (0 if organic)
    carted: session, t, item, price, quantity, shown · ordered: session, t, first, size (range of `lines`)
    lines: item, price, quantity · paid: order, t, amount · recent: items a shopper may return to [U, 8]
    """

    sessions: Columns
    shown: Columns
    clicked: Columns
    carted: Columns
    ordered: Columns
    lines: Columns
    paid: Columns
    recent: Ints


def draw_history(world: World) -> History:
    """Everything that happened between `config.start_ms` and `config.as_of_ms`. Same world, same history."""
    config = world.config
    parts: dict[str, list[Columns]] = {kind: [] for kind in KINDS}
    rows = dict.fromkeys(parts, 0)
    recent = np.full((len(world.taste), RECENT), -1, np.int64)
    popularity = np.ones(len(world.category))
    for number, start in enumerate(range(config.start_ms, config.as_of_ms, SLICE)):
        rng = np.random.default_rng([config.seed, 2, number])
        drawn = _draw_slice(world, start, min(start + SLICE, config.as_of_ms), popularity, recent, rng)
        for columns in drawn.values():
            for name in columns.keys() & REFERS_TO.keys():
                columns[name] = np.where(columns[name] < 0, -1, columns[name] + rows[REFERS_TO[name]])
        for kind, columns in drawn.items():
            parts[kind].append(columns)
            rows[kind] += len(next(iter(columns.values())))
        popularity *= 0.5 ** (SLICE / (3 * DAY))
        np.add.at(popularity, drawn["clicked"]["item"], 1.0)
    joined = {k: {name: np.concatenate([p[name] for p in v]) for name in v[0]} for k, v in parts.items()}
    return History(**joined, recent=recent)


def _draw_slice(
    world: World, start: int, end: int, popularity: Any, recent: Ints, rng: np.random.Generator
) -> dict[str, Columns]:
    listed = np.flatnonzero((world.listed_at <= start) & (world.stock > 0))
    sessions = _sessions(world, start, end, rng)
    n = len(sessions["user"])
    shown = _feeds(np.flatnonzero(rng.random(n) < FEED_SHARE), sessions, listed, popularity, rng)
    in_feed = _feed_clicks(world, sessions, shown, rng)
    browsing = rng.random(n) < ORGANIC_SHARE
    pause = np.where(np.isin(np.arange(n), shown["session"]), 150_000, 4_000)
    organic = _organic_clicks(world, sessions, np.flatnonzero(browsing), pause, listed, recent, rng)
    clicked = {k: np.concatenate([in_feed[k], organic[k]]) for k in in_feed}
    clicked = _take(clicked, np.argsort(clicked["t"], kind="stable"))
    carted = _carts(world, sessions, clicked, rng)
    ordered, lines, paid = _orders(carted, n, rng)
    # What was cut off by the end of history has not happened
    as_of = world.config.as_of_ms
    clicked.pop("fit")
    clicked, carted, shown = (_take(c, np.flatnonzero(c["t"] <= as_of)) for c in (clicked, carted, shown))
    kept = np.flatnonzero(ordered["t"] <= as_of)  # a prefix, as of `shown`: both are in order of time
    ordered = _take(ordered, kept)
    paid = _take(paid, np.flatnonzero((paid["t"] <= as_of) & (paid["order"] < len(kept))))
    remember(recent, sessions["user"][clicked["session"]], clicked["item"])
    return {"sessions": sessions, "shown": shown, "clicked": clicked, "carted": carted, "ordered": ordered,
            "lines": lines, "paid": paid}  # fmt: skip


def _take(columns: Columns, rows: Ints) -> Columns:
    return {name: values[rows] for name, values in columns.items()}


def _sessions(world: World, start: int, end: int, rng: np.random.Generator) -> Columns:
    """Sessions of one slice in order of start: user, start, country, device."""
    bins = np.arange(start, end, HOUR // 2, dtype=np.int64)
    width = np.minimum(bins + HOUR // 2, end) - bins
    busy = np.stack([b.rhythm(np.full(len(bins), c), bins) * width for c in range(len(COUNTRIES))])  # [countries, bins]
    here = np.flatnonzero(world.joined_at <= start)
    country = world.country[here]
    visits = rng.poisson(world.activity[here] * busy.sum(1)[country] / DAY)
    user = np.repeat(here, visits)
    cdf = np.cumsum(busy / busy.sum(1, keepdims=True), axis=1)[world.country[user]]
    slot = np.minimum((cdf < rng.random(len(user))[:, None]).sum(1), len(bins) - 1)
    when = bins[slot] + (rng.random(len(user)) * width[slot]).astype(np.int64)
    other = rng.integers(0, len(DEVICES), len(user))
    device = np.where(rng.random(len(user)) < 0.8, world.device[user], other)
    order = np.argsort(when, kind="stable")
    return _take({"user": user, "start": when, "country": world.country[user], "device": device}, order)


def _feeds(rows: Ints, sessions: Columns, listed: Ints, popularity: Any, rng: np.random.Generator) -> Columns:
    """The logging policy: about 12 of 20 by popularity, the rest at random, in random positions."""
    n = len(rows)
    weight = popularity[listed] ** 0.9
    cdf = np.cumsum(weight / weight.sum())
    popular = np.minimum(np.searchsorted(cdf, rng.random((n, 24))), len(listed) - 1)
    random = rng.integers(0, len(listed), (n, 16))
    tried = np.empty((n, 40), np.int64)
    tried[:, 0::5], tried[:, 1::5], tried[:, 2::5] = popular[:, :8], popular[:, 8:16], popular[:, 16:]
    tried[:, 3::5], tried[:, 4::5] = random[:, :8], random[:, 8:]
    items = _first_distinct(tried, FEED, len(listed), rng)
    items = rng.permuted(items, axis=1)
    shown = {"session": rows, "t": sessions["start"][rows] + rng.integers(500, 4_000, n), "items": listed[items]}
    return _take(shown, np.argsort(shown["t"], kind="stable"))


def _first_distinct(tried: Ints, count: int, among: int, rng: np.random.Generator) -> Ints:
    """The first `count` distinct values of each row; a row with too few is filled up at random from range(among)."""
    order = np.argsort(tried, axis=1, kind="stable")
    values = np.take_along_axis(tried, order, 1)
    repeated = np.zeros(tried.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], values[:, 1:] == values[:, :-1], axis=1)
    first = np.argsort(repeated, axis=1, kind="stable")[:, :count]
    chosen = np.take_along_axis(tried, first, 1)
    for row in np.flatnonzero((~repeated).sum(1) < count):
        have = tried[row][~repeated[row]]
        chosen[row] = np.concatenate([have, rng.permutation(np.setdiff1d(np.arange(among), have))])[:count]
    return chosen


def _feed_clicks(world: World, sessions: Columns, shown: Columns, rng: np.random.Generator) -> Columns:
    users = sessions["user"][shown["session"]]
    utility = b.affinity(world, users, shown["items"], shown["t"])
    position = np.arange(1, FEED + 1)
    row, column = np.nonzero(rng.random(utility.shape) < b.click_probability(utility, position))
    item = shown["items"][row, column]
    when = shown["t"][row] + 5_000 + column * 4_000 + rng.integers(0, 3_500, len(row))
    return {
        "session": shown["session"][row], "t": when, "item": item, "price": b.price_at(world, item, when),
        "shown": row, "position": column + 1, "fit": b.fit(world, users[row], item[:, None], when)[:, 0],
    }  # fmt: skip


def _organic_clicks(
    world: World, sessions: Columns, browsing: Ints, pause: Ints, listed: Ints, recent: Ints, rng: np.random.Generator
) -> Columns:
    """Clicks from search and browsing, over the whole catalogue: one or two intents, each within a category."""
    user, start = sessions["user"][browsing], sessions["start"][browsing] + pause[browsing]
    first = intents(world, user, start, rng)
    again = np.flatnonzero(rng.random(len(user)) < 0.42)
    drawn = b.pick_category(world, user[again], rng.random(len(again)))
    second = np.where(rng.random(len(again)) < 0.55, b.GOES_WITH[first[again]], drawn)
    session = np.concatenate([browsing, browsing[again]])
    begin = np.concatenate([start, start[again] + 420_000])
    category = np.concatenate([first, second])
    items, count = browse(world, sessions["user"][session], begin, category, listed, recent, rng)
    gaps = np.exp(rng.normal(10.0, 0.6, items.shape)).astype(np.int64) + 1_000
    when = begin[:, None] + np.cumsum(gaps, axis=1)
    row, column = np.nonzero((np.arange(MAX_CLICKS) < count[:, None]) & (items >= 0))
    item, t = items[row, column], when[row, column]
    return {
        "session": session[row], "t": t, "item": item, "price": b.price_at(world, item, t),
        "shown": np.full(len(row), -1), "position": np.zeros(len(row), np.int64),
        "fit": b.fit(world, sessions["user"][session[row]], item[:, None], t)[:, 0],
    }  # fmt: skip


def intents(world: World, users: Ints, t: Ints, rng: np.random.Generator) -> Ints:
    """The category that each session sets out for: the shopper's mission, or one of their liking."""
    mission = b.mission_of(world, users, t)
    drawn = b.pick_category(world, users, rng.random(len(users)))
    return np.where((mission >= 0) & (rng.random(len(users)) < MISSION_SHARE), mission, drawn)


def browse(
    world: World, users: Ints, t: Ints, category: Ints, listed: Ints, recent: Ints, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """Items clicked in each intent [n, MAX_CLICKS] (-1: none) and how many of them count [n]."""
    n = len(users)
    count = np.minimum(rng.geometric(0.34, n), MAX_CLICKS)
    items = np.full((n, MAX_CLICKS), -1, np.int64)
    for c in np.unique(category):
        pool = listed[world.category[listed] == c]
        rows = np.flatnonzero(category == c)
        for part in np.array_split(rows, 1 + len(rows) * len(pool) // 400_000) if len(pool) else ():
            fits = b.fit(world, users[part], np.broadcast_to(pool, (len(part), len(pool))), t[part])
            chosen = b.choose(fits, MAX_CLICKS, rng)
            items[part, : chosen.shape[1]] = pool[chosen]
    returns = recent[users, rng.integers(0, RECENT, n)]
    items[:, 0] = np.where((returns >= 0) & (rng.random(n) < b.REVISIT), returns, items[:, 0])
    available = np.zeros(len(world.category), bool)
    available[listed] = True
    for column in range(1, MAX_CLICKS):
        next_to = b.companion_of(world, np.maximum(items[:, column - 1], 0), rng)
        follows = (items[:, column - 1] >= 0) & available[next_to] & (rng.random(n) < b.COMPANION)
        items[:, column] = np.where(follows, next_to, items[:, column])
    return items, count


def _carts(world: World, sessions: Columns, clicked: Columns, rng: np.random.Generator) -> Columns:
    rows = np.flatnonzero(rng.random(len(clicked["t"])) < b.cart_probability(clicked["fit"]))
    when = clicked["t"][rows] + rng.integers(3_000, 25_000, len(rows))
    quantity = np.minimum(rng.geometric(0.85, len(rows)), 5)
    carted = {k: clicked[k][rows] for k in ("session", "item", "price", "shown")} | {"t": when, "quantity": quantity}
    return _take(carted, np.argsort(when, kind="stable"))


def _orders(carted: Columns, sessions: int, rng: np.random.Generator) -> tuple[Columns, Columns, Columns]:
    """Half of the carts are ordered, as one order per session; most orders are paid within two minutes."""
    buys = np.flatnonzero((rng.random(sessions) < ORDER_SHARE)[carted["session"]])
    last = np.zeros(sessions, np.int64)
    np.maximum.at(last, carted["session"][buys], carted["t"][buys])
    session = np.unique(carted["session"][buys])
    placed = last[session] + rng.integers(20_000, 120_000, len(session))
    order = np.argsort(placed, kind="stable")
    session, placed = session[order], placed[order]
    rank = np.empty(sessions, np.int64)
    rank[session] = np.arange(len(session))
    buys = buys[np.argsort(rank[carted["session"][buys]], kind="stable")]
    lines = {k: carted[k][buys] for k in ("item", "price", "quantity")}
    size = np.bincount(rank[carted["session"][buys]], minlength=len(session))
    first = np.cumsum(size) - size
    amount = np.add.reduceat(lines["price"] * lines["quantity"], first) if len(session) else np.zeros(0, np.int64)
    paid = np.flatnonzero(rng.random(len(session)) < PAID_SHARE)
    when = placed[paid] + rng.integers(5_000, 120_000, len(paid))
    return ({"session": session, "t": placed, "first": first, "size": size}, lines,
            {"order": paid, "t": when, "amount": amount[paid]})  # fmt: skip


def remember(recent: Ints, users: Ints, items: Ints) -> None:
    """Note clicked items among those a shopper may return to (in place); an item's place is its row modulo RECENT."""
    recent[users, items % RECENT] = items
