"""Every aggregation, held to the same checks: tiles, the bulk builder and SQL give what plain arithmetic gives."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from feature_repo import bulk, squares, tiles
from feature_repo.aggregations.family import AGGREGATIONS, parse, spellings
from feature_repo.facts import check_types
from feature_repo.layout import layout_of
from feature_repo.plan import ViewPlan, compile_view
from feature_repo.windows import WINDOWS, duration_ms, duration_text
from pipelines.sql_partials import SqlPartials
from tests import brute_force

T0 = 1_790_000_000_000
HOUR, DAY = 3_600_000, 86_400_000
COLUMNS = {"rows": "shop.payments", "amount": "shop.payments:amount_cents", "who": "shop.payments:device_id"}
# How each member of the family is declared here: (column, function). A new member must be given one.
DECLARED = {
    "count": ("rows", "count"), "sum": ("amount", "sum"), "mean": ("amount", "mean"), "min": ("amount", "min"),
    "max": ("amount", "max"), "std": ("amount", "std"), "distinct": ("who", "distinct"), "top_k": ("who", "top_2"),
    "ratio": ("amount", "ratio_rows"), "decayed": ("amount", "decayed_6h"), "last": ("who", "last"),
    "last_k": ("who", "last_3")}
Fact = tuple[int, int, int, str | None]


def view_of(function: str) -> ViewPlan:
    column, text = DECLARED[function]
    windows = list(WINDOWS.values()) if AGGREGATIONS[function].windowed else []
    made = [(column, text, w.length_ms, f"x_{column}_{text}_{w.name}") for w in windows] or [(column, text, 0, "x_new")]
    return compile_view("v", "card", ("card_id",), COLUMNS, made)


def facts_of(seed: int, n: int) -> list[Fact]:
    """(event time, arrival, amount, who) in order of arrival; some of whom is missing."""
    rng = random.Random(seed)
    arrivals = sorted(T0 + rng.choice([rng.randint(0, HOUR), rng.randint(0, 35 * DAY)]) for _ in range(n))
    return [(a - rng.choice([0, rng.randint(-60_000, HOUR), rng.randint(0, 6 * DAY)]), a,
             rng.choice([rng.randint(0, 5), 10**10 - rng.randint(0, 3)]), rng.choice(["a", "b", "ü", "z", None]))
            for a in arrivals]


def expected(view: ViewPlan, facts: list[Fact], now: int) -> dict[str, Any]:
    said = [row for t, arrival, amount, who in facts if arrival <= now
            for row in ((t, "rows", 1), (t, "amount", amount), (t, "who", who)) if row[2] is not None]
    if not view.declared[0].window:
        newest = [v for _, v in sorted(((t, v) for t, c, v in said if c == "who"), reverse=True)]
        return {"x_new": newest[:view.declared[0].k] if view.declared[0].k else (newest[0] if newest else None)}
    return {name: brute_force.of_rows(name, said, now) for name in view.features}


def by_tiles(view: ViewPlan, facts: list[Fact], now: int) -> dict[str, Any]:
    layout, state = layout_of(view), tiles.State(layout_of(view))
    for when, arrival, amount, who in (f for f in facts if f[1] <= now):
        values = {"amount_cents": amount, "device_id": who}
        tiles.apply(layout, state, 0, when, arrival, [values[name] for (name,) in layout.feeds[0].values])
    return tiles.windows(view, tiles.pack(layout, state), now)


def by_bulk(view: ViewPlan, facts: list[Fact], now: int) -> dict[str, Any]:
    layout = layout_of(view)
    known = [f for f in facts if f[1] <= now]
    columns = {"amount_cents": np.array([f[2] for f in known], dtype=np.float64),
               "device_id": np.array([f[3] for f in known], dtype=object)}
    given = bulk.Facts(np.zeros(len(known), dtype=np.int64), np.array([f[0] for f in known], dtype=np.int64),
                       np.array([f[1] for f in known], dtype=np.int64),
                       tuple(columns[name] for (name,) in layout.feeds[0].values))
    packed = dict(bulk.build(layout, [given], 1))
    return tiles.windows(view, packed.get(0), now)


def by_sql(view: ViewPlan, facts: list[Fact], now: int) -> dict[str, Any]:
    layout = layout_of(view)
    columns = {"amount_cents": pa.array([f[2] for f in facts], pa.int64()),
               "device_id": pa.array([f[3] for f in facts], pa.string())}
    table = pa.table({"code": [1] * len(facts), "event_time": [f[0] for f in facts], "arrival": [f[1] for f in facts],
                      **{f"v{i}": columns[name] for i, (name,) in enumerate(layout.feeds[0].values)}})
    with duckdb.connect() as base:
        base.register("given", table)
        base.execute("CREATE TABLE facts_0 AS SELECT * FROM given")
        base.execute(f"CREATE TABLE requests AS SELECT 0 AS rid, 1::BIGINT AS code, {now}::BIGINT AS moment")
        partials = SqlPartials(base, layout, view.declared, strictly=False)
        return {f.name: f.aggregation.plain(f.aggregation.read(f, partials)[0]) for f in view.declared}


def test_every_member_is_declared_here_and_spelled_as_it_is_parsed() -> None:
    assert set(DECLARED) == set(AGGREGATIONS)
    assert {parse(text)["function"] for _, text in DECLARED.values()} == set(AGGREGATIONS)
    assert len(spellings()) == len(AGGREGATIONS)


@pytest.mark.parametrize("function", list(AGGREGATIONS))
@pytest.mark.parametrize("reading", [by_tiles, by_bulk, by_sql])
def test_every_reading_gives_what_plain_arithmetic_gives(function: str, reading: Any) -> None:
    view = view_of(function)
    for seed, n in ((1, 60), (2, 7), (3, 1)):
        facts = facts_of(seed, n)
        last = facts[-1][1]
        for now in (last, last + HOUR, last // DAY * DAY + 30 * DAY, last + 40 * DAY):
            found = reading(view, facts, now)
            for name, truth in expected(view, facts, now).items():
                assert brute_force.same(found[name], truth), (name, now, found[name], truth)


@pytest.mark.parametrize("function", list(AGGREGATIONS))
def test_no_rows_give_the_missing_value_of_the_declared_type(function: str) -> None:
    view, of = view_of(function), AGGREGATIONS[function]
    for value in tiles.windows(view, None, T0).values():
        truth = expected(view, [], T0)[view.features[0]]
        assert brute_force.same(value, truth)
        assert {"int64": int, "float64": float, "string": type(None), "list<string>": list}[of.dtype] is type(value)


@pytest.mark.parametrize("function", list(AGGREGATIONS))
def test_the_bulk_builder_takes_no_rows_at_all(function: str) -> None:
    layout, nothing = layout_of(view_of(function)), np.empty(0, dtype=np.int64)
    values = tuple(np.empty(0, dtype=object if name == "device_id" else np.float64)
                   for (name,) in layout.feeds[0].values)
    assert list(bulk.build(layout, [bulk.Facts(nothing, nothing, nothing, values)], 0)) == []


@pytest.mark.parametrize("function", list(AGGREGATIONS))
def test_a_key_that_fell_quiet_long_ago_is_built_as_the_stream_left_it(function: str) -> None:
    """A state may be read from its own last arrival on, whatever happened to other keys since."""
    view, facts = view_of(function), facts_of(7, 40)
    layout, now, later = layout_of(view), facts[-1][1], 40 * 24 * 3_600_000
    rows = [(0, *fact) for fact in facts] + [(1, f[0] + later, f[1] + later, *f[2:]) for f in facts]
    columns = {"amount_cents": np.array([r[3] for r in rows], dtype=np.float64),
               "device_id": np.array([r[4] for r in rows], dtype=object)}
    code, when, arrival = (np.array([r[i] for r in rows], dtype=np.int64) for i in range(3))
    given = bulk.Facts(code, when, arrival, tuple(columns[name] for (name,) in layout.feeds[0].values))
    packed = dict(bulk.build(layout, [given], 2))
    assert repr(tiles.windows(view, packed[0], now)) == repr(by_tiles(view, facts, now))


@pytest.mark.parametrize("function", list(AGGREGATIONS))
def test_order_changes_nothing(function: str) -> None:
    view, facts = view_of(function), facts_of(5, 40)
    now = facts[-1][1]
    assert repr(by_tiles(view, facts, now)) == repr(by_tiles(view, random.Random(1).sample(facts, 40), now))


def test_std_keeps_its_digits_where_the_spread_is_small_against_the_values() -> None:
    view = view_of("std")
    facts: list[Fact] = [(T0 + i, T0 + i, 10**10 - i % 2, None) for i in range(1000)]
    assert by_tiles(view, facts, T0 + 1000)["x_amount_std_1h"] == 0.5
    assert math.isclose(by_sql(view, facts, T0 + 1000)["x_amount_std_1h"], 0.5, rel_tol=1e-12)


def test_sums_of_squares_are_exact_beyond_64_bits() -> None:
    values = np.array([2**46 + 1, -(2**46) - 3, 7, 2**40 + 5] * 50, dtype=np.int64)
    where = np.array([0, 0, 1, 1] * 50)
    low, high = squares.group(values, where, 3)
    truth = [50 * ((2**46 + 1) ** 2 + (2**46 + 3) ** 2), 50 * (49 + (2**40 + 5) ** 2), 0]
    assert [int(h) * 2**64 + int(lo) for lo, h in zip(low, high, strict=True)] == truth
    assert squares.added(np.concatenate([low, low]), np.concatenate([high, high]), np.array([0, 1, 2] * 2), 3
                         ).tolist() == [2 * t for t in truth]


def test_a_sum_beyond_its_type_stays_at_the_limit_and_does_not_stop_the_partition() -> None:
    view = view_of("sum")
    layout, state = layout_of(view), tiles.State(layout_of(view))
    for _ in range(3):
        tiles.apply(layout, state, 0, T0, T0, [2**62])
    assert tiles.windows(view, tiles.pack(layout, state), T0)["x_amount_sum_1h"] == float(2**63)


@pytest.mark.parametrize(("column", "function", "says"), [
    ("amount", "median", "no aggregation; there are count"), ("who", "top", "no aggregation"),
    ("who", "top_0", "must be a number above 0"), ("amount", "decayed_6w", "is no duration"),
    ("amount", "ratio_nothing", "column 'nothing'"), ("who", "sum", "whole numbers, who holds str"),
    ("amount", "top_3", "takes text, amount holds int"), ("rows", "ratio_who", "whole numbers, who holds str"),
    ("rows", "distinct", "needs a column with a value"),
])
def test_what_cannot_be_computed_is_refused_by_name(column: str, function: str, says: str) -> None:
    def declare() -> None:
        view = compile_view("v", "card", ("card_id",), COLUMNS, [(column, function, HOUR, "f")])
        check_types(view, layout_of(view).feeds)

    with pytest.raises(ValueError, match=says):
        declare()


def test_durations() -> None:
    assert [duration_ms(t) for t in ("30m", "6h", "1d")] == [1_800_000, 6 * HOUR, DAY]
    assert [duration_text(ms) for ms in (90 * 60_000, 6 * HOUR, 2 * DAY)] == ["90m", "6h", "2d"]


def test_the_table_of_the_docs_is_that_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "features.md").read_text()
    for spelling, of in zip(spellings(), AGGREGATIONS.values(), strict=True):
        assert f"| `{spelling}` | {of.formula} | {of.error} | {of.bound} |" in text, spelling
