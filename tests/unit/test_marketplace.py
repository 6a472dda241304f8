"""The planted world: the same every time, believable in its statistics, and worth learning."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.marketplace import behaviour, names, truth
from models.marketplace.config import DAY, MINUTE, Scenario, WorldConfig
from models.marketplace.history import KINDS, SLICE, History, draw_history
from models.marketplace.scenarios import SEASON, under
from models.marketplace.world import World, build_world

CONFIG = WorldConfig(shoppers=400, items=500, days=10, seed=7, as_of_ms=1_795_000_020_000 // MINUTE * MINUTE)


@pytest.fixture(scope="module")
def drawn() -> tuple[World, History]:
    world = build_world(CONFIG)
    return world, draw_history(world)


def test_same_seed_same_history(drawn: tuple[World, History]) -> None:
    again = draw_history(build_world(CONFIG))
    for kind in KINDS:
        for name, values in getattr(drawn[1], kind).items():
            np.testing.assert_array_equal(values, getattr(again, kind)[name], err_msg=f"{kind}.{name}")


def test_another_seed_is_another_world() -> None:
    other = build_world(dataclasses.replace(CONFIG, seed=8))
    assert not np.array_equal(build_world(CONFIG).taste, other.taste)


def test_history_stays_within_its_days(drawn: tuple[World, History]) -> None:
    for kind in ("shown", "clicked", "carted", "ordered", "paid"):
        t = getattr(drawn[1], kind)["t"]
        assert CONFIG.start_ms <= t.min()
        assert t.max() <= CONFIG.as_of_ms


def test_references_hold(drawn: tuple[World, History]) -> None:
    world, h = drawn
    in_feed = np.flatnonzero(h.clicked["shown"] >= 0)
    shown, position = h.clicked["shown"][in_feed], h.clicked["position"][in_feed]
    np.testing.assert_array_equal(h.shown["items"][shown, position - 1], h.clicked["item"][in_feed])
    np.testing.assert_array_equal(h.shown["session"][shown], h.clicked["session"][in_feed])
    assert (h.clicked["t"][in_feed] > h.shown["t"][shown]).all()
    rows = np.repeat(h.ordered["first"], h.ordered["size"]) + np.concatenate([np.arange(n) for n in h.ordered["size"]])
    order = np.repeat(np.arange(len(h.ordered["t"])), h.ordered["size"])
    spent = np.bincount(order, h.lines["price"][rows] * h.lines["quantity"][rows])
    np.testing.assert_array_equal(spent[h.paid["order"]].astype(int), h.paid["amount"])
    user = h.sessions["user"][h.clicked["session"]]
    assert (world.joined_at[user] <= h.clicked["t"]).all()


def test_feeds_hold_twenty_distinct_items_that_are_listed(drawn: tuple[World, History]) -> None:
    world, h = drawn
    items = np.sort(h.shown["items"], axis=1)
    assert items.shape[1] == 20
    assert (np.diff(items, axis=1) > 0).all()
    assert (world.listed_at[h.shown["items"]] <= h.shown["t"][:, None]).all()
    assert (world.stock[h.shown["items"]] > 0).all()


def test_clicks_know_position_taste_and_hour(drawn: tuple[World, History]) -> None:
    world, h = drawn
    position = h.clicked["position"][h.clicked["shown"] >= 0]
    assert (position <= 5).sum() > 1.3 * (position > 15).sum(), "the top of the feed is clicked more"
    user, item = h.sessions["user"][h.clicked["session"]], h.clicked["item"]
    other = np.random.default_rng(0).permutation(item)
    fit = behaviour.fit(world, user, np.stack([item, other], 1), h.clicked["t"])
    assert fit[:, 0].mean() > fit[:, 1].mean() + 0.5, "shoppers click what suits them"
    hour = (h.sessions["start"] // 3_600_000) % 24
    assert np.bincount(hour, minlength=24)[17:20].mean() > 3 * np.bincount(hour, minlength=24)[1:4].mean()


def test_cold_shoppers_and_items_appear_during_the_history(drawn: tuple[World, History]) -> None:
    world, h = drawn
    assert 0.1 < (world.joined_at[: CONFIG.shoppers] > CONFIG.start_ms).mean() < 0.3
    young = world.listed_at[h.clicked["item"]] > CONFIG.start_ms + SLICE
    assert 0.01 < young.mean() < 0.4
    assert (world.listed_at[CONFIG.items :] > CONFIG.as_of_ms).all()


def test_the_truth_ranks_better_than_popularity(drawn: tuple[World, History]) -> None:
    world, h = drawn
    user, item, t = h.sessions["user"][h.clicked["session"]], h.clicked["item"], h.clicked["t"]
    last = t > CONFIG.as_of_ms - DAY
    popularity = np.bincount(item[~last], minlength=len(world.category))
    share = truth.click_share(world, user[last], t[last])
    hits = np.argpartition(-share, 20, axis=1)[:, :20] == item[last][:, None]
    popular = np.isin(item[last], np.argsort(-popularity)[:20])
    assert hits.any(1).mean() > 2 * popular.mean()


def test_a_world_survives_its_file(drawn: tuple[World, History]) -> None:
    world = drawn[0]
    again = World.from_arrays(world.arrays())
    assert again.config == world.config
    np.testing.assert_array_equal(again.title, world.title)


def test_taste_shift_changes_the_asked_share_of_shoppers(drawn: tuple[World, History]) -> None:
    world = drawn[0]
    shifted = under(world, Scenario(taste_shift=0.25))
    moved = (shifted.taste != world.taste).any(1)
    assert moved.mean() == pytest.approx(0.25, abs=0.01)
    assert under(world, Scenario()) is world


def test_a_season_moves_liking_and_prices_rise(drawn: tuple[World, History]) -> None:
    world = drawn[0]
    summer = under(world, Scenario(seasonal=0.6))
    in_season = [c.name in SEASON for c in names.CATEGORIES]
    assert summer.preference[:, in_season].sum(1).mean() > 0.6
    np.testing.assert_allclose(summer.preference.sum(1), 1, atol=1e-5)
    dear = under(world, Scenario(price_level=1.0))
    np.testing.assert_array_equal(dear.price, 2 * world.price)


def test_the_truth_about_a_feed(drawn: tuple[World, History]) -> None:
    """The best feed is better than the one that was shown, and a shift makes yesterday's best feed worse."""
    world, h = drawn
    shown = h.shown["items"][-300:]
    users, t = h.sessions["user"][h.shown["session"][-300:]], h.shown["t"][-300:]
    best = truth.best_feed(world, users, t, 20)
    assert (world.stock[best] > 0).all()
    chances = truth.click_chances(world, users, best, t)
    assert chances.shape == (300, 20)
    assert chances.sum(1).mean() > 2 * truth.click_chances(world, users, shown, t).sum(1).mean()
    shifted = under(world, Scenario(taste_shift=1.0))
    assert truth.click_chances(shifted, users, best, t).sum(1).mean() < 0.6 * chances.sum(1).mean()
    assert truth.click_chances(world, users[:1], np.full((1, 20), -1), t[:1]).sum() == 0


@given(a=st.integers(0, 2**31), b=st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_fixed_uniforms_are_fixed_and_in_range(a: int, b: int) -> None:
    value = behaviour.uniform(3, np.array([a]), np.array([b]))
    assert 0 <= value[0] < 1
    assert value == behaviour.uniform(3, np.array([a]), np.array([b]))
    assert value != behaviour.uniform(4, np.array([a]), np.array([b]))


def test_fixed_uniforms_are_uniform() -> None:
    values = behaviour.uniform(2, np.arange(40_000), np.full(40_000, 19_876))
    assert abs(values.mean() - 0.5) < 0.01
    assert abs(values.var() - 1 / 12) < 0.003


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("taste_shift=2", "between 0 and 1"), ("fraud_ring=0.1", "choose from taste_shift"), ("tastes=1", "unknown"),
        ("broken_units=much", "broken_units=0.5"), ("taste_shift=nan", "between 0 and 1"),
    ],
)  # fmt: skip
def test_a_scenario_that_cannot_be_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Scenario.parse(text)


def test_scenarios_are_read() -> None:
    assert Scenario.parse(" taste_shift=0.5, broken_units=0.1 ") == Scenario(taste_shift=0.5, broken_units=0.1)
    assert Scenario.parse("") == Scenario()


def test_a_world_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="items = 3"):
        WorldConfig(shoppers=100, items=3, days=10, seed=1, as_of_ms=CONFIG.as_of_ms)


def test_every_category_goes_with_another() -> None:
    assert all(0 <= c.goes_with < len(names.CATEGORIES) for c in names.CATEGORIES)
    assert all(c.goes_with != n for n, c in enumerate(names.CATEGORIES))
    assert {c.name for c in names.CATEGORIES} >= names.ADULT
