"""Feast's own SDK reads what we write: the same keys, the same values, the same windows; and joins the item history."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from feast import FeatureStore

from adapters import event_lake, feast_redis
from adapters.online_store import ItemSnapshot, OnlineStore
from feature_repo import events, tiles
from feature_repo.plan import FeaturePlan
from pipelines import apply_features, materialize, point_in_time
from settings import Settings

NOW = int(time.time() * 1000)
DAY = 86_400_000
N = 3_000


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Settings:
    """A seeded home whose features are registered and materialised."""
    home = tmp_path_factory.mktemp("feast")
    found = Settings(home=home, redis_url=redis_url.replace("/0", "/7"))
    rng = np.random.default_rng(4)
    times = np.sort(NOW - 60_000 - rng.integers(0, 9 * DAY, N))
    clicks = pa.table({
        "event_id": [f"e{i}" for i in range(N)], "event_time": times,
        "user_id": [f"u{i}" for i in rng.integers(0, 40, N)],
        "item_id": [f"i{i}" for i in rng.integers(0, 30, N)], "category": [f"c{i}" for i in rng.integers(0, 4, N)],
        "price_cents": rng.integers(1, 10_000, N)})
    event_lake.write_import(found.lake, "shop.clicks", clicks, 0)
    payers = rng.integers(0, 40, N)
    payments = pa.table({
        "event_id": [f"p{i}" for i in range(N)], "event_time": np.sort(NOW - 60_000 - rng.integers(0, 33 * DAY, N)),
        "user_id": [f"u{i}" for i in payers], "payment_id": [f"p{i}" for i in range(N)], "order_id": ["o"] * N,
        "merchant_id": [f"m{i}" for i in rng.integers(0, 12, N)], "amount_cents": rng.integers(0, 10**6, N),
        "currency": ["EUR"] * N, "card_id": [f"k{i}" for i in payers],
        "device_id": pa.array([f"d{i}" for i in payers], mask=rng.random(N) < 0.2)})
    event_lake.write_import(found.lake, "shop.payments", payments, 0)
    items = [{"event_id": f"l{i}-{v}", "event_time": NOW - (9 - 4 * v) * DAY, "item_id": f"i{i}", "title": "t",
              "category": f"c{i % 4}", "price_cents": 100 + i + 1000 * v, "seller_id": "s", "listed_at": NOW - 9 * DAY,
              "stock": 5, "adult": False, "promoted": False} for i in range(30) for v in range(2)]
    event_lake.write_import(found.lake, events.ItemListed.topic, pa.Table.from_pylist(items), 0)
    apply_features.apply(found)
    materialize.materialize(found, NOW)
    return found


@pytest.fixture(scope="module")
def store(settings: Settings) -> FeatureStore:
    """A store that knows only what lies in the registry."""
    return FeatureStore(repo_path=str(settings.features))


def plan_of(settings: Settings) -> FeaturePlan:
    return FeaturePlan.load(settings.features / "plan.json")


def test_the_plan_of_the_unit_tests_is_the_declared_one(settings: Settings) -> None:
    assert (settings.features / "plan.json").read_bytes() == (Path(__file__).parents[1] / "plan.json").read_bytes()


def _join_keys(plan: FeaturePlan, view: str) -> tuple[str, ...]:
    plain = {v.name: v.join_keys for v in plan.attribute_views}
    return plain[view] if view in plain else plan.view(view).join_keys


@pytest.mark.parametrize(("service", "view", "join_keys"), [
    ("shopper_profile", "user_activity", ("user_id",)),
    ("item_profile", "item_activity", ("item_id",)),
    ("ranking", "user_category_activity", ("user_id", "category")),
    ("fraud", "user_payments", ("user_id",)),
    ("fraud", "merchant_payments", ("merchant_id",)),
    ("fraud", "card_payments", ("card_id",)),
    ("fraud", "device_payments", ("device_id",)),
    ("fraud", "user_merchant_payments", ("user_id", "merchant_id")),
])
async def test_feast_and_we_read_the_same_windows(settings: Settings, store: FeatureStore, service: str, view: str,
                                                  join_keys: tuple[str, ...]) -> None:
    plan = plan_of(settings)
    keys = [*((f"u{i}", f"c{i % 4}", f"i{i}") for i in range(12)), ("u3", "c3", "i3"), ("nobody", "none", "no")]
    rows = [{"user_id": u, "category": c, "item_id": i, "now_ms": NOW, "merchant_id": u.replace("u", "m", 1),
             "card_id": u.replace("u", "k", 1), "device_id": u.replace("u", "d", 1)} for u, c, i in keys]
    wanted = {k for name in plan.service(service).views for k in _join_keys(plan, name)} | {"now_ms"}
    if plan.service(service).on_request:
        wanted |= {"amount_cents"}
        rows = [row | {"amount_cents": 5_000} for row in rows]
    theirs = store.get_online_features(features=store.get_feature_service(service),
                                       entity_rows=[{k: r[k] for k in wanted} for r in rows]).to_dict()
    ours = OnlineStore(settings.redis, plan, timeout_ms=2_000)
    packed = await ours.read(view, [tuple(str(r[k]) for k in join_keys) for r in rows])
    await ours.close()
    assert sum(p is not None for p in packed) >= 9  # not every shopper paid every merchant
    for row, blob in enumerate(packed):
        for name, value in tiles.windows(plan.view(view), blob, NOW).items():
            told = theirs[name][row]
            if isinstance(value, float) and math.isnan(value):
                assert told is None or math.isnan(told)
            elif isinstance(value, float):
                assert told == pytest.approx(value, rel=1e-9), (name, rows[row])
            elif value is None:
                assert told in (None, "")
            else:
                assert (list(told or []) if isinstance(value, list) else told) == value, (name, rows[row])


@pytest.mark.parametrize("view", ["user_payments", "merchant_payments", "card_payments", "device_payments",
                                  "user_merchant_payments"])
async def test_materialised_payments_equal_the_offline_join(settings: Settings, view: str) -> None:
    plan = plan_of(settings)
    of = plan.view(view)
    prefix = {"user_id": "u", "merchant_id": "m", "card_id": "k", "device_id": "d"}
    keys = [tuple(f"{prefix[name]}{i}" for name in of.join_keys) for i in range(12)]
    ours = OnlineStore(settings.redis, plan, timeout_ms=2_000)
    online = tiles.columns(of, await ours.read(view, keys), NOW)
    await ours.close()
    columns = {name: np.array([k[i] for k in keys], dtype=object) for i, name in enumerate(of.join_keys)}
    offline = point_in_time.features_at(settings.lake, plan, view, columns, np.full(12, NOW))
    for name in of.features:
        if online[name].dtype == object:
            assert online[name].tolist() == offline[name].tolist()
        else:
            np.testing.assert_allclose(online[name], offline[name], rtol=1e-9)
    assert online[f"{of.declared[0].name.removesuffix('_5m')}_30d"].sum() > 0


def test_materialised_tiles_equal_the_offline_join(settings: Settings) -> None:
    plan = plan_of(settings)
    users = np.array([f"u{i}" for i in range(40)], dtype=object)
    offline = point_in_time.features_at(settings.lake, plan, "user_activity", {"user_id": users}, np.full(40, NOW))
    snapshot = ItemSnapshot(settings.redis, plan)
    assert snapshot.refresh(NOW) == 30
    assert snapshot.refresh(NOW) == 0
    columns = snapshot.columns(NOW)
    items = np.array(snapshot.items, dtype=object)
    of_items = point_in_time.features_at(settings.lake, plan, "item_activity", {"item_id": items}, np.full(30, NOW))
    for name, column in of_items.items():
        np.testing.assert_allclose(columns[name], column, rtol=1e-9)
    assert offline["user_clicks_count_7d"].sum() == of_items["item_clicks_count_7d"].sum()
    snapshot.close()


def test_feast_and_we_compute_the_same_on_request(settings: Settings, store: FeatureStore) -> None:
    plan, n = plan_of(settings), 12
    ids = {"user_id": "u", "merchant_id": "m", "card_id": "k", "device_id": "d"}
    rows = [{name: f"{prefix}{i}" for name, prefix in ids.items()} | {"now_ms": NOW, "amount_cents": 10_000 * i}
            for i in range(n)]
    theirs = store.get_online_features(features=store.get_feature_service("fraud"), entity_rows=rows).to_dict()
    keys = {name: np.array([row[name] for row in rows], dtype=object) for name in ids}
    ours = point_in_time.service_at(settings.lake, plan, "fraud", keys, np.full(n, NOW), strictly_before=False,
                                    request={"amount_cents": np.array([row["amount_cents"] for row in rows])})
    for feature in plan.service("fraud").on_request:
        told = [math.nan if v is None else v for v in theirs[feature.name]]
        np.testing.assert_allclose(told, ours[feature.name], rtol=1e-9)
        assert np.isfinite(ours[feature.name]).sum() > n // 2


def test_item_attributes_come_through_feast_point_in_time(settings: Settings, store: FeatureStore) -> None:
    at = np.array([NOW - 20 * DAY, NOW - 7 * DAY, NOW])
    found = point_in_time.item_attributes_at(store, ["i5", "i5", "i5"], at)
    assert found["price_cents"][1:].tolist() == [105.0, 1105.0]
    assert math.isnan(found["price_cents"][0])
    online = store.get_online_features(["item_attributes:price_cents", "item_attributes:item_category"],
                                       [{"item_id": "i5"}]).to_dict()
    assert online["price_cents"] == [1105]
    assert online["item_category"] == ["c1"]


def test_value_messages_read_back() -> None:
    for blob in (b"", b"x", b"y" * 200, b"z" * 100_000):
        assert feast_redis.bytes_of(feast_redis.value(blob)) == blob
    assert feast_redis.bytes_of(feast_redis.value("text")) is None
    assert feast_redis.bytes_of(None) is None
