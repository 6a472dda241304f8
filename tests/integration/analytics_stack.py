"""What the tests of the analytical store share: a broker and a ClickHouse of their own, the consumer as a process, and
a stream of decisions and events whose truth is counted without SQL."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from kafka import KafkaConsumer, TopicPartition

from adapters.analytics import Analytics
from adapters.decision_log import pack_features
from adapters.kafka import KafkaPublisher, ensure_topics
from feature_repo import events
from feature_repo.windows import DAY_MS, HOUR_MS
from pipelines.stack.launch import free_ports
from services.analytics.consumer import TOPICS
from tests.integration.conftest import clickhouse_process, kafka_server

ROOT = Path(__file__).parents[2]
PARTITIONS = 4
Sent = tuple[str, str, bytes, int]


@dataclass
class Stack:
    """A home folder, a broker, a ClickHouse and the consumers started on them."""

    home: Path
    bootstrap: str
    url: str
    publisher: KafkaPublisher
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def store(self) -> Analytics:
        return Analytics(self.url)

    def start(self, crash_point: str = "") -> subprocess.Popen[bytes]:
        own = {"home": str(self.home), "kafka_bootstrap": self.bootstrap, "clickhouse_url": self.url,
               "analytics_port": str(free_ports(1)[0]), "crash_point": crash_point}
        env = os.environ | {f"MINIMART_{k.upper()}": v for k, v in own.items()}
        with (self.home / "analytics.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "services.analytics"], cwd=ROOT, env=env, stdout=log,
                                       stderr=log)
        self.processes.append(process)
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        assert process.wait(30) == 0

    def produce(self, stream: list[Sent]) -> None:
        for topic, key, value, arrival in stream:
            self.publisher.publish(topic, key, value, timestamp_ms=arrival)
        self.publisher.flush(60)

    def ends(self) -> dict[tuple[str, int], int]:
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap)
        wanted = [TopicPartition(t, p) for t in TOPICS for p in range(PARTITIONS)]
        found = {(tp.topic, tp.partition): end for tp, end in consumer.end_offsets(wanted).items()}
        consumer.close()
        return found

    def wait_stored(self, seconds: float = 60) -> None:
        """Wait until everything that is in Kafka is in the store and every touched hour has been computed."""
        from services.analytics.rollup import DIRTY

        ends = {place: end for place, end in self.ends().items() if end}
        deadline = time.monotonic() + seconds
        while True:
            with_store = self.store
            try:
                at = {(r["topic"], r["partition"]): r["next_offset"]
                      for r in with_store.query("SELECT * FROM offsets FINAL")}
                if all(at.get(place) == end for place, end in ends.items()) and not with_store.query(
                        DIRTY, {"retry": False}):
                    return
            except Exception as error:  # noqa: BLE001 the store may be away or without tables yet
                at = {("error", 0): repr(error)}
            finally:
                with_store.close()
            assert time.monotonic() < deadline, (at, ends)
            time.sleep(0.3)


@contextmanager
def analytics_stack(folder: Path) -> Iterator[Stack]:
    with kafka_server(folder / "kafka") as bootstrap, clickhouse_process(folder / "store") as url:
        ensure_topics(bootstrap, PARTITIONS)
        stack = Stack(folder, bootstrap, url, KafkaPublisher(bootstrap, client_id="test", max_buffer=50_000))
        try:
            yield stack
        finally:
            stack.publisher.close()
            for process in stack.processes:
                if process.poll() is None:
                    process.kill()
                    process.wait(10)


def decision(request: str, user: str, at: int, items: list[str], rng: random.Random, **own: Any) -> dict[str, Any]:
    """A record as the recommender writes it, shortened to two more candidates than are shown."""
    ids = [*items, "x1", "x2"]
    rows = np.array([[rng.random(), float("nan"), i] for i in range(len(ids))], np.float32)
    return {
        "request_id": request, "event_time": at, "user_id": user, "surface": "home", "device": "phone", "k": len(items),
        "model_versions": {"ranker": "3", "two-tower": "2", "preranker": "1"}, "cold_start": None, "degraded": [],
        "timings_ms": {"retrieve": 1.5, "rank": 2.0, "total": float(rng.randint(5, 80))}, "user_features": {"a": None},
        "candidates": {"item_ids": ids}, "items": [{"item_id": i, "score": 0.5, "position": 1} for i in items],
        "rank": {"item_ids": ids, "scores": [0.1] * len(ids), "features_base64": pack_features(rows),
                 "feature_names_sha": "s"}, **own,
    }


def stream_of(seed: int, requests: int, now: int) -> list[Sent]:
    """Feeds of the last three hours and what came of them, with duplicates, poison and events that are too late."""
    rng = random.Random(seed)
    out: list[Sent] = []

    def send(topic: str, key: str, value: dict[str, Any], arrival: int | None = None) -> None:
        at = value.get("event_time", now) if arrival is None else arrival
        out.append((topic, key, orjson.dumps(value), at))

    for n in range(requests):
        user, request, at = f"u{rng.randint(0, 40)}", f"r{seed}-{n}", now - rng.randint(60_000, 3 * HOUR_MS)
        items = [f"i{rng.randint(0, 200)}-{k}" for k in range(4)]
        arm = rng.choice(["champion", "canary", "control"])
        send(events.DECISIONS, request, decision(
            request, user, at, items, rng, arm=arm, rollout=None if arm == "champion" else "7-1",
            degraded=["redis_down"] if rng.random() < 0.1 else []))
        who = {"user_id": user, "version": 1}
        send("shop.impressions", user, {"type": "products_shown", "event_id": f"e{seed}-{n}-s", "event_time": at + 50,
                                        "request_id": request, "item_ids": items, **who})
        if rng.random() < 0.5:
            fact = {"item_id": items[1], "category": "c", "price_cents": 100 + n, **who}
            click = {"type": "product_clicked", "event_id": f"e{seed}-{n}-c", "event_time": at + 2_000, "position": 2,
                     "request_id": request, **fact}
            send("shop.clicks", user, click)
            if rng.random() < 0.3:
                send("shop.clicks", user, click)  # the sender tried again
            if rng.random() < 0.5:
                send("shop.carts", user, {"type": "product_added_to_cart", "event_id": f"e{seed}-{n}-a", **fact,
                                          "event_time": at + 3_000, "request_id": request})
                line = {k: fact[k] for k in ("item_id", "category", "price_cents")}
                send("shop.orders", user, {"type": "order_placed", "event_id": f"e{seed}-{n}-o", "order_id": f"o{n}",
                                           "event_time": at + 5_000, "lines": [line, line | {"item_id": "never-seen"}],
                                           **who})
        if n % 10 == 0:
            send("shop.clicks", user, {"type": "product_clicked", "event_id": f"e{seed}-{n}-late", "item_id": "i1",
                                       "category": "c", "price_cents": 1, "event_time": now - 9 * DAY_MS, **who}, now)
            out.append((rng.choice(["shop.clicks", "shop.orders", events.DECISIONS, events.SHADOW]), user,
                        rng.choice([b"not json", b'{"a": 1}', b"[1]", b"\xff\xfe", b""]), now))
        if n % 7 == 0:
            send(events.SHADOW, request, {"request_id": request, "event_time": at, "rollout": "7-1", "items": items,
                                          "scores": [0.1, None], "total_ms": 9.5, "overlap_at_k": 0.75, "error": None,
                                          "model_versions": {"ranker": "4"}})
    return out


@dataclass
class Truth:
    """What ought to be in the store, counted record by record."""

    rows: dict[str, set[str]]
    dead: int
    hourly: dict[tuple[int, str], Counter[str]]


def truth_of(stream: list[Sent]) -> Truth:
    """The truth of everything that was sent."""
    rows: dict[str, set[str]] = defaultdict(set)
    read: dict[str, dict[str, Any]] = {}
    dead = 0
    tables = {events.DECISIONS: "decisions", events.SHADOW: "shadow", "shop.impressions": "impressions",
              "shop.clicks": "clicks", "shop.carts": "carts", "shop.orders": "orders"}
    for topic, _, value, arrival in stream:
        try:
            found = orjson.loads(value)
            identity = found["request_id"] if topic.startswith("decisions") else found["event_id"]
            if found["event_time"] < arrival - 7 * DAY_MS:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            dead += 1
            continue
        rows[tables[topic]].add(identity)
        read[f"{tables[topic]}:{identity}"] = found
    return Truth(rows, dead, _hourly(read))


def _hourly(read: dict[str, dict[str, Any]]) -> dict[tuple[int, str], Counter[str]]:
    arms = {found["request_id"]: found["arm"] for key, found in read.items() if key.startswith("decisions")}
    clicks = [found for key, found in read.items() if key.startswith("clicks")]
    hours: dict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    for key, found in read.items():
        table, hour = key.partition(":")[0], found["event_time"] // HOUR_MS * HOUR_MS // 1000
        if table == "orders":
            for line in found["lines"]:
                mine = [c for c in clicks if c["user_id"] == found["user_id"] and c["item_id"] == line["item_id"]
                        and c.get("request_id") and 0 <= found["event_time"] - c["event_time"] < DAY_MS]
                arm = arms[max(mine, key=lambda c: c["event_time"])["request_id"]] if mine else ""
                hours[hour, arm].update(orders=1, revenue_cents=line["price_cents"])
        elif table in ("decisions", "impressions", "clicks", "carts"):
            arm = arms.get(found.get("request_id"), "")
            hours[hour, arm][table] += 1
            hours[hour, arm]["degraded"] += table == "decisions" and bool(found["degraded"])
            hours[hour, arm]["shown"] += len(found["item_ids"]) if table == "impressions" else 0
    return hours
