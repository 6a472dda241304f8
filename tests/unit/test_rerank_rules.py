"""Each rule alone, and what all of them promise together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.rerank import RULES, Context, Rule, Slate, rerank
from models.rerank.age import Age
from models.rerank.already_seen import AlreadySeen
from models.rerank.category_mix import CategoryMix
from models.rerank.freshness import Freshness
from models.rerank.mmr import Mmr
from models.rerank.promotions import Promotions
from models.rerank.stock import Stock
from services.recommender.shelf import Shelf
from services.recommender.terms import Rows
from tests.unit.recommender_world import catalogue_of, lineup_of, listed, shelf_of

SHELF = shelf_of(lineup_of(60), catalogue_of(60, new=10))


def slate_of(rows: list[int]) -> Slate:
    return Slate(np.array(rows, np.int64), np.linspace(1, 0, len(rows)))


def context(
    shelf: Shelf = SHELF, k: int = 5, recent: tuple[str, ...] = (), sold_out: frozenset[str] = frozenset(),
    of_age: bool = False,
) -> Context:
    rows = np.array([row for item in recent if (row := shelf.row(item)) >= 0], np.int64)
    ids, table = shelf.table.ids, shelf.table

    def in_stock(wanted: Rows) -> NDArray[np.bool_]:
        return np.array([ids[row] not in sold_out for row in wanted], bool)

    return Context(
        k=k, new=shelf.new, promoted=table.promoted, adult=table.adult, of_age=of_age, category=table.category,
        liked=table.category[rows], recent=rows, in_stock=in_stock,
        embeddings=shelf.embeddings,
    )  # fmt: skip


def ordered(rule: Rule, rows: list[int], at: Context) -> list[int]:
    slate = rerank(slate_of(rows), at, (rule,)).slate
    return slate.rows.tolist()


def test_stock_drops_what_is_sold_out_and_says_so() -> None:
    slate, dropped, _, _ = rerank(slate_of([3, 4, 5]), context(sold_out=frozenset({"i4"})), (Stock(),))
    assert slate.rows.tolist() == [3, 5]
    assert dropped == [(4, "stock")]
    assert slate.moved_by == {}


def test_what_is_for_adults_is_dropped_unless_the_shopper_is_known_to_be_one() -> None:
    shelf = shelf_of(lineup_of(20), [listed(f"i{j}", adult=j in (1, 3)) for j in range(19)])
    rows = [1, 2, 3, 19]  # the last is not in the catalogue: nobody knows what it is
    slate, dropped, _, _ = rerank(slate_of(rows), context(shelf), (Age(),))
    assert slate.rows.tolist() == [2]
    assert dropped == [(1, "age"), (3, "age"), (19, "age")]
    assert ordered(Age(), rows, context(shelf, of_age=True)) == rows


def test_the_mix_of_categories_follows_what_was_touched() -> None:
    items = [listed(f"i{j}", category="Tea" if j < 12 else "Books") for j in range(24)]
    shelf = shelf_of(lineup_of(24), items)
    half_and_half = context(shelf, k=6, recent=("i0", "i1", "i2", "i12", "i13", "i14"))
    rows = list(range(24))
    mixed = ordered(CategoryMix(weight=0.9), rows, half_and_half)
    assert sum(row >= 12 for row in mixed[:6]) == 3, "half of the first six are books"
    assert mixed[6:] == [row for row in rows if row not in mixed[:6]], "the others keep their order"
    assert ordered(CategoryMix(weight=0.0), rows, half_and_half) == rows
    unknown = context(shelf, k=6, recent=("i0", "i12"))
    assert ordered(CategoryMix(weight=0.9), rows, unknown) == rows, "two clicks are no mix"
    one_sided = context(shelf, k=6, recent=("i0", "i1", "i2", "i3", "i4"))
    assert ordered(CategoryMix(weight=0.9), rows, one_sided) == rows


def test_already_seen_goes_to_the_end_in_order() -> None:
    slate, dropped, _, _ = rerank(slate_of([1, 2, 3, 4]), context(recent=("i3", "i1", "gone")), (AlreadySeen(),))
    assert slate.rows.tolist() == [2, 4, 1, 3]
    assert dropped == []
    assert slate.moved_by == {1: ("already_seen",), 3: ("already_seen",)}


def test_mmr_keeps_the_first_and_lifts_the_different_over_the_alike() -> None:
    shelf = shelf_of(lineup_of(60), catalogue_of(60))
    twins = np.eye(64, dtype=np.float32)[[0, 0, 1, 2]]
    alike = {0: twins[0], 1: twins[1], 2: twins[2], 3: twins[3]}

    class Twins(Shelf):
        def embeddings(self, rows: np.ndarray) -> np.ndarray:
            return np.stack([alike[int(r)] for r in rows])

    twin_shelf = Twins(**{f: getattr(shelf, f) for f in shelf.__dataclass_fields__})
    assert ordered(Mmr(balance=0.5), [0, 1, 2, 3], context(twin_shelf, k=3)) == [0, 2, 3, 1]
    assert ordered(Mmr(balance=1.0), [0, 1, 2, 3], context(twin_shelf, k=3)) == [0, 1, 2, 3]


def test_freshness_keeps_a_place_for_a_new_item_at_the_end_of_the_first_k() -> None:
    new = SHELF.row("n0")
    assert ordered(Freshness(), [1, 2, 3, 4, 5, 6, new, 7], context()) == [1, 2, 3, 4, new, 5, 6, 7]
    assert ordered(Freshness(), [1, new, 3, 4, 5, 6], context()) == [1, new, 3, 4, 5, 6]
    assert ordered(Freshness(), [1, 2, 3], context()) == [1, 2, 3]


def test_promotions_lift_one_product_to_its_place() -> None:
    items = [listed(f"i{j}", promoted=j in (8, 9)) for j in range(20)]
    shelf = shelf_of(lineup_of(20), items)
    assert ordered(Promotions(place=3), list(range(12)), context(shelf)) == [0, 1, 8, 2, 3, 4, 5, 6, 7, 9, 10, 11]
    assert ordered(Promotions(place=3), [8, 1, 2, 9], context(shelf)) == [8, 1, 2, 9]
    assert ordered(Promotions(place=3), list(range(12)), context(shelf, k=2)) == list(range(12))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_rule_keeps_its_contract(rule: Rule, data: st.DataObject) -> None:
    n = len(SHELF.table.ids)
    rows = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n))
    k = data.draw(st.integers(1, 100))
    sold_out = frozenset(f"i{j}" for j in data.draw(st.sets(st.integers(0, 59), max_size=20)))
    at = context(k=k, recent=("i5", "i6", "n1"), sold_out=sold_out)
    slate, dropped, late, _ = rerank(slate_of(rows), at, (rule,))
    assert not late
    assert sorted([*slate.rows.tolist(), *(row for row, _ in dropped)]) == sorted(rows)
    score_of = dict(zip(rows, slate_of(rows).scores.tolist(), strict=True))
    assert [score_of[row] for row in slate.rows.tolist()] == slate.scores.tolist()
    if not rule.must:
        assert dropped == []
    assert set(slate.moved_by) <= set(slate.rows.tolist())


def test_the_order_of_the_rules() -> None:
    assert [rule.name for rule in RULES] == [
        "stock", "age", "already_seen", "mmr", "category_mix", "freshness", "promotions",
    ]  # fmt: skip
    assert [rule.must for rule in RULES] == [True, True, *[False] * 5], "what must be applied comes first"
