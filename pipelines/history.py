"""The lake as arrays: who touched what and when, and the catalogue as it stood. What every training pipeline reads.

Shoppers, items and categories are numbered (0-based) in order of first appearance; so the vocabulary at an earlier
moment is a prefix of a later one, and nothing from after a cut can reach a model trained before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from adapters.errors import BadInput
from adapters.event_lake import scan
from feature_repo.events import ItemListed, OrderPlaced, ProductAddedToCart, ProductClicked, ProductsShown

Ints = NDArray[np.int64]
CLICK, CART, ORDER = 1, 2, 3
RECENT: Final = 20
_SHIFT: Final = 2**42  # above any Unix time in ms, so (shopper, time) packs into one sortable int64


@dataclass(frozen=True)
class Feeds:
    """Feeds shown, in order of time: `items` [F, widest] 0-based in order of position, -1 pads."""

    user: Ints
    time_ms: Ints
    items: Ints
    device: NDArray[Any]


@dataclass(frozen=True)
class States:
    """Item states in order of their beginning: what an item was called, cost and where it stood."""

    item: Ints
    time_ms: Ints
    category: Ints
    price_cents: NDArray[np.float64]


@dataclass(frozen=True)
class History:
    """Interactions in order of time (`kind` 1 click, 2 cart, 3 order line) and the vocabularies they are coded with."""

    users: NDArray[np.str_]
    items: NDArray[np.str_]
    categories: NDArray[np.str_]
    user_seen_ms: Ints
    item_seen_ms: Ints
    listed_ms: Ints
    user: Ints
    item: Ints
    time_ms: Ints
    kind: NDArray[np.int8]
    states: States
    as_of_ms: int

    def counts_at(self, until_ms: int) -> tuple[int, int]:
        """How many shoppers and items were known before `until_ms`."""
        return int(np.searchsorted(self.user_seen_ms, until_ms)), int(np.searchsorted(self.item_seen_ms, until_ms))

    def content_at(self, until_ms: int) -> tuple[Ints, NDArray[np.float64]]:
        """Category (0-based, -1 unknown) and price in cents (NaN unknown) of every item as of `until_ms`, [N] each."""
        category = np.full(len(self.items), -1, dtype=np.int64)
        price = np.full(len(self.items), np.nan)
        known = slice(0, int(np.searchsorted(self.states.time_ms, until_ms)))
        category[self.states.item[known]] = self.states.category[known]  # in order of time: the newest stays
        price[self.states.item[known]] = self.states.price_cents[known]
        return category, price

    @cached_property
    def positives(self) -> NDArray[np.bool_]:
        """Which interactions retrieval learns from: clicks, or everything in a history that has no clicks."""
        clicks = self.kind == CLICK
        return clicks if clicks.any() else np.ones(len(self.kind), dtype=bool)

    @cached_property
    def recent(self) -> Recent:
        keep = self.kind != CART  # clicks and order lines, as the stream feature `user_recent_items` has it
        by_name = np.argsort(np.argsort(self.items))
        return Recent(self.user[keep], self.time_ms[keep], self.item[keep], by_name)


class Recent:
    """Each shopper's touched items by time, for "the 20 newest before t", exactly as the stream feature keeps them.

    Items of the same millisecond are in order of their ids (`by_name` [N] is each item's place in that order).
    """

    def __init__(self, user: Ints, time_ms: Ints, item: Ints, by_name: Ints) -> None:
        order = np.lexsort((by_name[item], time_ms, user))
        self._key, self._user, self._item = user[order] * _SHIFT + time_ms[order], user[order], item[order]

    def before(self, user: Ints, time_ms: Ints) -> Ints:
        """[n, RECENT] items touched strictly before `time_ms`, newest first; -1 pads."""
        end = np.searchsorted(self._key, user * _SHIFT + time_ms)[:, None]
        place = end - 1 - np.arange(RECENT)[None, :]
        inside = np.maximum(place, 0)
        if not len(self._item):
            return np.full(place.shape, -1, dtype=np.int64)
        return np.where((place >= 0) & (self._user[inside] == user[:, None]), self._item[inside], -1)


class Outcomes:
    """What each shopper did by the end of the window."""

    def __init__(self, history: History, until_ms: int) -> None:
        inside = history.time_ms < until_ms
        order = np.lexsort((history.time_ms[inside], history.user[inside]))
        self._user, self._time = history.user[inside][order], history.time_ms[inside][order]
        self._item, self._kind = history.item[inside][order], history.kind[inside][order]
        self._start = np.searchsorted(self._user, np.arange(len(history.users) + 1))
        self._grade = np.zeros(len(history.items), dtype=np.int64)

    def after(self, user: int, time_ms: int) -> tuple[Ints, NDArray[np.int8]]:
        """Items touched from `time_ms` on, and how, in order of time."""
        mine = slice(self._start[user], self._start[user + 1])
        first = mine.start + np.searchsorted(self._time[mine], time_ms)
        return self._item[first : mine.stop], self._kind[first : mine.stop]

    def labels(self, user: int, time_ms: int, rows: Ints) -> Ints:
        """The strongest thing the shopper did with each of `rows`: 0 nothing, 1 click, 2 cart, 3 order."""
        item, kind = self.after(user, time_ms)
        np.maximum.at(self._grade, item, kind)
        found = self._grade[rows]
        self._grade[item] = 0
        return found


def load_history(lake: Path, as_of_ms: int) -> History:
    """Read interactions and item states up to and including `as_of_ms`. Raises BadInput when there are none."""
    until = as_of_ms + 1
    clicks = scan(lake, ProductClicked.topic, ["user_id", "item_id", "event_time"], until_ms=until)
    carts = scan(lake, ProductAddedToCart.topic, ["user_id", "item_id", "event_time"], until_ms=until)
    orders = _order_lines(scan(lake, OrderPlaced.topic, ["user_id", "event_time", "lines"], until_ms=until))
    tables = [t.select(["user_id", "item_id", "event_time"]) for t in (clicks, carts, orders)]
    events = pa.concat_tables(tables)
    if events.num_rows == 0:
        raise BadInput(f"{lake} holds no clicks, carts or orders to learn from; seed or import a history first")
    columns = ["item_id", "event_time", "category", "price_cents", "listed_at"]
    states = scan(lake, ItemListed.topic, columns, until_ms=until)
    time_ms, kind = _numbers(events["event_time"]), np.repeat([CLICK, CART, ORDER], [t.num_rows for t in tables])
    state_ms = _numbers(states["event_time"])
    users, user, user_seen = _code(events["user_id"], time_ms)
    both = pa.chunked_array(states["item_id"].chunks + events["item_id"].chunks, type=pa.string())
    items, codes, item_seen = _code(both, np.concatenate([state_ms, time_ms]))
    categories, category, _ = _code(states["category"], state_ms)
    order, state_order = np.lexsort((kind, time_ms)), np.argsort(state_ms, kind="stable")
    price = _numbers(states["price_cents"]).astype(np.float64)
    state_item, listed = codes[: len(state_ms)], item_seen.copy()
    np.minimum.at(listed, state_item, _numbers(states["listed_at"]))
    return History(
        users, items, categories, user_seen, item_seen, listed, user[order], codes[len(state_ms) :][order],
        time_ms[order], kind[order].astype(np.int8),
        States(
            state_item[state_order], state_ms[state_order], category[state_order],
            np.where(price > 0, price, np.nan)[state_order],
        ),
        as_of_ms,
    )  # fmt: skip


def load_feeds(lake: Path, history: History, since_ms: int, until_ms: int) -> Feeds:
    """Feeds shown to known shoppers within [since, until), coded like `history`."""
    columns = ["user_id", "event_time", "item_ids", "device"]
    table = scan(lake, ProductsShown.topic, columns, since_ms=since_ms, until_ms=until_ms).combine_chunks()
    user = _look_up(history.users, table["user_id"])
    lists = table["item_ids"].combine_chunks()
    flat = _look_up(history.items, pc.list_flatten(lists))
    lengths = np.asarray(pc.list_value_length(lists).to_numpy(zero_copy_only=False), dtype=np.int64)
    items = np.full((len(lengths), int(lengths.max(initial=1))), -1, dtype=np.int64)
    items[np.arange(items.shape[1])[None, :] < lengths[:, None]] = flat
    time_ms = _numbers(table["event_time"])
    device = np.asarray(table["device"].to_pylist(), dtype=object)
    order = np.argsort(time_ms, kind="stable")
    order = order[user[order] >= 0]
    return Feeds(user[order], time_ms[order], items[order], device[order])


def _order_lines(orders: pa.Table) -> pa.Table:
    """One row per order line."""
    lines = orders["lines"].combine_chunks()
    parent = pc.list_parent_indices(lines)
    flat = pc.list_flatten(lines)
    item = pc.struct_field(flat, "item_id") if len(flat) else pa.array([], pa.string())
    rows = orders.select(["user_id", "event_time"]).take(parent)
    return rows.append_column("item_id", item)


def _code(values: pa.ChunkedArray, time_ms: Ints) -> tuple[NDArray[np.str_], Ints, Ints]:
    """Distinct values by first appearance, each row's code, and when each value first appeared."""
    encoded = values.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    codes = np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
    names = np.asarray(encoded.dictionary.to_pylist(), dtype=np.str_)
    seen = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(seen, codes, time_ms)
    order = np.lexsort((names, seen))
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    return names[order], place[codes], seen[order]


def _look_up(names: NDArray[np.str_], values: Any) -> Ints:
    found = pc.index_in(values, value_set=pa.array(names.tolist(), pa.string()))
    return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False) if isinstance(found, pa.Array)
                      else pc.fill_null(found, -1).to_numpy(), dtype=np.int64)  # fmt: skip


def _numbers(column: pa.ChunkedArray) -> Ints:
    return np.asarray(column.to_numpy(), dtype=np.int64)
