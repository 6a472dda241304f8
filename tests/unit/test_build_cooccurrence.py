"""The options of co-occurrence follow the shop: one where people follow threads, one where their tastes last."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.popularity import DAY_MS
from pipelines import build_cooccurrence
from pipelines.build_cooccurrence import METRIC, choose
from pipelines.history import CLICK, History, Ints, States
from pipelines.stages import Stage

ITEMS, SHOPPERS, DAYS, PER_DAY = 120, 150, 6, 6


def history_of(item: Ints) -> History:
    """Shoppers who click `item` [SHOPPERS, DAYS, PER_DAY], a minute between clicks, once a day."""
    shopper, day, click = np.indices(item.shape)
    when = (day + 1) * DAY_MS + click * 60_000 + shopper
    order = np.lexsort((when.ravel(),))
    none = np.zeros(0, dtype=np.int64)
    names = np.array([f"i{number}" for number in range(ITEMS)])
    return History(
        np.array([f"u{number}" for number in range(SHOPPERS)]), names, np.zeros(0, dtype=str),
        np.zeros(SHOPPERS, dtype=np.int64), np.zeros(ITEMS, dtype=np.int64), np.zeros(ITEMS, dtype=np.int64),
        shopper.ravel()[order], item.ravel()[order], when.ravel()[order], np.full(item.size, CLICK, dtype=np.int8),
        States(none, none, none, np.zeros(0)), (DAYS + 1) * DAY_MS - 1,
    )  # fmt: skip


def stage_of(history: History) -> Stage:
    return Stage("production", history.as_of_ms + 1, DAY_MS, Path())


def threads() -> History:
    """Every visit begins anywhere and goes on from item to item."""
    begin = np.random.default_rng(1).integers(0, ITEMS, (SHOPPERS, DAYS, 1))
    return history_of((begin + np.arange(PER_DAY)) % ITEMS)


def tastes() -> History:
    """Every shopper likes thirty items for good, in no order."""
    rng = np.random.default_rng(2)
    liked = np.argsort(rng.random((SHOPPERS // 10, ITEMS)), axis=1)[:, :30].repeat(10, axis=0)
    return history_of(liked[np.arange(SHOPPERS)[:, None, None], rng.integers(0, 30, (SHOPPERS, DAYS, PER_DAY))])


def test_a_thread_wants_the_newest_item_and_lasting_tastes_want_them_all() -> None:
    (thread, tried), (taste, _) = (choose(history, stage_of(history), 7) for history in (threads(), tastes()))
    assert thread.recency == 1.5
    assert taste.recency == 0.5
    assert thread.window < taste.window
    assert {one["window"] for one in tried} == {3, 8, 30, 100}
    assert max(one[METRIC] for one in tried) == tried[-1][METRIC]


def test_the_choice_is_the_same_again_and_knows_nothing_of_later() -> None:
    history = threads()
    stage = Stage("past", history.as_of_ms + 1 - DAY_MS, DAY_MS, Path())
    chosen = choose(history, stage, 7)
    late = history.time_ms >= stage.until_ms
    history.item[late] = np.random.default_rng(3).permutation(history.item[late])
    history.__dict__.pop("recent", None)
    assert choose(history, stage, 7) == chosen


def test_few_shoppers_or_too_many_pairs_leave_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    history = threads()
    first = Stage("past", int(history.time_ms[0]) + DAY_MS, DAY_MS, Path())
    config, tried = choose(history, first, 7)  # nothing was known before its newest window
    assert (config.window, config.recency, tried) == (30, 1.0, [])
    monkeypatch.setattr(build_cooccurrence, "most_pairs", lambda n_items: 10 * len(history.item))
    assert {one["window"] for one in choose(history, stage_of(history), 7)[1]} == {3, 8}
    monkeypatch.setattr(build_cooccurrence, "_LEAST_ASKED", SHOPPERS + 1)
    config, tried = choose(history, stage_of(history), 7)
    assert (config.window, tried) == (8, [])
