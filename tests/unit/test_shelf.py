"""A shelf that is amended with every change says the same as one that is built anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters import catalogue as catalogues
from adapters.catalogue import Catalogue
from feature_repo.events import ItemListed
from models.ranking_features import ITEM
from models.retrieval import NEW_HOURS, SIZES, newest_rows, trending_scores
from services.recommender.lineup import Lineup
from services.recommender.shelf import Activity, Shelf, Table, activity_of, amended, build_table, stock_shelf
from settings import Settings
from tests.unit.recommender_world import HOUR, NOW, catalogue_of, lineup_of, listed

N = 40
CATEGORIES = [f"c{i}" for i in range(5)]
COLUMNS = ("sellable", "category", "price_cents", "listed_at", "promoted", "adult", "popularity")


class Encoder:
    """Embeds an item by its category and price, as the published encoder does: 64 numbers."""

    def run(self, _: list[str], inputs: dict[str, Any]) -> list[Any]:
        out = np.zeros((len(inputs["log_price"]), 64), np.float32)
        out[np.arange(len(out)), inputs["category_index"]] = inputs["log_price"]
        out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)
        return [out + 0.01 * inputs["log_price"][:, None]]


LINEUP: Lineup = replace(lineup_of(N), item_encoder=Encoder())
ITEMS = st.builds(
    listed, st.sampled_from([f"i{i}" for i in range(0, N, 5)] + [f"n{i}" for i in range(6)]),
    stock=st.integers(0, 2), age_hours=st.sampled_from([-0.5, 0.1, 5.0, 71.9, 72.1, 900.0]),
    category=st.sampled_from(CATEGORIES), promoted=st.booleans(), price_cents=st.integers(1, 9000), adult=st.booleans(),
)  # fmt: skip
CHANGES = st.lists(st.one_of(ITEMS, st.sampled_from(["i0", "i5", "n0", "n1"])), min_size=1, max_size=8)


def by_item(table: Table) -> dict[str, tuple[Any, ...]]:
    """What can be bought, with everything that the table says about it."""
    out = {}
    for row in np.flatnonzero(table.sellable):
        vector = None if row < N or table.extra is None else table.extra[row - N].tolist()
        out[str(table.ids[row])] = (*(getattr(table, name)[row] for name in COLUMNS), vector)
        assert table.row(str(table.ids[row])) == row
    return out


def anew(table: Table, activity: Activity, now_ms: int) -> Shelf:
    return stock_shelf(replace(table), activity, now_ms)


@settings(max_examples=60, deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=4))
def test_an_amended_table_says_what_a_new_one_says(rounds: list[list[ItemListed | str]]) -> None:
    items = {item.item_id: item for item in catalogue_of(N, out_of_stock=3)}
    table = build_table(LINEUP, tuple(items.values()), 1)
    for version, changes in enumerate(rounds, start=2):
        made: dict[str, ItemListed | None] = {}
        for change in changes:
            if isinstance(change, str):
                items.pop(change, None)
                made[change] = None
            else:
                items[change.item_id] = made[change.item_id] = change
        again = amended(table, made, version)
        assert again is not None
        table = again
        right = build_table(LINEUP, tuple(items.values()), version)
        assert table.catalogue_version == right.catalogue_version
        assert by_item(table) == by_item(right)
        assert (table.newer is None) == (table.extra is None)
        assert table.newer is None or len(table.newer) == len(table.ids) - N
        assert table.ids[table.popular].tolist()[:20] == right.ids[right.popular].tolist()[:20]


def test_a_category_that_nobody_knew_asks_for_a_new_table() -> None:
    table = build_table(LINEUP, catalogue_of(N), 1)
    assert amended(table, {"n0": listed("n0", category="c9")}, 2) is None
    assert amended(table, {"n0": None}, 2) is not None  # it was never here


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 80), min_size=1, max_size=6), st.integers(0, 2**31))
def test_windows_are_placed_bit_by_bit_as_at_once(steps: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = rng.permutation([*(f"i{i}" for i in range(N)), *(f"n{i}" for i in range(20)), "elsewhere"]).tolist()
    items = {item.item_id: item for item in catalogue_of(N)}
    table, activity = build_table(LINEUP, tuple(items.values()), 1), Activity()
    for version, step in enumerate(steps, start=2):
        seen = names[:step]
        columns = {name: rng.integers(0, 5, max(0, len(seen) - step % 3)).astype(float) for name in ITEM}
        if len(columns[ITEM[0]]) < activity.seen:
            continue  # windows only ever become more
        activity = activity_of(table, columns, seen, lambda name, s=seen: s.index(name) if name in s else -1, activity)
        right = activity_of(table, columns, seen, lambda _: -1, Activity())
        np.testing.assert_array_equal(activity.place, right.place)
        np.testing.assert_array_equal(activity.rows, right.rows)
        shelf, every = stock_shelf(table, activity, NOW), np.arange(len(table.ids))
        scores = trending_scores(activity.of(every), table.popularity)
        best = sorted(np.flatnonzero(table.sellable), key=lambda row: (-scores[row], row))
        assert shelf.trending.tolist() == best[: SIZES["trending"]]
        fresh = listed(f"n{version}", age_hours=version)
        again = amended(table, {fresh.item_id: in_a_known_category(fresh)}, version)
        assert again is not None
        table = again


def in_a_known_category(item: ItemListed) -> ItemListed:
    return listed(item.item_id, age_hours=(NOW - item.listed_at) / HOUR, category="c1")


def test_what_is_new_changes_when_it_must_and_not_before() -> None:
    ages = {"n0": -0.5, "n1": 0.5, "n2": NEW_HOURS - 1, "n3": NEW_HOURS + 1}
    items = [*catalogue_of(N), *(listed(name, age_hours=age, category="c1") for name, age in ages.items())]
    table = build_table(LINEUP, items, 1)
    shelf = stock_shelf(table, Activity(), NOW)
    kept = 0
    for minute in range(0, 180):
        now = NOW + minute * HOUR // 60
        after, right = stock_shelf(table, Activity(), now, shelf), anew(table, Activity(), now)
        assert after.new.tolist() == right.new.tolist()
        assert after.new_items.tolist() == right.new_items.tolist()
        age = np.where(table.sellable, (now - table.listed_at) / HOUR, np.inf)
        assert right.new_items.tolist() == newest_rows(age, SIZES["new_items"]).tolist()
        kept += after.fresh is shelf.fresh
        shelf = after
    assert kept > 170


def test_where_nothing_changed_nothing_is_made_again() -> None:
    table = build_table(LINEUP, catalogue_of(N), 1)
    columns = {name: np.ones(2) for name in ITEM}
    activity = activity_of(table, columns, ["i5", "i3"], lambda _: -1, Activity())
    shelf = stock_shelf(table, activity, NOW)
    assert activity_of(table, columns, ["i5", "i3"], lambda _: -1, activity) is activity
    after = stock_shelf(table, activity, NOW + 1000, shelf)
    assert after.built_ms == NOW + 1000
    assert after.trending is shelf.trending
    assert after.fresh is shelf.fresh


def test_a_catalogue_tells_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogues, "CHANGES", 3)
    catalogue = Catalogue(Settings(home=tmp_path))
    catalogue.learn(catalogue_of(3))
    before = catalogue.version
    assert catalogue.changes_since(before) == {}
    first, second = listed("i1", stock=0, age_hours=1), listed("i1", stock=4, age_hours=0.5)
    catalogue.learn([first])
    catalogue.learn([second])
    assert catalogue.changes_since(before) == {"i1": second}
    assert catalogue.changes_since(catalogue.version) == {}
    catalogue.learn([listed("n1"), listed("n2")])
    assert catalogue.changes_since(before) is None  # more than it remembers
    assert catalogue.changes_since(before + 1) == {"i1": second, "n1": listed("n1"), "n2": listed("n2")}
