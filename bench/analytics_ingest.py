"""How fast the analytical store takes in what Kafka holds, and how fast it answers: `python -m bench.analytics_ingest`.

A broker, a ClickHouse (chDB) and the consumer of their own, on free ports in a temporary folder. Decisions are as large
as the demo's (1,000 candidates, 200 ranked rows of 65 features). Measured three times each, in one run:
  floor_read    Kafka alone: every record polled, nothing decoded          records/s
  floor_insert  ClickHouse alone: the same rows, encoded beforehand        rows/s
  ingest        the service, from its start to the last offset committed   records/s (its start included)
Then every named query, twenty times; and five times on a store grown to 300,000 decisions (without the ranker's rows),
as many impressions, 600,000 clicks and 20,000 orders in three hours, with the time to compute its fullest hour anew.
Raw samples go to bench/results/analytics_ingest.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import psutil

from adapters import analytics_queries as ask
from adapters import provenance
from adapters.analytics import Analytics
from adapters.decision_log import pack_features
from adapters.errors import NotFound
from adapters.kafka import KafkaPublisher, ensure_topics, read_topic
from feature_repo import events
from models.ranking_features import FEATURES, FEATURES_SHA
from pipelines.stack import clickhouse_server, kafka_broker
from pipelines.stack.launch import free_ports, running
from services.analytics.rollup import HOUR
from settings import ROOT

HOST: Final = "127.0.0.1"
ROUNDS: Final = 3
ASKED: Final = 20
RESULT: Final = ROOT / "bench" / "results" / "analytics_ingest.json"
PARTITIONS: Final = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--decisions", type=int, default=3_000)
    parser.add_argument("--clicks", type=int, default=60_000, help="a tenth of them in feeds that were seen")
    parser.add_argument("--save", type=Path, help=f"where to write the result, e.g. {RESULT.relative_to(ROOT)}")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, servers(Path(folder)) as (bootstrap, url):
        result = measure(Path(folder), bootstrap, url, decisions=asked.decisions, clicks=asked.clicks)
    for name, samples in result["samples"].items():
        print(f"{name:24} median {np.median(samples):>12,.4g}   of {', '.join(f'{s:,.4g}' for s in samples[:3])} ...")
    if asked.save:
        asked.save.write_text(json.dumps(result, indent=1) + "\n")


@contextmanager
def servers(folder: Path) -> Iterator[tuple[str, str]]:
    """A broker and a ClickHouse; gives bootstrap and URL."""
    kafka, controller, store = free_ports(3)
    first = kafka_broker.launch(folder / "kafka", host=HOST, port=kafka, controller_port=controller, heap_mb=384)
    second = clickhouse_server.launch(folder / "clickhouse", host=HOST, port=store)
    with running(first, log=folder / "kafka.log", ready=lambda: kafka_broker.ready(HOST, kafka)), running(
            second, log=folder / "clickhouse.log", ready=lambda: clickhouse_server.ready(HOST, store)):
        ensure_topics(f"{HOST}:{kafka}", PARTITIONS)
        yield f"{HOST}:{kafka}", f"http://{HOST}:{store}"


def measure(folder: Path, bootstrap: str, url: str, *, decisions: int, clicks: int) -> dict[str, Any]:
    """Fill Kafka, measure everything, give figures with their raw samples."""
    now = int(time.time() * 1000)
    sent = fill(bootstrap, decisions, clicks, now)
    store = Analytics(url, timeout_s=60)
    peaks: list[float] = []
    samples: dict[str, list[float]] = {"ingest": [], "floor_read": [], "floor_insert": []}
    for _ in range(ROUNDS):
        if samples["ingest"]:
            store.execute("DROP DATABASE minimart SYNC")
        samples["ingest"].append(sent / ingest(folder, bootstrap, url, store, sent, peaks))
        samples["floor_read"].append(sent / timed(lambda: read_all(bootstrap, sent)))
    samples["floor_insert"] = insert_floor(store)
    since = now - 3 * 3_600_000
    questions: dict[str, Callable[[], object]] = {
        "ctr_by_arm": lambda: ask.ctr_by_arm(store, since), "hourly": lambda: ask.hourly(store, since),
        "labelled_predictions": lambda: ask.labelled_predictions(store, since, now),
        "shown_features": lambda: ask.shown_features(store, since, now), "freshness": lambda: ask.freshness(store),
        "latency_by_arm": lambda: ask.latency_by_arm(store, since), "conservation": lambda: ask.conservation(store)}
    stored = {row["name"]: row["rows"] for row in ask.freshness(store)}
    sizes = disk(store)
    for size, asked in (("", ASKED), ("grown_", ASKED // 4)):
        for name, question in questions.items():
            samples[f"query_ms_{size}{name}"] = [round(1000 * timed(question), 2) for _ in range(asked)]
        samples[f"hour_ms_{size}computed"] = compute_fullest_hour(store)
        if not size:
            grow(store, now)
    return {
        **provenance.stamp(), "decisions": decisions, "clicks": clicks, "records": sent, "rows": stored,
        "load_average": os.getloadavg()[0], "disk_bytes_by_table": sizes, "peak_rss_mib": peaks, "samples": samples}


def fill(bootstrap: str, decisions: int, clicks: int, now: int) -> int:
    """Publish the world; returns how many records."""
    rng = random.Random(1)
    records = decision_template(rng)
    publisher = KafkaPublisher(bootstrap, client_id="bench", max_buffer=20_000)
    sent = 0

    def send(topic: str, key: str, value: bytes) -> None:
        nonlocal sent
        while publisher.outstanding > 15_000:
            time.sleep(0.01)
        publisher.publish(topic, key, value)
        sent += 1

    for n in range(decisions):
        at = now - rng.randint(0, 3 * 3_600_000)
        record = records | {"request_id": f"r{n}", "event_time": at, "user_id": f"u{n % 500}",
                            "arm": ("champion", "canary", "control")[n % 3]}
        send(events.DECISIONS, f"r{n}", orjson.dumps(record))
    shown = [item["item_id"] for item in records["items"]]
    for n in range(clicks):
        at, user = now - rng.randint(0, 3 * 3_600_000), f"u{n % 500}"
        request = f"r{n // 10 % decisions}" if n % 10 == 0 else None
        event = events.ProductClicked(event_id=f"c{n}", event_time=at, user_id=user, item_id=shown[n % len(shown)],
                                      category="c", price_cents=100, request_id=request)
        send(event.topic, user, events.encode(event))
        if request:
            seen = events.ProductsShown(event_id=f"s{n}", event_time=at - 50, user_id=user, item_ids=shown,
                                        request_id=request)
            send(seen.topic, user, events.encode(seen))
    publisher.flush(120)
    publisher.close()
    return sent


def decision_template(rng: random.Random) -> dict[str, Any]:
    """A record of the demo's size; random features, so that they pack no better than real ones."""
    ids = [f"i{n:05}" for n in range(1_000)]
    rows = np.random.default_rng(rng.randint(0, 9)).normal(size=(200, len(FEATURES))).round(2).astype(np.float32)
    return {
        "surface": "home", "device": "phone", "k": 20, "degraded": [], "cold_start": None, "now_ms": 0,
        "model_versions": {"ranker": "3", "two-tower": "2", "preranker": "1", "index": "2"},
        "timings_ms": {"retrieve": 5.1, "features": 4.0, "prerank": 3.0, "rank": 5.0, "rerank": 1.0, "total": 18.9},
        "user_features": dict.fromkeys(FEATURES[:12], 1.0),
        "candidates": {"item_ids": ids, "sources": [1] * 1_000, "source_names": ["two_tower"],
                       "fused": [0.016393] * 1_000},
        "rank": {"item_ids": ids[:200], "scores": [0.123456] * 200, "features_base64": pack_features(rows),
                 "feature_names_sha": FEATURES_SHA},
        "items": [{"item_id": i, "score": 0.5, "sources": ["two_tower"], "position": n, "new": False}
                  for n, i in enumerate(ids[:20], 1)]}


def ingest(folder: Path, bootstrap: str, url: str, store: Analytics, sent: int, peaks: list[float]) -> float:
    """Seconds from the service's start until everything is committed; its peak memory in MiB goes to `peaks`."""
    own = {"HOME": folder, "KAFKA_BOOTSTRAP": bootstrap, "CLICKHOUSE_URL": url, "ANALYTICS_PORT": free_ports(1)[0]}
    environment = os.environ | {f"MINIMART_{name}": str(value) for name, value in own.items()}
    begun = time.perf_counter()
    with (folder / "analytics.log").open("ab") as log, subprocess.Popen(
            [sys.executable, "-m", "services.analytics"], cwd=ROOT, env=environment, stdout=log, stderr=log) as process:
        taken = 0
        while taken < sent:
            time.sleep(0.1)
            if process.poll() is not None or time.perf_counter() - begun > 300:
                process.kill()
                raise SystemExit(f"the consumer stopped at {taken} of {sent}; see {folder / 'analytics.log'}")
            with contextlib.suppress(NotFound):  # the consumer makes the tables
                taken = store.query("SELECT sum(next_offset - first_offset) AS n FROM offsets FINAL")[0]["n"]
        took = time.perf_counter() - begun
        peaks.append(peak_mib(process.pid))
        process.terminate()
    return took


def peak_mib(pid: int) -> float:
    """The most memory that a process had (on Linux; elsewhere what it has now)."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return float(psutil.Process(pid).memory_info().rss / 2**20)
    return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024


def read_all(bootstrap: str, sent: int) -> None:
    """Every record of every topic polled once."""
    topics = (events.DECISIONS, events.ProductClicked.topic, events.ProductsShown.topic)
    found = sum(1 for topic in topics for _ in read_topic(bootstrap, topic, timeout_s=60))
    if found != sent:
        raise SystemExit(f"read {found} records of {sent}")


def insert_floor(store: Analytics) -> list[float]:
    """Rows a second of table clicks through the adapter, 5,000 rows an INSERT, rows made beforehand."""
    rows = [{"event_id": f"f{n}", "event_ms": 1_700_000_000_000, "user_id": f"u{n % 500}", "item_id": "i1",
             "_partition": 0, "_offset": n, "_arrival_ms": 0} for n in range(5_000)]
    store.execute("CREATE TABLE IF NOT EXISTS floor AS clicks")

    def insert_all() -> None:
        for _ in range(20):
            store.insert("floor", rows)

    return [round(20 * len(rows) / timed(insert_all)) for _ in range(ROUNDS)]


def compute_fullest_hour(store: Analytics) -> list[float]:
    """Milliseconds to compute the statistics of the hour with most decisions, five times."""
    (hour,) = store.query("SELECT toUnixTimestamp(hour) AS hour FROM decisions GROUP BY hour "
                          "ORDER BY count() DESC LIMIT 1")
    return [round(1000 * timed(lambda: store.execute(HOUR, hour)), 1) for _ in range(5)]


def grow(store: Analytics, now: int) -> None:
    """Rows made by the store itself."""
    at = f"{now} - rand() % 10800000"
    for table, columns, values, rows in (
        ("decisions", "request_id, event_ms, user_id, surface, device, arm, ranker_version, total_ms, items",
         f"concat('g', toString(number)), {at}, concat('u', toString(number % 5000)), 'home', 'phone', "
         "['champion', 'canary', 'control'][number % 3 + 1], '3', 20 + rand() % 50, "
         "arrayMap(i -> concat('i', toString(i)), range(20))", 300_000),
        ("impressions", "event_id, event_ms, user_id, request_id, item_ids",
         f"concat('gs', toString(number)), {at}, concat('u', toString(number % 5000)), concat('g', toString(number)), "
         "arrayMap(i -> concat('i', toString(i)), range(20))", 300_000),
        ("clicks", "event_id, event_ms, user_id, request_id, item_id",
         f"concat('gc', toString(number)), {at}, concat('u', toString(number % 5000)), "
         "if(number % 2 = 0, concat('g', toString(intDiv(number, 2))), ''), concat('i', toString(number % 20))",
         600_000),
        ("orders", "event_id, line, event_ms, user_id, item_id, price_cents, quantity",
         f"concat('go', toString(number)), 1, {at}, concat('u', toString(number % 5000)), "
         "concat('i', toString(number % 20)), 100, 1", 20_000),
    ):
        store.execute(f"INSERT INTO {table} ({columns}) SELECT {values} FROM numbers({rows})")  # noqa: S608


def disk(store: Analytics) -> dict[str, int]:
    found = store.query("SELECT table, sum(bytes_on_disk) AS bytes FROM system.parts "
                        "WHERE database = 'minimart' AND active GROUP BY table")
    return {row["table"]: row["bytes"] for row in found}


def timed(what: Callable[[], object]) -> float:
    begun = time.perf_counter()
    what()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
