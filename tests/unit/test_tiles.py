"""Tiles merged at read time equal brute force, in any order, and decay with the clock alone."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo import distinct, events, tiles
from feature_repo.facts import extractor
from feature_repo.layout import layout_of
from feature_repo.plan import FeaturePlan, compile_view
from feature_repo.windows import lateness
from tests import brute_force

PLAN = FeaturePlan.load(Path(__file__).parents[1] / "plan.json")
T0 = 1_790_000_000_000
DAY = 86_400_000
USERS, ITEMS, CATEGORIES = ["u1", "u2"], ["i1", "i2", "i3"], ["tea", "toys"]


def random_event(rng: random.Random, number: int, arrival: int) -> dict[str, Any]:
    """One shopper event that happened up to 8 days before, or some minutes after, it arrived."""
    late = rng.choice([0, 0, rng.randint(-4 * 60_000, 90_000), rng.randint(0, 3 * 3_600_000), rng.randint(0, 8 * DAY)])
    item = {"item_id": rng.choice(ITEMS), "category": rng.choice(CATEGORIES), "price_cents": rng.randint(1, 5000)}
    if rng.random() < 0.7:
        item["seller_id"] = rng.choice(["s1", "s2"])
    event: dict[str, Any] = {"event_id": f"e{number}", "event_time": arrival - late, "user_id": rng.choice(USERS)}
    topic = rng.choice(["shop.impressions", "shop.clicks", "shop.clicks", "shop.carts", "shop.orders", "shop.payments",
                        "shop.payments"])
    if topic == "shop.impressions":
        event |= {"type": "products_shown", "request_id": "r", "item_ids": rng.sample(ITEMS, 2)}
    elif topic == "shop.clicks":
        event |= {"type": "product_clicked", **item}
    elif topic == "shop.carts":
        event |= {"type": "product_added_to_cart", **item}
    elif topic == "shop.orders":
        event |= {"type": "order_placed", "order_id": "o", "lines": [item | {"quantity": rng.randint(1, 3)}]}
    else:
        amount = rng.choice([rng.randint(0, 9), 10**10 - rng.randint(0, 2)])
        event |= {"type": "payment_made", "payment_id": "p", "order_id": "o", "merchant_id": rng.choice(["m1", "m2"]),
                  "amount_cents": amount, "card_id": rng.choice(["k1", "k2"])}
        if rng.random() < 0.7:
            event["device_id"] = "d1"
    return {"topic": topic, "arrival": arrival, "payload": event}


def history(seed: int, n: int) -> list[dict[str, Any]]:
    """Accepted events in order of arrival, flat, as the oracle wants them."""
    rng = random.Random(seed)
    arrivals = sorted(T0 + rng.choice([rng.randint(0, 3 * 3_600_000), rng.randint(0, 8 * DAY)]) for _ in range(n))
    found = [random_event(rng, i, a) for i, a in enumerate(arrivals)]
    return [f["payload"] | {"topic": f["topic"], "arrival": f["arrival"]} for f in found
            if lateness(f["payload"]["event_time"], f["arrival"]) is None]


def count_in(view_name: str, stream: list[dict[str, Any]]) -> dict[tuple[str, ...], tiles.State]:
    view = PLAN.view(view_name)
    layout = layout_of(view)
    states: dict[tuple[str, ...], tiles.State] = {}
    for event in stream:
        payload = {k: v for k, v in event.items() if k not in ("topic", "arrival")}
        decoded = events.decode(event["topic"], json.dumps(payload).encode())
        for at, feed in enumerate(layout.feeds):
            if feed.topic == event["topic"]:
                for key, values in extractor(view, feed)(decoded):
                    state = states.setdefault(key, tiles.State(layout))
                    tiles.apply(layout, state, at, event["event_time"], event["arrival"], values)
    return states


@given(seed=st.integers(0, 10**9), n=st.integers(1, 60), extra=st.integers(0, 9 * DAY))
@settings(max_examples=40, deadline=None)
def test_windows_equal_brute_force(seed: int, n: int, extra: int) -> None:
    stream = history(seed, n)
    now = max((e["arrival"] for e in stream), default=T0) + extra
    for view in PLAN.declared_views:
        layout = layout_of(view)
        states = count_in(view.name, stream)
        keys = [*states, ("nobody",) * len(view.join_keys)]
        packed = [tiles.pack(layout, states[k]) if k in states else None for k in keys]
        table = tiles.columns(view, packed, now)
        for row, key in enumerate(keys):
            one = tiles.windows(view, packed[row], now)
            for name, truth in brute_force.features(view.features, key, stream, now).items():
                assert brute_force.same(one[name], truth), (name, key, one[name], truth)
                assert brute_force.same(table[name][row], truth)


@given(seed=st.integers(0, 10**9), n=st.integers(2, 50))
@settings(max_examples=20, deadline=None)
def test_any_order_gives_the_same_windows(seed: int, n: int) -> None:
    stream = history(seed, n)
    shuffled = random.Random(seed + 1).sample(stream, len(stream))
    now = max((e["arrival"] for e in stream), default=T0)
    for view in PLAN.declared_views:
        layout = layout_of(view)
        one, other = count_in(view.name, stream), count_in(view.name, shuffled)
        assert one.keys() == other.keys()
        for key in one:
            a = tiles.windows(view, tiles.pack(layout, one[key]), now)
            b = tiles.windows(view, tiles.pack(layout, other[key]), now)
            assert repr(a) == repr(b)


def test_packing_and_unpacking_changes_nothing() -> None:
    for view in PLAN.declared_views:
        layout = layout_of(view)
        for state in count_in(view.name, history(3, 200)).values():
            packed = tiles.pack(layout, state)
            again = tiles.unpack(layout, packed)
            assert again is not None
            assert tiles.pack(layout, again) == packed


def test_a_window_decays_with_the_clock_alone() -> None:
    view = PLAN.view("user_activity")
    layout = layout_of(view)
    state = tiles.State(layout)
    feed = next(i for i, f in enumerate(layout.feeds) if f.topic == "shop.impressions")
    tiles.apply(layout, state, feed, T0, T0, ())
    packed = tiles.pack(layout, state)
    seen = [tiles.windows(view, packed, T0 + age)["user_feeds_count_1h"] for age in (0, 3_540_000, 3_660_000)]
    assert seen == [1, 1, 0]
    assert tiles.windows(view, packed, T0 + 8 * DAY)["user_feeds_count_7d"] == 0


@pytest.mark.parametrize("blob", [None, b"", b"\x00", b"junk" * 9, msgspec.msgpack.encode([1, 2, [], [], []])])
def test_bytes_that_are_no_state_read_as_missing(blob: bytes | None) -> None:
    view = PLAN.view("user_activity")
    found = tiles.windows(view, blob, T0)
    assert found["user_clicks_count_7d"] == 0
    assert math.isnan(found["user_click_price_mean_7d"])
    assert found["user_last_item"] is None
    assert found["user_recent_items"] == []


@pytest.mark.parametrize("n", [0, 1, 64, 65, 500, 20_000, 200_000])
def test_distinct_is_exact_while_small_then_within_its_error(n: int) -> None:
    values = np.array([distinct.hash64(f"v{i}") for i in range(n)], dtype=np.uint64)
    found = distinct.count([distinct.build(values)])
    assert found == n if n <= distinct.EXACT_LIMIT else abs(found - n) <= 4 * 0.023 * n


@given(st.lists(st.integers(0, 300), max_size=400))
@settings(max_examples=50, deadline=None)
def test_a_sketch_depends_on_the_set_only(values: list[int]) -> None:
    sketch = bytearray()
    for value in values:
        sketch = distinct.add(sketch, distinct.hash64(value))
    built = distinct.build(np.array(sorted({distinct.hash64(v) for v in values}), dtype=np.uint64))
    assert distinct.is_exact(sketch) == (len(set(values)) <= distinct.EXACT_LIMIT)
    assert distinct.count([bytes(sketch)]) == distinct.count([built])
    assert (distinct.registers([bytes(sketch)]) == distinct.registers([built])).all()


def test_a_hot_key_overflows_into_registers_and_back_out_of_the_window() -> None:
    view = PLAN.view("user_activity")
    layout = layout_of(view)
    state = tiles.State(layout)
    feed = next(i for i, f in enumerate(layout.feeds) if f.topic == "shop.clicks")
    order = [f[0] for f in layout.feeds[feed].values]
    for i in range(1000):
        values = [{"item_id": f"i{i}", "category": "tea", "price_cents": 5}[name] for name in order]
        tiles.apply(layout, state, feed, T0 + i, T0 + i, values)
    again = tiles.unpack(layout, tiles.pack(layout, state))
    assert again is not None
    packed = tiles.pack(layout, again)
    assert abs(tiles.windows(view, packed, T0 + 1000)["user_click_items_distinct_24h"] - 1000) < 100
    assert tiles.windows(view, packed, T0 + 3 * DAY)["user_click_items_distinct_24h"] == 0


@pytest.mark.parametrize(("columns", "aggregation", "says"), [
    ({"a": "shop.clicks"}, ("b", "count", 3_600_000, "f"), "column 'b'"),
    ({"a": "shop.clicks"}, ("a", "count", 7_200_000, "f"), "windows are"),
    ({"a": "shop.clicks"}, ("a", "sum", 3_600_000, "f"), "needs a column with a value"),
    ({"a": "shop.clicks:item_id"}, ("a", "last", 3_600_000, "f"), "have none"),
])
def test_a_wrong_declaration_is_refused_by_name(columns: dict[str, str], aggregation: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        compile_view("v", "user", ("user_id",), columns, [aggregation])
