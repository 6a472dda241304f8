"""Events a second of the stream workers, exactly once, and how soon they show: `python -m bench.feature_stream`.

A Kafka and a Redis of their own. An hour's backlog of the parity proof's hard stream (late, twice, out of order, hot),
counted by one and by two workers, from their first commit to the last offset of both stages; before that the floor: as
many processes that only consume and decode the same records. Then freshness at an eighth, a quarter and half of the
best rate, open loop: probe clicks of new shoppers and new items, from the call of the producer until the feature
server's reader has them. The best rate was seen without a sender; the sender now takes its share of the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from kafka import TopicPartition

from adapters.kafka import KafkaPublisher, connect_consumer, to_record
from adapters.online_rows import OnlineRows
from bench import feature_world as world
from bench.samples import percentiles
from feature_repo import events
from feature_repo.plan import FeaturePlan
from pipelines.parity.generate import Act, Recipe, Stream, draw
from pipelines.parity.sending import Sender
from pipelines.parity.servers import PARTITIONS, Servers, servers
from pipelines.stack.launch import free_ports
from settings import load_settings

NAME: Final = "feature_stream"
HOUR: Final = (Act(1.0, 1 / 24, 0, 1, 60),)
WORKERS: Final = (1, 2)
LOOK_S: Final = 0.25
PROBE_S: Final = 0.1
PROBE_LOOK_S: Final = 0.005
SHARES: Final = (0.125, 0.25, 0.5)
LEAST_RATE: Final = 200.0  # events a second beneath the probes, where a small run was over before it could be timed
STAGES: Final = {"shopper": "user_activity", "item": "item_activity"}
"""The view in which each stage's probe appears: by shopper at once, by item after it went through Kafka once more."""


@dataclass
class Probe:
    """One click that is waited for, per stage."""

    sent: float
    shopper: str
    item: str


def measure(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    count, seconds = (4_000, 3) if asked.quick else (asked.events, asked.seconds)
    plan = FeaturePlan.load(asked.plan or load_settings().features / "plan.json")
    stream = draw(Recipe(count, asked.seed, int(time.time() * 1000), plan.topics, HOUR))
    say = world.progress()
    samples: dict[str, Any] = {"catch_up": {}, "freshness_ms": {}}
    fresh: list[dict[str, Any]] = []
    rates: dict[str, dict[str, int]] = {"consume_and_decode": {}, "stream_workers": {}}
    for workers in WORKERS[-1:] if asked.quick else WORKERS:
        with servers(folder / str(workers), plan, sys.executable) as stack:
            send(stack, stream)
            rates["consume_and_decode"][str(workers)] = round(count / floor(stack, workers))
            say(f"floor of {workers}: {rates['consume_and_decode'][str(workers)]:,} records/s")
            path = catch_up(stack, workers, say)
            samples["catch_up"][str(workers)] = path
            rates["stream_workers"][str(workers)] = round((count - path[0][1]) / (path[-1][0] - path[0][0]))
            for share in SHARES if workers == WORKERS[-1] else ():
                rate = max(LEAST_RATE, share * max(rates["stream_workers"].values()))
                found = asyncio.run(freshness(stack, rate, seconds, f"{share:g}"))
                samples["freshness_ms"][f"{share:g}"] = found
                times = {stage: percentiles(np.array(each)) for stage, each in found.items()}
                fresh.append({"share": share, "rate": round(rate), "times_ms": times})
                say(f"freshness at {rate:,.0f}/s: P99 {times['shopper']['p99']:.0f} ms")
    return {"events": count, "partitions": PARTITIONS, "features": sum(len(v.features) for v in plan.declared_views),
            "events_per_second": rates, "freshness": fresh, "samples": samples}


def send(stack: Servers, stream: Stream) -> None:
    sender = Sender(stack.bootstrap, stream)
    sender.begin(len(stream.payloads))
    sender.finish()
    sender.close()


def floor(stack: Servers, processes: int) -> float:
    """Seconds in which so many processes read and decode everything, from the first record to the slowest's last."""
    ends = stack.ends(stack.plan.topics)
    shares = [[(t, p) for t, p in ends if p % processes == i] for i in range(processes)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        took = pool.map(read_and_decode, [stack.bootstrap] * processes, shares,
                        [sum(ends[place] for place in share) for share in shares])
        return max(took)


def read_and_decode(bootstrap: str, places: Sequence[tuple[str, int]], records: int) -> float:
    """Seconds from the first record to the last, as the worker reads them, and nothing else done with them."""
    consumer = connect_consumer(bootstrap, fetch_max_wait_ms=100, max_poll_records=5_000)
    assert consumer is not None
    consumer.assign([TopicPartition(*place) for place in places])
    began, read = 0.0, 0
    while read < records:
        polled = consumer.poll(timeout_ms=200, max_records=5_000)
        began = began or (time.perf_counter() if polled else 0.0)
        for tp, messages in polled.items():
            for message in messages:
                read += 1
                with contextlib.suppress(events.EventRejected):
                    events.decode(tp.topic, to_record(message).value or b"")
    took = time.perf_counter() - began
    consumer.close(autocommit=False)
    return took


def catch_up(stack: Servers, workers: int, say: Any) -> list[tuple[float, int]]:
    """(seconds, records of the first stage committed) from the first commit until both stages are through."""
    for number, port in enumerate(free_ports(workers)):
        stack.start("stream_features", port, stream_worker=f"w{number}")
    state, ends = stack.state, stack.ends(stack.plan.topics)
    out: list[tuple[float, int]] = []
    while True:
        at, committed = time.perf_counter(), stack.committed(state)
        read = sum(min(committed.get(place, 0), end) for place, end in ends.items())
        if read:
            out.append((round(at, 3), read))
            say(f"{workers} worker(s): {read:,} of {sum(ends.values()):,}")
        if read == sum(ends.values()) and stack.done() == 1:
            break
        time.sleep(LOOK_S)
    state.close()
    return [(round(at - out[0][0], 3), read) for at, read in [*out, (time.perf_counter(), read)]]


async def freshness(stack: Servers, rate: float, seconds: float, name: str) -> dict[str, list[float]]:
    """Milliseconds until each probe could be read, by stage, while `rate` events a second are sent. `name` is part of
    every event's id."""
    load = asyncio.create_task(asyncio.to_thread(sustain, stack.bootstrap, rate, seconds, name))
    await asyncio.sleep(min(2.0, seconds / 3))
    publisher = KafkaPublisher(stack.bootstrap, client_id="probe", linger_ms=0)
    rows = OnlineRows(stack.redis_url, stack.plan, partitions=PARTITIONS, timeout_ms=5_000)
    waiting: dict[str, dict[str, Probe]] = {stage: {} for stage in STAGES}
    found: dict[str, list[float]] = {stage: [] for stage in STAGES}
    due, number = time.perf_counter(), 0
    while not number or not load.done() or any(waiting.values()):
        now = time.perf_counter()
        if now >= due and not (number and load.done()):
            probe = Probe(now, f"probe-{name}-{number}", f"probe-item-{name}-{number}")
            at_ms = int(time.time() * 1000)
            event = click(probe.shopper, probe.item, f"e-{probe.shopper}", at_ms)
            publisher.publish("shop.clicks", probe.shopper, event, timestamp_ms=at_ms)
            waiting["shopper"][probe.shopper] = waiting["item"][probe.item] = probe
            number, due = number + 1, due + PROBE_S
        for stage, view in STAGES.items():
            keys = list(waiting[stage])
            if not keys:
                continue
            (read,) = (await rows.read([(view, [(key,) for key in keys])])).rows
            seen = time.perf_counter()
            for key, row in zip(keys, read, strict=True):
                if row is not None:
                    found[stage].append(round((seen - waiting[stage].pop(key).sent) * 1e3, 2))
                elif seen - waiting[stage][key].sent > 60:
                    raise AssertionError(f"{key} could not be read a minute after it was sent")
        await asyncio.sleep(PROBE_LOOK_S)
    publisher.close()
    await rows.close()
    await load
    return found


def click(
    shopper: str, item: str, event_id: str, at_ms: int, category: str = "probes", price_cents: int = 100
) -> bytes:
    return msgspec.json.encode({"type": "product_clicked", "event_id": event_id, "event_time": at_ms,
                                "user_id": shopper, "item_id": item, "category": category,
                                "price_cents": price_cents})


def sustain(bootstrap: str, rate: float, seconds: float, name: str) -> None:
    """Send clicks of now, open loop, of 5,000 shoppers on 3,000 items."""
    publisher = KafkaPublisher(bootstrap, client_id="load", linger_ms=5, max_buffer=200_000)
    began, sent, total = time.perf_counter(), 0, int(rate * seconds)
    while sent < total:
        due = min(total, int((time.perf_counter() - began) * rate) + 1)
        now = int(time.time() * 1000)
        for at in range(sent, due):
            shopper, item = f"u{at % 5_000}", f"i{at * 7 % 3_000}"
            event = click(shopper, item, f"live-{name}-{at}", now, f"c{at % 12}", 100 + at % 9_000)
            publisher.publish("shop.clicks", shopper, event, timestamp_ms=now)
        sent = due
        time.sleep(0.005)
    publisher.flush(60)
    publisher.close()


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--seconds", type=float, default=40, help="of load in which freshness is measured")
    parser.add_argument("--plan", type=Path, help="the feature set; default: the platform's plan.json")


if __name__ == "__main__":
    world.run(__doc__ or "", NAME, measure, arguments)
