"""One click through every hop in memory: the walk of the real stack with fakes for the network only.

collector -> Kafka (fake) -> stream features -> online store (fake) -> recommender -> decision record
"""

from __future__ import annotations

from pathlib import Path

import httpx
import orjson

from adapters.decision_log import features_of
from adapters.feature_state import Progress
from adapters.kafka import MemoryPublisher
from adapters.online_store import MemoryReader
from adapters.web import create_app
from feature_repo import events
from feature_repo.plan import FeaturePlan
from models.ranking_features import FEATURES
from services.collector.api import add_routes
from services.recommender.record import to_record
from services.recommender.shoppers import Shoppers
from services.shop.explain import why
from services.stream_features.shard import Engine, Shard
from tests.unit.recommender_world import NOW, ask, catalogue_of, lineup_of, recommender_of, shelf_of
from tests.unit.shop_fakes import FakeCatalogue

PLAN = FeaturePlan.load(Path(__file__).parents[1] / "plan.json")
ITEMS = catalogue_of(400)
PARTITIONS = 4
SHOPPER = "u-walk"


async def click(item_id: str, publisher: MemoryPublisher) -> None:
    """Hop 1 and 2: the collector validates the click, completes it from the catalogue, and produces it by its key."""
    catalogue = FakeCatalogue()
    catalogue.items = {item.item_id: item for item in ITEMS}
    app = create_app("collector", title="collector", ready=dict)
    add_routes(app, catalogue, publisher)  # type: ignore[arg-type]
    sent = {"type": "product_clicked", "user_id": SHOPPER, "item_id": item_id, "event_time": NOW - 1000}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://collector") as client:
        answer = await client.post("/v1/events", json=sent)
    assert (answer.status_code, answer.json()["accepted"]) == (202, 1)


def count(publisher: MemoryPublisher) -> MemoryReader:
    """Hop 3 and 4: the stream worker's decision for the partition; what it would commit is put into the store."""
    (record,) = (r._replace(timestamp_ms=NOW) for r in publisher.of("shop.clicks"))
    shard = Shard(Engine(PLAN, PARTITIONS), record.partition, "token", Progress())
    shard.read("shop.clicks", [record])
    batch = shard.apply([(state, None) for state in shard.missing()])
    assert batch.offsets["shop.clicks"] == record.offset + 1
    assert shard.travelling, "the item's facts travel on to the item's partition"
    store = MemoryReader()
    for (view, key), packed in batch.states.items():
        store.values.setdefault(view, {})[key] = packed
    return store


async def test_a_click_changes_the_next_feed_and_is_found_in_its_decision() -> None:
    shelf = shelf_of(lineup_of(400), ITEMS)
    empty = recommender_of(shelf, shoppers=Shoppers(MemoryReader(), PLAN))
    before = await empty.recommend(ask(SHOPPER))
    assert before.cold_start == "new_visitor"
    clicked = before.placed[2].item_id

    publisher = MemoryPublisher(PARTITIONS)
    await click(clicked, publisher)
    event = events.decode("shop.clicks", publisher.of("shop.clicks")[0].value or b"")
    assert isinstance(event, events.ProductClicked)
    assert event.price_cents == next(i.price_cents for i in ITEMS if i.item_id == clicked)

    knowing = recommender_of(shelf, shoppers=Shoppers(count(publisher), PLAN))
    after = await knowing.recommend(ask(SHOPPER))
    assert after.cold_start is None
    assert after.shopper.recent == (clicked,)
    assert [p.item_id for p in after.placed] != [p.item_id for p in before.placed]

    record = orjson.loads(orjson.dumps(to_record(after), option=orjson.OPT_SERIALIZE_NUMPY))
    assert record["user_features"]["user_clicks_count_1h"] == 1
    rows = features_of(record)
    assert (rows[:, FEATURES.index("user_clicks_count_1h")] == 1).all()
    first = why(record, record["items"][0]["item_id"])
    assert [stage.name for stage in first.stages] == ["Pre-rank", "Rank", "Re-rank"]
    assert first.sources
    assert first.features
