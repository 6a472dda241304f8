"""The batch reader gives what the reader of single keys gives, for every declared view and function."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo import tiles
from feature_repo.batch_read import ViewReader
from feature_repo.layout import layout_of
from feature_repo.plan import FeaturePlan, ViewPlan
from tests.unit.tile_worlds import DAY, packed_key

PLAN = FeaturePlan.load(Path(__file__).parents[1] / "plan.json")
NOW = 1_790_000_000_000


def batch(view: ViewPlan, seed: int, n: int) -> list[bytes | None]:
    """Packed tiles: of few and many rows, with overflowing distinct counts, missing, junk, and keys that repeat."""
    rng = random.Random(seed)
    found: list[bytes | None] = [None, b"", b"junk", packed_key(PLAN.declared_views[-1], rng, NOW, 3)]
    found += [packed_key(view, rng, NOW, rng.choice([1, 3, 30])) for _ in range(n)]
    if seed % 4 == 0:
        found.append(packed_key(view, rng, NOW, 150, values=500))
    rng.shuffle(found)
    return found + found[:2]


def same(a: Any, b: Any) -> bool:
    if isinstance(b, float):
        return bool(np.isclose(a, b, rtol=1e-12, atol=0, equal_nan=True))
    return bool(a == b)


@pytest.mark.parametrize("view", PLAN.declared_views, ids=lambda v: v.name)
@given(seed=st.integers(0, 10**9), n=st.integers(0, 6), later=st.integers(0, 45 * DAY))
@settings(max_examples=8, deadline=None)
def test_many_keys_read_as_single_ones_do(view: ViewPlan, seed: int, n: int, later: int) -> None:
    packed, now = batch(view, seed, n), NOW + later
    found = ViewReader(view).read(packed, now)
    assert tuple(found.columns) == view.features
    for row, blob in enumerate(packed):
        one = tiles.windows(view, blob, now)
        for name, column in found.columns.items():
            assert same(column[row], one[name]), (name, column[row], one[name])
        state = tiles.unpack(layout_of(view), blob)
        assert found.arrivals[row] == (-1 if state is None else state.arrival)


@pytest.mark.parametrize("view", PLAN.declared_views, ids=lambda v: v.name)
def test_a_choice_of_features_is_given_in_its_order(view: ViewPlan) -> None:
    names = list(view.features)
    random.Random(3).shuffle(names)
    packed = batch(view, 6, 5)
    whole = tiles.columns(view, packed, NOW)
    for chosen in (names[:5], names[:1], []):
        found = ViewReader(view, chosen).read(packed, NOW).columns
        assert list(found) == chosen
        for name in chosen:
            assert all(map(same, found[name], whole[name])), name


def test_no_keys_give_empty_columns() -> None:
    for view in PLAN.declared_views:
        found = ViewReader(view).read([], NOW)
        assert {len(column) for column in found.columns.values()} == {0}
        assert len(found.arrivals) == 0


@pytest.mark.parametrize("view", PLAN.declared_views, ids=lambda v: v.name)
@given(seed=st.integers(0, 10**9), later=st.integers(-DAY // 24, 8 * DAY), share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=12, deadline=None)
def test_what_was_read_holds_until_it_is_said_to_change(view: ViewPlan, seed: int, later: int, share: float) -> None:
    packed, now = batch(view, seed, 4), NOW + later
    reader = ViewReader(view)
    columns, until = reader.lasting(packed, now)
    assert (until > now).all()
    for row, blob in enumerate(packed):
        lasts = min(int(until[row]), now + 100 * DAY) - now
        for moment in (now + int(share * lasts), now + lasts - 1):
            for name, column in reader.read([blob], moment).columns.items():
                assert same(column[0], columns[name][row]), (name, moment)


def test_what_is_said_to_change_does() -> None:
    view = PLAN.view("item_activity")
    packed = [packed_key(view, random.Random(seed), NOW, 3) for seed in range(40)]
    reader = ViewReader(view)
    columns, until = reader.lasting(packed, NOW)
    changed = 0
    for row, blob in enumerate(packed):
        after = reader.read([blob], int(until[row])).columns if until[row] < 2**62 else {}
        changed += any(not same(column[0], columns[name][row]) for name, column in after.items())
    assert changed > 30, "it is not only safe to wait so long, it is also as long as can be waited"
