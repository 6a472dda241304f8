"""Every named query and the schema's migrations on ClickHouse's engine, in a small world whose answers are known."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from adapters import analytics_queries as ask
from adapters.analytics import Analytics
from adapters.analytics_schema import migrate
from adapters.errors import Misconfigured
from adapters.kafka import Record
from feature_repo import events
from services.analytics.rows import rows_of

HOUR = 3_600_000
T0 = (int(time.time()) // 3600 - 2) * HOUR + 400_000  # what is matched is kept for eight days only


@pytest.fixture(scope="module")
def store(clickhouse_url: str) -> Iterator[Analytics]:
    store = Analytics(clickhouse_url, database="queries")
    migrate(store)
    fill(store)
    yield store
    store.execute("DROP DATABASE queries SYNC")
    store.close()


def place(n: int) -> dict[str, int]:
    return {"_partition": 0, "_offset": n, "_arrival_ms": T0 + n}


def fill(store: Analytics) -> None:
    """Four seen feeds, two an arm; canary's first is clicked and bought, champion's last degraded and clicked once."""
    for _ in range(2):  # as after a crash
        store.insert("decisions", [
            {"request_id": f"r{n}", "event_ms": T0 + n, "user_id": "u", "surface": "home", "device": "phone",
             "arm": "canary" if n < 2 else "champion", "rollout": "7-1" if n < 2 else "", "ranker_version": str(n // 2),
             "degraded": ["redis_down"] if n == 3 else [], "total_ms": 10.0 * (n + 1), "items": ["a", "b"],
             "rank_scores": [0.5, None], "features": [[1.0, float("nan")], [2.0, 3.0]], **place(n)} for n in range(4)])
        store.insert("impressions", [
            {"event_id": f"s{n}", "event_ms": T0 + n + 1, "user_id": "u", "request_id": f"r{n}", "item_ids": ["a", "b"],
             **place(n)} for n in range(4)])
        store.insert("clicks", [
            {"event_id": "c0", "event_ms": T0 + 100, "user_id": "u", "request_id": "r0", "item_id": "a", **place(0)},
            {"event_id": "c1", "event_ms": T0 + 90, "user_id": "u", "request_id": "r3", "item_id": "a", **place(1)},
            {"event_id": "c2", "event_ms": T0 + 95, "user_id": "w", "request_id": "", "item_id": "a", **place(2)}])
        store.insert("orders", [
            {"event_id": "o0", "line": 1, "event_ms": T0 + 200, "user_id": "u", "item_id": "a", "price_cents": 300,
             "quantity": 2, **place(0)}])
        store.insert("offsets", [{"topic": "shop.clicks", "partition": 0, "first_offset": 0, "next_offset": 5,
                                  "accepted": 4, "dead": 1, "committed_ms": T0}])
    store.insert("decisions", [{"request_id": "unranked", "event_ms": T0 + 5, "arm": "control", "items": ["a"],
                                **place(9)}])
    store.insert("impressions", [{"event_id": "s9", "event_ms": T0 + 6, "request_id": "unranked", "item_ids": ["a"],
                                  **place(9)}])
    store.insert("shadow", [{"request_id": "r0", "event_ms": T0, "rollout": "7-1", "ranker_version": "9",
                             "scores": [0.1, None], "overlap_at_k": 0.5, "error": "late", "total_ms": 5, **place(0)}])
    store.insert("drift_reports", [{"id": "d", "event_ms": T0, "model": "ranker", "feature_names": ["f", "g"],
                                    "feature_levels": ["ok", "drift"], "psi": [0.1, 0.4], "ks": [None, 0.2],
                                    "wasserstein": [0, 1], "js": [0, 1], "null_share": [0, 0.5], **place(0)}])
    store.insert("rollouts", [{"id": f"1-{n}", "seq": n, "event_ms": T0 + n, "to_state": "shadow", **place(n)}
                              for n in range(3)])


def test_an_order_is_credited_to_the_last_feed_in_which_the_item_was_clicked(store: Analytics) -> None:
    canary, champion = ask.ctr_by_arm(store, T0 - 1, T0 + 5)
    assert canary == {"arm": "canary", "requests": 2, "seen": 2, "clicked": 1, "clicks": 1, "shown": 4, "carts": 0,
                      "orders": 1, "revenue_cents": 600, "ctr": 0.25, "click_rate": 0.5}
    assert (champion["clicks"], champion["orders"], champion["revenue_cents"]) == (1, 0, 0)
    assert [row["arm"] for row in ask.ctr_by_arm(store, T0 - 1, rollout="7-1", until_ms=T0 + 5)] == ["canary"]
    assert ask.ctr_by_arm(store, T0 + 2, T0 + 3)[0]["requests"] == 1


def test_predictions_carry_their_late_labels(store: Analytics) -> None:
    found = {row["request_id"]: row for row in ask.labelled_predictions(store, T0, T0 + 10)}
    assert {request: row["label"] for request, row in found.items()} == {"r0": 3, "r1": 0, "r2": 0, "r3": 1}
    assert (found["r0"]["item_id"], found["r0"]["position"], found["r0"]["rank_score"]) == ("a", 1, 0.5)


def test_features_of_shown_items_keep_what_was_missing(store: Analytics) -> None:
    found = ask.shown_features(store, T0, T0 + 10)
    assert len(found) == 4
    assert found[0]["features"] == [[1, None], [2, 3]]
    assert [row["arm"] for row in ask.shown_features(store, T0, T0 + 10, arms=["canary"], versions=["0"], limit=1)] == [
        "canary"]
    assert ask.shown_features(store, T0, T0 + 10, versions=["none"]) == []


def test_latency_shadow_drift_and_rollouts(store: Analytics) -> None:
    latency = ask.latency_by_arm(store, T0, T0 + 5)
    assert [(row["arm"], row["requests"], row["degraded_share"]) for row in latency] == [
        ("canary", 2, 0), ("champion", 2, 0.5)]
    (shadow,) = ask.shadow_summary(store, T0, T0 + 10)
    assert (shadow["errors"], shadow["with_missing_scores"], shadow["overlap_at_k"]) == (1, 1, 0.5)
    assert [(row["feature"], row["psi"], row["ks"]) for row in ask.drift_heat(store, T0, T0 + 10)] == [
        ("f", pytest.approx(0.1), None), ("g", pytest.approx(0.4), pytest.approx(0.2))]
    assert [row["seq"] for row in ask.rollout_history(store, limit=2)] == [2, 1]


def test_accounts_and_freshness(store: Analytics) -> None:
    (clicks,) = ask.conservation(store)
    assert [clicks[name] for name in ("taken", "accepted", "dead", "rows", "duplicates")] == [5, 4, 1, 3, 1]
    fresh = {row["name"]: row for row in ask.freshness(store)}
    assert (fresh["decisions"]["rows"], fresh["decisions"]["newest_ms"]) == (5, T0 + 5)
    assert fresh["payments"]["newest_ms"] == 0


def test_hours_are_computed_once_however_often(store: Analytics) -> None:
    from services.analytics.rollup import Hours

    hours = Hours(store)
    assert hours.compute() == 1
    store.insert("clicks", [{"event_id": "c1", "event_ms": T0 + 90, "user_id": "u", "request_id": "r3", "item_id": "a",
                             **place(1)}])
    assert hours.compute() == 1
    assert hours.compute() == 0
    rows = {row["arm"]: row for row in ask.hourly(store, T0, T0 + HOUR)}
    assert (rows["canary"]["clicks"], rows["canary"]["orders"], rows["champion"]["clicks"]) == (1, 1, 1)
    assert 10 <= rows["canary"]["latency_p50"] <= 20
    assert rows["champion"]["degraded_share"] == 0.5
    assert (rows[""]["clicks"], rows[""]["ctr"]) == (1, None)  # a click outside any feed
    (volume,) = ask.volumes_by_hour(store, T0, T0 + HOUR)
    assert (volume["requests"], volume["clicks"], volume["hour_ms"]) == (5, 3, T0 - T0 % HOUR)


def test_whatever_a_record_holds_its_row_is_taken(clickhouse_url: str) -> None:
    """A row that the engine refuses would stop everything behind it."""
    store = Analytics(clickhouse_url, database="rows_of_a_test")
    migrate(store)
    rng = random.Random(2)
    names = ["event_time", "at_ms", "items", "scores", "features", "window", "kinds", "shares", "champion", "reasons",
             "model_versions", "overlap_at_k", "total_ms", "error", "seq", "epoch", "breakage", "requests", "top1_same",
             "champion_total_ms", "degraded", "challenger", "previous", "shadow", "verdict", "baseline", "id", "k"]
    values = [None, "text", -1, 7, 2**80 * 1.0, 3.5, True, False, [], [None, "a", 1.5, {}, True],
              {"a": 1, "canary": 5.5}, [{"name": "f", "level": 3, "psi": True, "ks": "x", "null_share": -1.5}],
              {"since_ms": 1.5, "until_ms": "x"}]
    for topic in (events.SHADOW, events.DRIFT_REPORTS, events.ROLLOUTS):
        rows = []
        for n in range(200):
            found = {name: rng.choice(values) for name in names if rng.random() < 0.8} | {"request_id": f"r{n}"}
            table, made = rows_of(Record(topic, 0, n, T0, "", orjson.dumps(found)))
            rows += made
        store.insert(table, rows)
        assert store.query(f"SELECT count() AS n FROM {table}")[0]["n"] == 200  # noqa: S608
    shown = {"request_id": "d", "event_time": T0, "k": 2**40, "timings_ms": {"total": 1e300, "rank": -1},
             "items": [{"item_id": "a"}], "user_features": {"x": None, "y": 1e300}, "cold_start": "new_visitor"}
    for found in (shown, shown | {"k": -5, "model_versions": {"": ""}, "degraded": [""], "country": "", "items": []}):
        table, made = rows_of(Record(events.DECISIONS, 0, 0, T0, "", orjson.dumps(found)))
        store.insert(table, made)
    store.execute("DROP DATABASE rows_of_a_test SYNC")


def test_the_schema_is_applied_once_and_a_changed_file_is_refused(clickhouse_url: str, tmp_path: Path) -> None:
    store = Analytics(clickhouse_url, database="migrations_of_a_test")
    file = tmp_path / "0001_a.sql"
    file.write_text("-- a table; not two\nCREATE TABLE IF NOT EXISTS a (x Int64) ENGINE = MergeTree\nORDER BY x;\n")
    assert migrate(store, tmp_path) == ["0001_a.sql"]
    assert migrate(store, tmp_path) == []
    file.write_text(file.read_text() + "DROP TABLE a;\n")
    with pytest.raises(Misconfigured, match="was changed after it was applied"):
        migrate(store, tmp_path)
    file.unlink()
    with pytest.raises(Misconfigured, match="newer version"):
        migrate(store, tmp_path)
    store.execute("DROP DATABASE migrations_of_a_test SYNC")
