"""Draws the simulated marketplace's history and writes it into the lake; its truth goes to the truth folder.

Reads nothing. Writes `lake/<topic>/...` and `truth/world.npz`. History ends now, rounded down to the minute, so that
the feature windows are warm when serving begins. Run: `python -m pipelines.seed_history [--force]`.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from adapters.errors import Misconfigured
from feature_repo import events
from models.marketplace import names
from models.marketplace.config import MINUTE, WorldConfig
from models.marketplace.history import KINDS, History, draw_history
from models.marketplace.world import COUNTRIES, DEVICES, NEVER, World, build_world, item_id, seller_id, user_id
from pipelines.history_lake import read_meta, write_history
from settings import Settings, load_settings

TRUTH_FILE: Final = "world.npz"
CURRENCY: Final = "EUR"


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the simulated history and write it into the lake.")
    parser.add_argument("--force", action="store_true", help="replace the history that the lake already holds")
    try:
        seed(load_settings(), force=parser.parse_args().force)
    except Misconfigured as error:
        raise SystemExit(f"seed_history: {error.detail}") from None


def seed(settings: Settings, *, as_of_ms: int | None = None, force: bool = False) -> dict[str, Any]:
    """Seed the lake unless it is seeded already. Returns `_meta.json`. Raises Misconfigured over another history."""
    as_of_ms = as_of_ms or int(time.time() * 1000) // MINUTE * MINUTE
    shoppers, items, days = settings.sim_shoppers, settings.sim_items, settings.sim_days
    size = {"shoppers": shoppers, "items": items, "days": days, "seed": settings.seed}
    there = read_meta(settings.lake)
    if there and not force:
        if there.get("size") == size and (settings.truth / TRUTH_FILE).exists():
            print(f"history: already in {settings.lake} as of {there['as_of_ms']}")
            return there
        raise Misconfigured(
            f"{settings.lake} holds another history ({there.get('source')} {there.get('size', '')}), not the "
            f"simulator's {size}; keep it by changing the settings back, or drop all data with `make reset`"
        )
    began = time.monotonic()

    def said(line: str) -> None:
        print(f"history: {line} ({time.monotonic() - began:.1f} s)", flush=True)

    world = build_world(WorldConfig(**size, as_of_ms=as_of_ms))
    history = draw_history(world)
    said(f"{len(history.sessions['user']):,} sessions of {shoppers:,} shoppers in {days} days")
    settings.truth.mkdir(parents=True, exist_ok=True)
    with (settings.truth / TRUTH_FILE).open("wb") as file:
        np.savez(file, **world.arrays(), recent=history.recent)
    version = digest(world, history)
    meta = {"source": "simulator", "data_version": version, "as_of_ms": as_of_ms, "size": size, "missing": {}}
    return write_history(settings.lake, tables(world, history), meta, said)


def digest(world: World, history: History) -> str:
    """sha256 of everything that was drawn: the data version."""
    sha = hashlib.sha256()
    columns = world.arrays()
    for kind in KINDS:
        columns |= {f"{kind}.{k}": v for k, v in getattr(history, kind).items()}
    for name, values in columns.items():
        sha.update(name.encode())
        sha.update(np.ascontiguousarray(values).tobytes())
    return sha.hexdigest()


def tables(world: World, history: History) -> dict[str, pa.Table]:
    """The history as one Arrow table per topic with the columns of its event type."""
    to = _Columns(world, history)
    shown, clicked, carted = history.shown, history.clicked, history.carted
    ordered, lines, paid = history.ordered, history.lines, history.paid
    line = pa.StructArray.from_arrays(
        [to.items(lines["item"]), to.categories(lines["item"]), pa.array(lines["price"]), pa.array(lines["quantity"]),
         to.sellers(lines["item"])],
        names=["item_id", "category", "price_cents", "quantity", "seller_id"],
    )
    every_feed = np.arange(0, shown["items"].size + 1, shown["items"].shape[1])
    orders = pa.array([f"o-{to.tag}-{n:x}" for n in range(len(ordered["t"]))])
    of_order = ordered["session"][paid["order"]]
    buyer = history.sessions["user"][of_order]
    merchant = lines["item"][ordered["first"][paid["order"]]]  # who sells the first line
    return {
        events.ProductsShown.topic: to.table(events.ProductsShown, shown["t"], shown["session"], {
            "request_id": to.requests, "surface": _constant("home", len(shown["t"])),
            "item_ids": _lists(to.items(shown["items"].ravel()), every_feed),
        }),
        events.ProductClicked.topic: to.table(events.ProductClicked, clicked["t"], clicked["session"], {
            **to.product(clicked), "request_id": to.request(clicked["shown"]),
            "position": pa.array(clicked["position"], mask=clicked["shown"] < 0),
        }),
        events.ProductAddedToCart.topic: to.table(events.ProductAddedToCart, carted["t"], carted["session"], {
            **to.product(carted), "quantity": pa.array(carted["quantity"]), "request_id": to.request(carted["shown"]),
        }),
        events.OrderPlaced.topic: to.table(events.OrderPlaced, ordered["t"], ordered["session"], {
            "order_id": orders, "lines": _ranges(line, ordered["first"], ordered["size"]),
        }),
        events.PaymentMade.topic: to.table(events.PaymentMade, paid["t"], of_order, {
            "payment_id": pa.array([f"p-{to.tag}-{n:x}" for n in range(len(paid["t"]))]),
            "order_id": orders.take(paid["order"]),
            "merchant_id": to.sellers(merchant),
            "amount_cents": pa.array(paid["amount"]), "currency": _constant(CURRENCY, len(paid["t"])),
            "card_id": pa.array([f"card-{u:05d}" for u in buyer.tolist()], pa.string()),
            "device_id": pa.array([f"device-{u:05d}" for u in buyer.tolist()], pa.string()),
        }),
        events.ItemListed.topic: item_table(world, to),
    }  # fmt: skip


def item_table(world: World, to: _Columns) -> pa.Table:
    """Every state of every item until the end of history: its listing, and its price change if there was one."""
    as_of = world.config.as_of_ms
    listed = np.flatnonzero(world.listed_at <= as_of)
    changed = listed[world.price_change_at[listed] < min(as_of, NEVER)]
    rows = np.concatenate([listed, changed])
    later = np.repeat([0, 1], [len(listed), len(changed)])
    return to.table(events.ItemListed, np.where(later, world.price_change_at[rows], world.listed_at[rows]), None, {
        "item_id": to.items(rows), "title": pa.array(world.title[rows].tolist(), pa.string()),
        "category": to.categories(rows), "price_cents": pa.array(world.price[rows, later]),
        "listed_at": pa.array(world.listed_at[rows]),
        "seller_id": to.sellers(rows),
        "stock": pa.array(world.stock[rows]), "promoted": pa.array(world.promoted[rows]),
        "adult": pa.array([names.CATEGORIES[c].name in names.ADULT for c in world.category[rows].tolist()]),
    })  # fmt: skip


class _Columns:
    """Turns rows of the world into the columns of events: ids, categories, the envelope."""

    def __init__(self, world: World, history: History) -> None:
        config = world.config
        self.sessions = history.sessions
        self.tag = f"{config.seed}-{config.as_of_ms // MINUTE:x}"
        self._category, self._seller = world.category, world.seller
        self._seller_ids = pa.array([seller_id(s) for s in range(int(world.seller.max()) + 1)])
        self._item_ids = pa.array([item_id(row) for row in range(len(world.category))])
        self._user_ids = pa.array([user_id(row) for row in range(len(world.taste))])
        self._session_ids = pa.array([f"s-{self.tag}-{n:x}" for n in range(len(self.sessions["user"]))])
        self.requests = _uuid7(history.shown["t"], np.random.default_rng([config.seed, 3]))

    def items(self, rows: Any) -> pa.Array:
        return self._item_ids.take(pa.array(rows))

    def categories(self, items: Any) -> pa.Array:
        return pa.array([c.name for c in names.CATEGORIES]).take(pa.array(self._category[items]))

    def sellers(self, items: Any) -> pa.Array:
        return self._seller_ids.take(pa.array(self._seller[items]))

    def product(self, columns: Mapping[str, Any]) -> dict[str, pa.Array]:
        item, price = columns["item"], columns["price"]
        return {"item_id": self.items(item), "category": self.categories(item), "price_cents": pa.array(price),
                "seller_id": self.sellers(item)}

    def request(self, shown: Any) -> pa.Array:
        """The request id of each row's feed, null where the row came from no feed (-1)."""
        return self.requests.take(pa.array(shown, mask=shown < 0))

    def table(self, event: type[events.Event], t: Any, session: Any, columns: dict[str, pa.Array]) -> pa.Table:
        """`columns` with the envelope put in front; `session` (rows, or None) gives the shopper's part of it."""
        tag = str(event.__struct_config__.tag)
        short = "".join(word[0] for word in tag.split("_"))
        envelope = {
            "type": _constant(tag, len(t)), "version": pa.array(np.ones(len(t), np.int64)), "event_time": pa.array(t),
            "event_id": pa.array([f"{short}-{self.tag}-{n:x}" for n in range(len(t))], pa.string()),
        }  # fmt: skip
        if session is not None:
            envelope |= {
                "user_id": self._user_ids.take(pa.array(self.sessions["user"][session])),
                "session_id": self._session_ids.take(pa.array(session)),
                "country": pa.array(COUNTRIES).take(pa.array(self.sessions["country"][session])),
                "device": pa.array(DEVICES).take(pa.array(self.sessions["device"][session])),
            }
        return pa.table(envelope | columns)


def _constant(value: str, n: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, pa.string()), n)


def _lists(values: pa.Array, offsets: Any) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _ranges(values: pa.Array, first: Any, size: Any) -> pa.Array:
    """Lists of `values[first : first + size]`, in any order of `first`."""
    offsets = np.concatenate([[0], np.cumsum(size)])
    rows = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], size)
    return _lists(values.take(pa.array(rows)), offsets)


def _uuid7(t: Any, rng: np.random.Generator) -> pa.Array:
    """UUIDs of version 7 (RFC 9562) for times [n] in ms, drawn from `rng`."""
    high, low = rng.integers(0, 2**12, len(t)), rng.integers(0, 2**62, len(t))
    whole = [(ms << 16) | 0x7000 | a for ms, a in zip(t.tolist(), high.tolist(), strict=True)]
    return pa.array([
        f"{h >> 32:08x}-{(h >> 16) & 0xFFFF:04x}-{h & 0xFFFF:04x}-{((v >> 48) | 0x8000):04x}-{v & 0xFFFFFFFFFFFF:012x}"
        for h, v in zip(whole, low.tolist(), strict=True)
    ], pa.string())  # fmt: skip


if __name__ == "__main__":
    main()
