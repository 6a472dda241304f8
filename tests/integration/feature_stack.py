"""What the feature tests share: a broker and a Redis of their own, workers as processes, a hard stream of events."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from adapters.kafka import KafkaPublisher
from feature_repo import events
from feature_repo.plan import FeaturePlan
from pipelines.parity.servers import PARTITIONS as PARTITIONS
from pipelines.parity.servers import Servers as Stack
from pipelines.parity.servers import servers

ROOT = Path(__file__).parents[2]
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


@contextmanager
def feature_stack(folder: Path) -> Iterator[Stack]:
    """Servers under `folder`, which need not be there yet."""
    plan = FeaturePlan.load(ROOT / "tests" / "plan.json")
    with servers(folder, plan, sys.executable, heap_mb=256, redis_mb=512) as found:
        yield found


def hard_stream(seed: int, n: int, start_ms: int, spread_ms: int) -> list[tuple[str, str, bytes, int]]:
    """(topic, key, payload, arrival) of n records arriving over `spread_ms`: 5 % late up to hours, 3 % duplicates, 1 %
    too late or ahead of the clock, 1 % poison, hot users and items, out of order, equal timestamps."""
    rng = random.Random(seed)
    users = [f"u{i}" for i in range(60)]
    items = [f"i{i}" for i in range(40)]
    out: list[tuple[str, str, bytes, int]] = []
    for i in range(n):
        arrival = start_ms + spread_ms * i // n
        if out and rng.random() < 0.03:
            topic, key, payload, _ = out[max(0, len(out) - 1 - int(rng.expovariate(1 / 300)))]
            out.append((topic, key, payload, arrival))
            continue
        behind = rng.choices([rng.randint(-60_000, 2_000), rng.randint(0, 5 * HOUR), rng.choice([8 * DAY, -HOUR])],
                             [94, 5, 1])[0]
        user = users[int(rng.paretovariate(0.8)) % len(users)]
        item = {"item_id": items[int(rng.paretovariate(0.7)) % len(items)], "category": rng.choice(["tea", "toys"]),
                "price_cents": rng.randint(1, 99_999)}
        if i % 3:  # senders of the older schema do not say who sells it
            item["seller_id"] = f"s{int(item['item_id'][1:]) % 5}"
        base = {"event_id": f"e-{seed}-{i}", "event_time": (arrival - behind) // 1000 * 1000, "user_id": user}
        payment = {"type": "payment_made", "payment_id": "p", "order_id": "o", "merchant_id": f"s{rng.randint(0, 4)}",
                   "amount_cents": rng.randint(0, 99_999), "card_id": f"k-{user}-{rng.randint(0, 1)}"}
        if rng.random() < 0.8:
            payment["device_id"] = f"d{int(user[1:]) % 20}"
        kind = rng.choices(["shop.impressions", "shop.clicks", "shop.carts", "shop.orders", "shop.payments"],
                           [20, 45, 15, 10, 10])[0]
        body = {"shop.impressions": {"type": "products_shown", "request_id": "r", "item_ids": rng.sample(items, 8)},
                "shop.clicks": {"type": "product_clicked", **item},
                "shop.carts": {"type": "product_added_to_cart", **item},
                "shop.payments": payment,
                "shop.orders": {"type": "order_placed", "order_id": "o",
                                "lines": [item | {"quantity": rng.randint(1, 3)}] * rng.randint(1, 2)}}[kind]
        payload = msgspec.json.encode(base | body)
        if rng.random() < 0.01:
            payload = rng.choice([b"", b"\xff\xfe", b"not json", b'{"type":"product_clicked"}', payload[:-2],
                                  payload.replace(b'"user_id"', b'"version":99,"user_id"')])
        out.append((kind, user, payload, arrival))
    return out


def produce(stack: Stack, stream: list[tuple[str, str, bytes, int]]) -> None:
    publisher = KafkaPublisher(stack.bootstrap, client_id="test", max_buffer=len(stream) + 1)
    for topic, key, payload, arrival in stream:
        publisher.publish(topic, key, payload, timestamp_ms=arrival)
    publisher.flush(60)
    publisher.close()


def as_oracle(stream: list[tuple[str, str, bytes, int]]) -> tuple[list[dict[str, Any]], int]:
    """(readable events as the oracle wants them, how many were poison)."""
    found, poison = [], 0
    for topic, _, payload, arrival in stream:
        try:
            events.decode(topic, payload)
        except events.EventRejected:
            poison += 1
            continue
        found.append(msgspec.json.decode(payload) | {"topic": topic, "arrival": arrival})
    return found, poison
