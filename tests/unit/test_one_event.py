"""One click followed through every room in memory: the same code as on the real stack, with fakes where the network is.

The order is that of the walk in the README: collector, Kafka, stream features, online store, recommender, decision log.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np

from adapters.decision_log import DecisionLog, features_of
from adapters.event_lake import find_decision
from adapters.feature_state import Progress
from adapters.kafka import MemoryPublisher, Record, partition_of
from adapters.online_store import MemoryReader
from adapters.web import uuid7
from feature_repo import events
from feature_repo.events import DECISIONS, ProductClicked
from feature_repo.plan import FeaturePlan
from models.ranking_features import FEATURES
from services.collector.collect import Accepted, decide, read
from services.event_log.writer import Log
from services.recommender.record import to_record
from services.recommender.shoppers import Shoppers
from services.recommender.terms import Ask
from services.stream_features.shard import Engine, Shard
from tests.unit.recommender_world import NOW, catalogue_of, lineup_of, recommender_of, shelf_of

PLAN = FeaturePlan.load(Path(__file__).parents[1] / "plan.json")
PARTITIONS = 4
SHOPPER, ITEM = "visitor-1", "i7"
ITEMS = catalogue_of(100, new=3)


def collect(body: bytes) -> Accepted:
    """The collector's decision about one event."""
    known = {item.item_id: item for item in ITEMS}
    (verdict,) = decide(read(body), known, NOW, uuid7)
    assert isinstance(verdict, Accepted)
    return verdict


def count(record: Record, store: MemoryReader) -> None:
    """Both stages of the stream worker: what they would commit to Redis goes into `store`."""
    engine, travelling = Engine(PLAN, PARTITIONS), list[tuple[int, bytes]]()
    for partition, topic in ((record.partition, record.topic), (partition_of(ITEM, PARTITIONS), events.REKEYED)):
        shard = Shard(engine, partition, "owner", Progress())
        mine = [Record(topic, partition, i, NOW, ITEM, m) for i, (to, m) in enumerate(travelling) if to == partition]
        shard.read(topic, [record] if topic == record.topic else mine)
        batch = shard.apply([(key, None) for key in shard.missing()])
        for (view, key), packed in batch.states.items():
            store.values.setdefault(view, {})[key] = packed
        travelling = shard.travelling


async def test_a_click_changes_the_next_answer_and_is_found_in_its_decision(tmp_path: Path) -> None:
    shelf = shelf_of(lineup_of(100), ITEMS)
    kafka, store = MemoryPublisher(PARTITIONS), MemoryReader()
    recommender = recommender_of(shelf, shoppers=Shoppers(store, PLAN))
    before = await recommender.recommend(Ask(uuid7(), SHOPPER, NOW))
    assert before.cold_start == "new_visitor"

    # 1. The collector takes the click in and fills what the shopper saw from the catalogue.
    click = {"type": "product_clicked", "user_id": SHOPPER, "item_id": ITEM, "event_time": NOW}
    accepted = collect(msgspec.json.encode(click))
    assert isinstance(accepted.event, ProductClicked)
    assert (accepted.event.category, accepted.event.price_cents) == ("c2", 1500)

    # 2. Kafka keeps it, keyed by shopper.
    where = kafka.publish_acked(accepted.event.topic, accepted.event.key(), accepted.payload, timestamp_ms=NOW)
    partition, offset = where.result()
    (record,) = kafka.of("shop.clicks")
    assert (record.partition, offset, partition) == (partition_of(SHOPPER, PARTITIONS), 0, record.partition)

    # 3 and 4. The stream worker counts it into tiles. 5. The online store holds them.
    count(record, store)
    assert set(store.values) == {"user_activity", "user_category_activity", "item_activity", "seller_activity"}

    # 6 to 8. The recommender asks the store, and the shopper is known.
    after = await recommender.recommend(Ask(uuid7(), SHOPPER, NOW + 1000))
    assert after.cold_start is None
    assert after.shopper.recent == (ITEM,)
    assert after.shopper.features["user_clicks_count_1h"] == 1
    assert any("cooccurrence" in placed.sources for placed in after.placed)
    assert [p.item_id for p in after.placed] != [p.item_id for p in before.placed]

    # 9. The decision goes to Kafka, from there to the lake, and holds the feature value that the click made.
    log = DecisionLog(kafka, tmp_path)
    log.write(lambda: to_record(after))
    log.close()
    (decision,) = kafka.of(DECISIONS)
    lake = Log(tmp_path, DECISIONS, decision.partition)
    arrival = time.time_ns() // 1_000_000  # a request id tells its hour, which is today's
    lake.add([decision._replace(timestamp_ms=arrival)])
    files, poison, late = lake.read()
    assert lake.write(files) == 1
    assert not poison
    assert not late
    found = find_decision(tmp_path, after.ask.request_id)
    assert found is not None
    assert [item["item_id"] for item in found["items"]] == [p.item_id for p in after.placed]
    rows = features_of(found)
    assert np.all(rows[:, FEATURES.index("user_clicks_count_1h")] == 1)
    same_category = rows[:, FEATURES.index("same_category_as_last")] == 1
    assert np.all(rows[same_category, FEATURES.index("uc_clicks_count_1h")] == 1)
