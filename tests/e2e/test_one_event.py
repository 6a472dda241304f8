"""The walk on the real stack: one click, with its evidence at every hop."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from adapters import event_lake
from adapters.http_guard import uuid7
from adapters.kafka import read_topic
from services.shop.live import StoredFeatures
from tests.e2e.platform import Platform, wait_for

FRESH_S = 2.0
LAKE_S = 90.0
WHOLE_S = 10.0  # a busy machine may make one stage late now and then


def windows(platform: Platform, user_id: str) -> dict[str, Any]:
    """The shopper's live features, as serving reads them."""

    async def read() -> dict[str, Any]:
        store = StoredFeatures(platform.settings.redis, platform.settings.features / "plan.json")
        try:
            return dict(await store.windows(user_id))
        finally:
            await store.close()

    return asyncio.run(read())


@pytest.fixture(scope="module")
def shopper() -> str:
    return f"e2e-{uuid7()[-12:]}"


def test_one_click_travels_from_the_collector_into_the_next_decision(platform: Platform, shopper: str) -> None:
    feed = platform.recommend(shopper)
    assert feed["cold_start"] == "new_visitor"
    item_id, event_id = feed["items"][2]["item_id"], uuid7()
    assert windows(platform, shopper)["user_clicks_count_5m"] == 0
    click = {
        "type": "product_clicked", "event_id": event_id, "user_id": shopper, "item_id": item_id,
        "request_id": feed["request_id"], "position": 3,
    }  # fmt: skip

    began = time.monotonic()
    (position,) = platform.send(click, ack=True)["positions"]
    assert position["topic"] == "shop.clicks"

    def seen() -> dict[str, Any] | None:
        found = windows(platform, shopper)
        return found if found["user_clicks_count_5m"] == 1 else None

    features = wait_for("the click in the online store", seen, FRESH_S, 0.05)
    assert features["user_recent_items"] == [item_id]
    assert time.monotonic() - began < FRESH_S

    def whole() -> dict[str, Any] | None:
        answer = platform.recommend(shopper)
        return answer if not answer["degraded"] else None

    after = wait_for("an answer that is not degraded", whole, WHOLE_S)
    assert [i["item_id"] for i in after["items"]] != [i["item_id"] for i in feed["items"]]
    decision = wait_for("the decision", lambda: platform.decision(after["request_id"]), 3)
    assert decision["user_features"]["user_clicks_count_1h"] == 1
    assert decision["model_versions"] == after["model_versions"]

    records = [r for r in read_topic(platform.settings.kafka, "shop.clicks") if event_id.encode() in (r.value or b"")]
    assert [(r.partition, r.offset) for r in records] == [(position["partition"], position["offset"])]
    stored = wait_for(
        "the decision in the lake",
        lambda: event_lake.find_decision(platform.settings.lake, after["request_id"]), LAKE_S, 1,
    )  # fmt: skip
    assert stored["items"] == decision["items"]


def test_the_same_click_again_changes_nothing(platform: Platform, shopper: str) -> None:
    item_id, event = platform.recommend(shopper)["items"][0]["item_id"], uuid7()
    before = windows(platform, shopper)["user_clicks_count_1h"]
    click = {"type": "product_clicked", "event_id": event, "user_id": shopper, "item_id": item_id}
    for _ in range(3):
        platform.send(click, ack=True)
    marker = platform.recommend(shopper)["items"][1]["item_id"]
    platform.send({**click, "event_id": uuid7(), "item_id": marker}, ack=True)
    found = wait_for(
        "the marker", lambda: w if marker in (w := windows(platform, shopper))["user_recent_items"] else None, 5
    )
    assert found["user_clicks_count_1h"] == before + 2


def test_make_walk_prints_every_hop(platform: Platform) -> None:
    done = platform.run("pipelines.walk")
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("topic shop.clicks", "partition", "offset", "request ", "models: ", "ranker", "every hop was seen"):
        assert words in done.stdout, done.stdout
