"""Ranking rows: order, missing values, and the same inputs give the same bytes whatever their order."""

from __future__ import annotations

import numpy as np
import pytest

from models.ranking_features import FEATURES, ITEM, RETRIEVAL, USER, USER_CATEGORY, RankingInputs, assemble


def inputs(n: int, seed: int = 0, order: np.ndarray | None = None) -> RankingInputs:
    rng = np.random.default_rng(seed)
    pick = np.arange(n) if order is None else order
    columns = {name: rng.random(n) * 10 for name in (*ITEM, *USER_CATEGORY, *RETRIEVAL, "price_cents", "age_hours")}
    columns["new_items_rank"][::2] = np.nan
    columns = {name: column[pick] for name, column in columns.items()}
    return RankingInputs(
        n=n, user=dict.fromkeys(USER, 3.0), items=columns, user_category=columns, retrieval=columns,
        category=(np.arange(n) % 3)[pick], item_ids=np.arange(n)[pick],
        recent_categories=(1, 2, 1), recent_items=(4, 2, 4),
        hour=6.0, weekday=2.0, device="phone",
    )


def column(rows: np.ndarray, name: str) -> np.ndarray:
    return rows[:, FEATURES.index(name)]


def test_deterministic_and_row_wise() -> None:
    rows, order = assemble(inputs(9)), np.random.default_rng(1).permutation(9)
    assert rows.tobytes() == assemble(inputs(9)).tobytes()
    np.testing.assert_array_equal(assemble(inputs(9, order=order)), rows[order])
    assert rows.shape == (9, len(FEATURES))
    assert rows.dtype == np.float32


def test_values() -> None:
    rows = assemble(inputs(9))
    np.testing.assert_allclose(column(rows, "from_new_items"), [0, 1] * 4 + [0])
    np.testing.assert_allclose(column(rows, "source_count"), [3, 4] * 4 + [3])
    np.testing.assert_allclose(column(rows, "recent_category_share"), [0, 2 / 3, 1 / 3] * 3, rtol=1e-6)
    np.testing.assert_allclose(column(rows, "same_category_as_last"), [0, 1, 0] * 3)
    position = column(rows, "recent_position")
    assert position[4] == 1
    assert position[2] == 2
    assert np.isnan(position[[0, 1, 3, 5]]).all()
    np.testing.assert_allclose(column(rows, "hour_sin"), 1.0)
    np.testing.assert_allclose(column(rows, "device"), 1.0)
    assert np.isfinite(column(rows, "price_ratio_7d")).all()


def test_nothing_known_is_missing_not_an_error() -> None:
    rows = assemble(RankingInputs(n=3))
    flags = [f for f in FEATURES if f.startswith("from_")] + ["source_count"]
    known = [i for i, name in enumerate(FEATURES) if name in flags]
    assert np.isnan(np.delete(rows, known, axis=1)).all()
    assert (rows[:, known] == 0).all()
    assert assemble(RankingInputs(n=0)).shape == (0, len(FEATURES))


def test_a_wrong_length_names_the_feature() -> None:
    with pytest.raises(ValueError, match="two_tower_score"):
        assemble(RankingInputs(n=3, retrieval={"two_tower_score": np.zeros(2)}))


def test_names_are_distinct() -> None:
    assert len(set(FEATURES)) == len(FEATURES)
