"""The console's pages of features and of contracts: whatever is declared is shown, and what is away is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from adapters import event_lake, feast_redis
from adapters.feature_ages import Age, FeatureAges, keys_of, newest_events
from adapters.model_readers import readers
from feature_repo.contracts.files import contracts
from feature_repo.on_request import OnRequest
from feature_repo.plan import FeaturePlan, compile_view
from models.drift.columns import category, numeric
from services.console import features
from services.console.contracts import Told, gauges_of, page
from services.console.features import Known
from services.console.sparkline import HEIGHT, WIDTH, spark
from settings import Settings
from tests.unit.console_fakes import NOW, FakePlatform
from tests.unit.registry_fakes import PLAN, FakeAges, checked, event_log_metrics, registry_home
from tests.unit.test_console import browser

DECLARED = FeaturePlan.load(PLAN)


def shown(tmp_path: Path, ages: FakeAges | None = None, platform: FakePlatform | None = None) -> Any:
    from services.console.main import build

    home = Settings(home=tmp_path, _env_file=None)  # type: ignore[call-arg]
    return build(home, (platform or FakePlatform()).client(), newest=list, ages=ages or FakeAges())


async def test_every_declared_feature_is_listed_with_owner_lineage_and_distribution(tmp_path: Path) -> None:
    registry_home(tmp_path, NOW)
    async with browser(shown(tmp_path)) as visitor:
        text = (await visitor.get("/features")).text
    for listed in DECLARED.listing():
        assert f"<code>{listed.name}</code>" in text
        assert listed.meaning.replace("'", "&#39;") in text
    for part in ("user_activity", "ranking", "ranker 3", "ranker 4 (challenger)", "two-tower 7", "<svg", "PSI 0.",
                 "Readable within", "shop.payments", "item_attributes", "written by a batch job"):  # fmt: skip
        assert part in text, part
    assert " style=" not in text


async def test_a_search_keeps_what_it_asks_for(tmp_path: Path) -> None:
    registry_home(tmp_path, NOW)
    async with browser(shown(tmp_path)) as visitor:
        text = (await visitor.get("/features?q=user_clicks_count")).text
        nothing = (await visitor.get("/features?q=%3Cscript%3E")).text
        assert (await visitor.get(f"/features?q={'x' * 61}")).status_code == 422
    assert "user_clicks_count_1h" in text
    assert "user_carts_count_1h" not in text
    assert "Nothing is called like that" in nothing
    assert "<script>alert" not in nothing
    assert 'value="<script>"' not in nothing


async def test_what_is_away_is_said_and_the_page_still_comes(tmp_path: Path) -> None:
    async with browser(shown(tmp_path)) as visitor:
        empty = await visitor.get("/features")
    assert empty.status_code == 200
    assert "feature plan cannot be read" in empty.text
    registry_home(tmp_path, NOW)
    (tmp_path / "published" / "ranker" / "3" / "baseline.json").write_text('{"version": 9}')
    async with browser(shown(tmp_path, FakeAges(down=True), FakePlatform(away={"event_log"}))) as visitor:
        text = (await visitor.get("/features")).text
        promises = (await visitor.get("/contracts")).text
    assert "Ages are not known: the online store" in text
    assert "No distributions: baseline of version 9" in text
    assert "not summarised" in text
    assert "The event_log does not answer" in promises


async def test_looks_are_shared_for_a_while(tmp_path: Path) -> None:
    registry_home(tmp_path, NOW)
    ages = FakeAges()
    async with browser(shown(tmp_path, ages)) as visitor:
        await visitor.get("/features")
        await visitor.get("/features?q=price")
    assert ages.asked == 1


@pytest.mark.parametrize(
    ("age", "level", "says"),
    [
        (None, "idle", "no live event yet"),
        (Age(), "idle", "no live event yet"),
        (Age(NOW - 4000), "good", "newest value 4 s old, nothing waits"),
        (Age(NOW - 9000, NOW - 2000), "good", "an event waits for 2 s"),
        (Age(NOW - 90_000, NOW - 80_000), "bad", "newest value 2 min old, an event waits for 1.3 min"),
        (Age(None, NOW - 80_000), "bad", "no value yet, an event waits"),
    ],
)
def test_age_is_held_to_the_promise(age: Age | None, level: str, says: str) -> None:
    known = Known(DECLARED, {} if age is None else {"user_activity": age})
    view = next(v for v in features.page(known, NOW)["views"] if v["name"] == "user_activity")
    assert view["age"]["level"] == level
    assert says in view["age"]["text"]


def test_lineage_is_read_from_declarations_contracts_and_manifests(tmp_path: Path) -> None:
    registry_home(tmp_path, NOW)
    known = Known(DECLARED, readers=readers(tmp_path / "published"),
                  sources={n: c.made_from for n, c in contracts().items()})  # fmt: skip
    ways = {v["name"]: {s["title"]: s["names"] for s in v["lineage"]} for v in features.page(known, NOW)["views"]}
    assert ways["item_activity"] == {
        "topics": ["shop.carts", "shop.clicks", "shop.impressions", "shop.orders"], "view": ["item_activity"],
        "services": ["ranking", "item_profile"], "models": ["ranker 3", "ranker 4 (challenger)"],
    }  # fmt: skip
    assert ways["card_payments"]["models"] == []
    assert ways["item_attributes"]["topics"] == ["shop.items"]


def test_features_on_request_stand_with_the_service_that_computes_them() -> None:
    mean = next(f.name for f in DECLARED.view("card_payments").declared if f.function == "mean")
    ratio = OnRequest(name="amount_ratio", how="ratio", request="amount_cents", stored=(mean,))
    services = tuple(msgspec.structs.replace(s, on_request=(ratio,) if s.name == "fraud" else ())
                     for s in DECLARED.services)  # fmt: skip
    plan = msgspec.structs.replace(DECLARED, services=services)
    (view,) = features.page(Known(plan), NOW, "amount_ratio")["views"]
    assert (view["name"], view["per"], view["sla"]) == ("fraud, on request", "request", "at once")
    assert [stage["names"] for stage in view["lineage"]] == [[], ["card_payments"], ["fraud"], []]


def test_bundles_from_before_manifests_said_what_they_read(tmp_path: Path) -> None:
    from adapters.bundles import write_bundle
    from adapters.pointers import set_current

    files = {"features.json": json.dumps(["user_clicks_count_1h"]).encode()}
    old = write_bundle(tmp_path, "ranker", "1", files, {}, gate="passed")
    set_current(tmp_path, {"ranker": old})
    assert readers(tmp_path)[0].reads == {"user_clicks_count_1h"}
    assert readers(tmp_path / "nowhere") == []


async def test_contracts_are_shown_with_how_they_are_kept(tmp_path: Path) -> None:
    registry_home(tmp_path, NOW)
    platform = FakePlatform(texts={"event_log": event_log_metrics(NOW)})
    async with browser(shown(tmp_path, platform=platform)) as visitor:
        text = (await visitor.get("/contracts")).text
    for name, contract in contracts().items():
        assert f'id="c-{name}"' in text
        for field in contract.fields:
            assert f"<code>{field}</code>" in text
    for part in ("0.31% of the rows break it", "31.4% empty", "14 days before, in CHANGELOG.md", "cents", "must"):
        assert part in text, part
    assert " style=" not in text


def test_the_worst_contract_comes_first_and_says_why() -> None:
    told = Told(gauges_of(event_log_metrics(NOW)), checked(NOW))
    drawn = page(contracts(), told, NOW)
    rows = {row["name"]: row for row in drawn["rows"]}
    assert [row["worst"] for row in drawn["rows"]] == sorted(
        (row["worst"] for row in drawn["rows"]), key=("bad", "warn", "good", "idle").index
    )
    assert rows["shop.clicks"]["fresh"] == {"level": "good", "text": "4 s old, at most 15 min"}
    assert rows["shop.clicks"]["volume"] == {"level": "good", "text": "3,050 in the last hour, +2% of 3,000"}
    assert rows["shop.impressions"]["fresh"] == {"level": "bad", "text": "1.1 h old, at most 10 min"}
    assert rows["shop.carts"]["volume"] == {"level": "warn", "text": "700 in the last hour, -42% of 1,200"}
    assert "too little to compare" in rows["shop.orders"]["volume"]["text"]
    assert rows["shop.orders"]["check"]["level"] == "bad"
    assert rows["labels.fraud"]["check"]["text"] == "not checked yet"
    assert rows["shop.orders"]["breaches"][0]["detail"] == "0.31% of the rows break it"


def test_a_sparkline_shows_the_distribution_it_is_given() -> None:
    rng = np.random.default_rng(1)
    many = spark(numeric("x", rng.lognormal(5, 1, 5000)))
    assert many is not None
    assert all(0 <= b.x <= WIDTH and 0 < b.height <= HEIGHT and b.y + b.height == pytest.approx(HEIGHT, abs=0.02)
               for b in many.bars)  # fmt: skip
    assert max(many.bars, key=lambda b: b.height).x < WIDTH / 3  # a long tail to the right
    few = spark(numeric("y", [0, 0, 0, 1]))
    assert few is not None
    assert [round(b.height / HEIGHT, 2) for b in few.bars] == [1.0, 0.33]
    assert few.text == "0 to 1, median 0"
    words = spark(category("z", ["a", "a", "b", None]))
    assert words is not None
    assert words.text == "most often a (67%), 25% empty"
    assert spark(numeric("empty", [np.nan])) is None
    assert spark(None) is None


class Pipe:
    """Answers HGETs from a dict of (key, field) -> bytes."""

    def __init__(self, values: dict[tuple[bytes, bytes], bytes]) -> None:
        self.values, self.asked = values, list[tuple[bytes, bytes]]()

    def pipeline(self, transaction: bool) -> Pipe:
        return self

    def hget(self, key: bytes, field: bytes) -> None:
        self.asked.append((key, field))

    def execute(self) -> list[bytes | None]:
        return [self.values.get(one) for one in self.asked]


def test_ages_come_from_the_newest_events_and_their_keys(tmp_path: Path) -> None:
    clicks = compile_view("taste", "user_category", ("user_id", "category"), {"clicks": "shop.clicks"},
                          [("clicks", "count", 3_600_000, "taste_clicks_count_1h")])  # fmt: skip
    shown_items = compile_view("seen", "item", ("item_id",), {"shown": "shop.impressions/item_ids"},
                               [("shown", "count", 3_600_000, "seen_shown_count_1h")])  # fmt: skip
    plan = FeaturePlan(project="p", declared_views=(clicks, shown_items))
    rows = [{"event_id": f"e{n}", "event_time": NOW, "user_id": f"u{n}", "item_id": "i", "category": "tea",
             "price_cents": 1, "_partition": 0, "_offset": n, "_arrival": NOW + n, "type": "product_clicked",
             "version": 1} for n in range(30)]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=event_lake.schema("shop.clicks"))
    event_lake.write_part(tmp_path, "shop.clicks", 0, 0, 29, NOW // 3_600_000 * 3_600_000, table)
    newest = {"shop.clicks": list(newest_events(tmp_path, "shop.clicks")),
              "shop.impressions": [{"item_ids": ["i1", "i2"], "_arrival": 7, "user_id": "u"}]}  # fmt: skip
    assert len(newest["shop.clicks"]) == 20
    assert keys_of(clicks, newest)["u29", "tea"] == NOW + 29
    assert keys_of(shown_items, newest) == {("i1",): 7, ("i2",): 7}
    ages = FeatureAges("redis://127.0.0.1:1/0", tmp_path)
    ages._client = Pipe({})
    assert ages.look(plan) == {"taste": Age(None, NOW + 29), "seen": Age()}
    key = feast_redis.redis_key("p", clicks.join_keys, ("u29", "tea"))
    ages._client = Pipe({(key, feast_redis.time_field("taste")): feast_redis.timestamp(NOW + 500)})
    assert ages.look(plan)["taste"] == Age(NOW + 500, None)
    ages._client = Pipe({(key, feast_redis.time_field("taste")): feast_redis.timestamp(NOW - 500)})
    assert ages.look(plan)["taste"] == Age(NOW - 500, NOW + 29)


@pytest.mark.parametrize("at_ms", [0, 1, 999, 1000, NOW, NOW + 123])
def test_a_timestamp_is_read_as_it_was_written(at_ms: int) -> None:
    assert feast_redis.moment_of(feast_redis.timestamp(at_ms)) == at_ms
    assert feast_redis.moment_of(None) is None
