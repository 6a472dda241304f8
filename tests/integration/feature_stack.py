"""What the feature tests share: a broker and a Redis of their own, workers as processes, a hard stream of events."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from kafka import KafkaConsumer, TopicPartition

from adapters.feature_state import FeatureState
from adapters.kafka import KafkaPublisher, ensure_topics
from feature_repo import events
from feature_repo.plan import FeaturePlan
from tests.integration.conftest import kafka_server, redis_process

ROOT = Path(__file__).parents[2]
PARTITIONS = 4
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


@dataclass
class Stack:
    """A home folder, a broker, a Redis and the processes started on them."""

    home: Path
    bootstrap: str
    redis_url: str
    plan: FeaturePlan
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def lake(self) -> Path:
        return self.home / "lake"

    @property
    def state(self) -> FeatureState:
        return FeatureState(self.redis_url, self.plan)

    def start(self, service: str, port: int, **settings: str) -> subprocess.Popen[bytes]:
        """Start `python -m services.<service>` with MINIMART_<settings>."""
        own = {"home": str(self.home), "kafka_bootstrap": self.bootstrap, "redis_url": self.redis_url,
               f"{service}_port": str(port)} | settings
        env = os.environ | {f"MINIMART_{k.upper()}": v for k, v in own.items()}
        with (self.home / f"{service}-{port}.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", f"services.{service}"], cwd=ROOT, env=env, stdout=log,
                                       stderr=log)
        self.processes.append(process)
        return process

    def ends(self, topics: tuple[str, ...]) -> dict[tuple[str, int], int]:
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap)
        wanted = [TopicPartition(t, p) for t in topics for p in range(PARTITIONS)]
        found = {(tp.topic, tp.partition): end for tp, end in consumer.end_offsets(wanted).items()}
        consumer.close()
        return found

    def done(self) -> float:
        """The share of what is in Kafka that has been committed, the topic between the stages included."""
        ends = self.ends((*self.plan.topics, events.REKEYED))
        state = self.state
        behind = total = 0
        for partition in range(PARTITIONS):
            progress = state.load(partition)
            for (topic, p), end in ends.items():
                if p == partition:
                    total += end
                    behind += end - (progress.offsets.get(topic, 0) if progress else 0)
        return 1 - behind / max(total, 1)

    def wait_done(self, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while self.done() < 1:
            assert time.monotonic() < deadline, f"only {self.done():.1%} after {seconds} s"
            time.sleep(0.3)


@contextmanager
def feature_stack(folder: Path) -> Iterator[Stack]:
    (folder / "kafka").mkdir(parents=True)
    (folder / "redis").mkdir()
    home = folder / "home"
    (home / "features").mkdir(parents=True)
    plan_json = (ROOT / "tests" / "plan.json").read_bytes()
    (home / "features" / "plan.json").write_bytes(plan_json)
    with kafka_server(folder / "kafka") as bootstrap, redis_process(folder / "redis") as redis_url:
        ensure_topics(bootstrap, PARTITIONS)
        stack = Stack(home, bootstrap, redis_url, FeaturePlan.parse(plan_json))
        try:
            yield stack
        finally:
            for process in stack.processes:
                process.kill()
                process.wait(10)


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
