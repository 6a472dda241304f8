"""Follows one click through every hop of the running platform and prints the evidence at each: `make walk`.

    collector -> Kafka -> stream features in Redis -> recommendation -> decision log

Ends with 0 if every hop was seen, else with 1, the name of the missing hop and what to look at.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from kafka import TopicPartition
from rich.console import Console

from adapters.catalogue import newest_states
from adapters.errors import MinimartError
from adapters.event_lake import find_decision
from adapters.kafka import connect_consumer, to_record
from adapters.online_store import OnlineStore
from adapters.web import uuid7
from feature_repo import tiles
from feature_repo.events import ProductClicked, decode
from feature_repo.plan import FeaturePlan
from settings import Settings, load_settings

WALKER: Final = "walker"
FEATURE: Final = "user_clicks_count_1h"
FEATURE_WAIT_S: Final = 10.0
DECISION_WAIT_S: Final = 40.0
VIEW: Final = "user_activity"


class MissingHop(Exception):
    """A hop was not seen. `look_at` says where to look next."""

    def __init__(self, hop: str, why: str, look_at: str) -> None:
        super().__init__(why)
        self.hop, self.why, self.look_at = hop, why, look_at


@dataclass
class Walk:
    """One click on its way. Each hop returns the lines of evidence that it found, or raises MissingHop."""

    settings: Settings
    plan: FeaturePlan
    store: OnlineStore
    http: httpx.AsyncClient
    seen: dict[str, Any] = field(default_factory=dict)

    async def before(self) -> list[str]:
        """What Redis knows of the walker now, and which product will be clicked."""
        items = await asyncio.to_thread(newest_states, self.settings.lake)
        for_sale = sorted((i for i in items if i.stock > 0), key=lambda i: i.item_id)
        if not for_sale:
            raise MissingHop("catalogue", f"no product for sale under {self.settings.lake}", "make demo")
        self.seen["item"] = item = for_sale[int(time.time()) % len(for_sale)]
        self.seen["before"] = before = await self._windows()
        return [f"{WALKER} will click {item.item_id} ({item.title}, {item.category})",
                f"{FEATURE} = {before[FEATURE]:g}, last item {before['user_last_item']}"]

    async def collector(self) -> list[str]:
        """The click is accepted and acknowledged by Kafka."""
        item = self.seen["item"]
        event = {"type": "product_clicked", "event_id": uuid7(), "event_time": int(time.time() * 1000),
                 "user_id": WALKER, "item_id": item.item_id, "session_id": "walk"}
        url = f"{self.settings.url('collector')}/v1/events"
        answer = await self._ask("collector", "POST", url, json=event, params={"ack": "true"})
        position = (answer.get("positions") or [None])[0]
        if answer.get("accepted") != 1 or position is None:
            raise MissingHop("collector", f"it answered {answer}", "make logs S=collector, then make logs S=kafka")
        self.seen |= {"event": event, "position": position, "sent": time.perf_counter()}
        return [f"POST /v1/events -> accepted {answer['accepted']}, event {event['event_id']}"]

    async def kafka(self) -> list[str]:
        """The record lies in its topic, at the offset that was promised."""
        at = self.seen["position"]
        event = await asyncio.to_thread(self._read_back, at["topic"], at["partition"], at["offset"])
        if not isinstance(event, ProductClicked) or event.event_id != self.seen["event"]["event_id"]:
            raise MissingHop("kafka", f"{at} holds {event!r}", "make logs S=kafka")
        return [f"topic {at['topic']}, partition {at['partition']}, offset {at['offset']}",
                f"category {event.category!r} and price {event.price_cents} cents came from the catalogue"]

    async def features(self) -> list[str]:
        """The stream worker counted the click into Redis."""
        before = self.seen["before"]

        async def counted() -> dict[str, Any] | None:
            now = await self._windows()
            arrived = now["user_last_item"] == self.seen["item"].item_id and now[FEATURE] > before[FEATURE]
            return now if arrived else None

        after = await _eventually(counted, FEATURE_WAIT_S)
        if after is None:
            raise MissingHop("stream_features", f"{FEATURE} is still {before[FEATURE]:g} after {FEATURE_WAIT_S:g} s",
                             "make logs S=stream_features, and minimart_consumer_lag_records in its /metrics")
        delay = time.perf_counter() - self.seen["sent"]
        self.seen["after"] = after
        return [f"{FEATURE}: {before[FEATURE]:g} -> {after[FEATURE]:g}, seen {delay:.2f} s after the click",
                f"user_last_item: {before['user_last_item']} -> {after['user_last_item']}"]

    async def recommendation(self) -> list[str]:
        """The recommender answers with models it names."""
        url = f"{self.settings.url('recommender')}/v1/recommendations"
        answer = await self._ask("recommender", "POST", url, json={"user_id": WALKER, "k": 20})
        if not answer.get("items"):
            raise MissingHop("recommender", f"it answered without products: {answer}", "make logs S=recommender")
        self.seen["answer"] = answer
        versions = ", ".join(f"{name} {version}" for name, version in answer["model_versions"].items())
        timings = ", ".join(f"{stage} {ms:.1f}" for stage, ms in answer["timings_ms"].items())
        first = answer["items"][0]
        return [f"request {answer['request_id']}: {len(answer['items'])} products, the first is {first['item_id']} "
                f"(from {', '.join(first['sources'])}; score {first['score']:.3f})",
                f"models: {versions}", f"ms: {timings}", f"degraded: {', '.join(answer['degraded']) or 'nothing'}"]

    async def decision(self) -> list[str]:
        """The same decision is found in the lake, with the feature value that it used."""
        answer = self.seen["answer"]

        async def logged() -> dict[str, Any] | None:
            return await asyncio.to_thread(find_decision, self.settings.lake, answer["request_id"])

        begun = time.perf_counter()
        record = await _eventually(logged, DECISION_WAIT_S)
        if record is None:
            raise MissingHop("event_log", f"no decision {answer['request_id']} in the lake after {DECISION_WAIT_S:g} s",
                             "make logs S=event_log, and minimart_decisions_total in the recommender's /metrics")
        if [i["item_id"] for i in record["items"]] != [i["item_id"] for i in answer["items"]]:
            raise MissingHop("event_log", "the logged decision lists other products than the answer", "its code")
        used = record["user_features"].get(FEATURE)
        return [f"found in {self.settings.lake / 'decisions.recommendation'} after {time.perf_counter() - begun:.1f} s",
                f"{len(record['candidates']['item_ids'])} candidates, {FEATURE} used: {used:g}"
                if used is not None else f"{len(record['candidates']['item_ids'])} candidates; Redis gave no features"]

    async def _windows(self) -> dict[str, Any]:
        try:
            (packed,) = await self.store.read(VIEW, [(WALKER,)])
        except MinimartError as error:
            raise MissingHop("redis", error.detail, "make status, make logs S=redis") from None
        return tiles.windows(self.plan.view(VIEW), packed, int(time.time() * 1000))

    async def _ask(self, hop: str, method: str, url: str, **request: Any) -> dict[str, Any]:
        try:
            response = await self.http.request(method, url, **request)
            answer: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError) as error:
            why = f"{url}: {type(error).__name__} {error}"
            raise MissingHop(hop, why, f"make status, make logs S={hop}") from None
        if response.is_error:
            raise MissingHop(hop, f"{url}: {answer.get('detail', answer)}", f"make logs S={hop}")
        return answer

    def _read_back(self, topic: str, partition: int, offset: int) -> Any:
        consumer = connect_consumer(self.settings.kafka)
        if consumer is None:
            raise MissingHop("kafka", f"{self.settings.kafka} does not answer", "make status, make logs S=kafka")
        try:
            there = TopicPartition(topic, partition)
            consumer.assign([there])
            consumer.seek(there, offset)
            for messages in consumer.poll(timeout_ms=5_000, max_records=1).values():
                record = to_record(messages[0])
                return decode(topic, record.value or b"") if record.offset == offset else None
            return None
        finally:
            consumer.close(autocommit=False, timeout_ms=1_000)


async def _eventually(probe: Callable[[], Any], within_s: float) -> Any:
    """What `probe` gives once it is not None; None after `within_s` seconds."""
    until = time.perf_counter() + within_s
    while True:
        found = await probe()
        if found is not None or time.perf_counter() > until:
            return found
        await asyncio.sleep(0.1)


async def walk(settings: Settings, console: Console) -> int:
    """Walk every hop; the exit code."""
    try:
        plan = FeaturePlan.load(settings.features / "plan.json")
    except (OSError, ValueError) as error:
        console.print(f"[red]missing: the feature plan ({error}); make demo writes it")
        return 1
    store = OnlineStore(settings.redis, plan, timeout_ms=2_000)
    async with httpx.AsyncClient(timeout=15) as http:
        path = Walk(settings, plan, store, http)
        hops = (("before", path.before), ("collector", path.collector), ("Kafka", path.kafka),
                ("stream features in Redis", path.features), ("recommendation", path.recommendation),
                ("decision log", path.decision))
        try:
            for name, hop in hops:
                with console.status(f"{name} ..."):
                    evidence = await hop()
                console.print(f"[green]✓[/] [bold]{name}[/]")
                for line in evidence:
                    console.print(f"    {line}", highlight=False, soft_wrap=True)
        except MissingHop as missing:
            console.print(f"[red]✗ missing hop: {missing.hop}[/]: {missing.why}", highlight=False, soft_wrap=True)
            console.print(f"  look at: {missing.look_at}", highlight=False)
            return 1
        finally:
            await store.close()
    console.print("[green]every hop was seen[/]")
    return 0


def main() -> None:
    sys.exit(asyncio.run(walk(load_settings(), Console())))


if __name__ == "__main__":
    main()
