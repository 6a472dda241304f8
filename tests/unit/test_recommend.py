"""The funnel keeps its promise whatever fails, and says what failed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from adapters.decision_log import features_of
from adapters.errors import Unavailable
from models.ranking_features import FEATURES
from models.rerank import RULES
from services.recommender.lineup import Lineup
from services.recommender.record import to_record
from services.recommender.sources import SOURCES
from tests.unit.recommender_world import (
    BUDGETS,
    FakeModels,
    FakeShoppers,
    ask,
    catalogue_of,
    lineup_of,
    listed,
    recommender_of,
    shelf_of,
    valid,
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


SHELF = shelf_of(lineup_of(400), catalogue_of(400, out_of_stock=30, new=10))


async def test_a_healthy_answer_uses_every_stage_and_is_not_degraded() -> None:
    decision = await recommender_of(SHELF).recommend(ask())
    valid(decision, SHELF, 20)
    assert decision.degraded == ()
    assert decision.cold_start is None
    assert {s for p in decision.placed for s in p.sources} & {"two_tower", "cooccurrence"}
    assert set(decision.timings_ms) == {"retrieve", "features", "prerank", "rank", "rerank", "total"}
    assert decision.features is not None
    assert decision.features.shape == (len(decision.ranked[0]), len(FEATURES))


@pytest.mark.parametrize(("model", "reason"), [
    ("two_tower_user", "retrieve_late"), ("preranker", "prerank_skipped"), ("ranker", "rank_skipped"),
])
@pytest.mark.parametrize("how", ["away", "hangs", "nan", "shape", "raises"])
async def test_a_failing_model_is_left_out_and_named(model: str, reason: str, how: str) -> None:
    begun = time.perf_counter()
    decision = await recommender_of(SHELF, models=FakeModels({model: how})).recommend(ask())
    assert time.perf_counter() - begun < 10  # what hangs does so for 30 s
    valid(decision, SHELF, 20)
    assert decision.degraded == (reason,)


@pytest.mark.parametrize(("how", "reason"), [
    ("away", "redis_down"), ("hangs", "features_late"), ("raises", "features_late"),
])
async def test_without_the_online_store_the_answer_goes_on(how: str, reason: str) -> None:
    decision = await recommender_of(SHELF, shoppers=FakeShoppers(how)).recommend(ask())
    valid(decision, SHELF, 20)
    assert reason in decision.degraded


async def test_everything_down_at_once_still_answers() -> None:
    models = FakeModels({"two_tower_user": "away", "preranker": "hangs", "ranker": "nan"})
    decision = await recommender_of(SHELF, models=models, shoppers=FakeShoppers("away"), stalled=True).recommend(ask())
    valid(decision, SHELF, 20)
    assert set(decision.degraded) == {"redis_down", "kafka_down", "retrieve_late", "prerank_skipped", "rank_skipped"}


async def test_the_fallback_of_the_model_server_is_named() -> None:
    decision = await recommender_of(SHELF, models=FakeModels(fell_back=True)).recommend(ask())
    assert decision.degraded == ("triton_down",)


@pytest.mark.parametrize("broken", [source.name for source in SOURCES])
async def test_a_source_that_raises_costs_only_itself(broken: str) -> None:
    class Broken:
        name = broken

        def retrieve(self, query: object) -> np.ndarray:
            raise RuntimeError("a bug")

    sources = tuple(Broken() if s.name == broken else s for s in SOURCES)
    decision = await recommender_of(SHELF, sources=sources).recommend(ask())
    valid(decision, SHELF, 20)
    assert decision.degraded == ("retrieve_late",)


async def test_a_rule_that_raises_skips_re_ranking() -> None:
    class Broken:
        name = "broken"
        must = False

        def apply(self, slate: object, context: object) -> object:
            raise RuntimeError("a bug")

    decision = await recommender_of(SHELF, rules=(Broken(),)).recommend(ask())
    valid(decision, SHELF, 20)
    assert decision.degraded == ("rerank_skipped",)


async def test_a_new_visitor_gets_a_feed_and_is_called_one() -> None:
    decision = await recommender_of(SHELF).recommend(ask("nobody-yet"))
    valid(decision, SHELF, 20)
    assert decision.cold_start == "new_visitor"


async def test_new_items_are_shown_and_flagged() -> None:
    decision = await recommender_of(SHELF).recommend(ask())
    new = [p for p in decision.placed if p.new]
    assert new
    assert all(p.item_id.startswith("n") for p in new)


async def test_items_newer_than_the_index_are_found_by_likeness_if_they_can_be_bought() -> None:
    lineup = lineup_of(400)
    vectors = lineup.index.vectors(np.arange(30)) if lineup.index else np.zeros((0, 64))

    class Encoder:
        def run(self, *_: object) -> list[np.ndarray]:
            return [vectors]

    old = catalogue_of(400)
    extras = [listed(f"n{j}", age_hours=24 * 30, stock=0 if j == 3 else 9) for j in range(30)]
    shelf = shelf_of(replace(lineup, item_encoder=Encoder()), old + extras)
    decision = await recommender_of(shelf, rules=()).recommend(ask())
    assert decision.embedding is not None
    ranks = decision.pool.ranks["new_alike"]
    found = decision.pool.rows[np.argsort(ranks)][: int((~np.isnan(ranks)).sum())]
    cosines = vectors @ decision.embedding
    assert found.tolist() == [400 + j for j in np.argsort(-cosines) if j != 3], "by likeness, though none is new"


async def test_items_newer_than_the_index_have_no_two_tower_score_as_in_training() -> None:
    decision = await recommender_of(SHELF).recommend(ask())
    assert decision.features is not None
    assert decision.ranked is not None
    newer = decision.ranked[0] >= 400
    scores = decision.features[:, FEATURES.index("two_tower_score")]
    assert newer.any()
    np.testing.assert_array_equal(np.isnan(scores), newer)


async def test_no_models_at_all_serves_what_the_catalogue_has() -> None:
    shelf = shelf_of(Lineup(), catalogue_of(50, new=5))
    decision = await recommender_of(shelf).recommend(ask())
    valid(decision, shelf, 20)
    assert "models_missing" in decision.degraded


async def test_an_item_that_sells_out_between_shelf_and_answer_is_not_shown() -> None:
    first = (await recommender_of(SHELF).recommend(ask())).placed[0].item_id
    sellable = {SHELF.table.ids[r] for r in np.flatnonzero(SHELF.table.sellable)} - {first}
    decision = await recommender_of(SHELF, in_stock=lambda item: item in sellable).recommend(ask())
    assert first not in {p.item_id for p in decision.placed}
    assert len(decision.placed) == 20
    assert (first, "stock") in decision.dropped


@pytest.mark.parametrize("rules", [RULES, ()], ids=["rules", "rules left out"])
async def test_products_for_adults_are_for_adults(rules: Any) -> None:
    adults = [listed(f"i{j}", adult=j % 2 == 0) for j in range(60)]
    shelf = shelf_of(lineup_of(60), adults)
    unknown = await recommender_of(shelf, rules=rules).recommend(ask(k=40))
    assert {int(p.item_id[1:]) % 2 for p in unknown.placed} == {1}
    assert len(unknown.placed) == 30, "all that may be shown, and nothing to fill up with"
    assert {rule for _, rule in unknown.dropped} == {"age"}
    grown_up = await recommender_of(shelf, rules=rules).recommend(replace(ask(k=40), of_age=True))
    assert {int(p.item_id[1:]) % 2 for p in grown_up.placed} == {0, 1}
    assert len(grown_up.placed) == 40
    assert not grown_up.dropped


async def test_an_empty_catalogue_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await recommender_of(shelf_of(Lineup(), [])).recommend(ask())


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 60), sold_out=st.integers(0, 60), new=st.integers(0, 8), k=st.integers(1, 100),
    user=st.sampled_from(["u1", "stranger"]),
    broken=st.dictionaries(st.sampled_from(["two_tower_user", "preranker", "ranker"]),
                           st.sampled_from(["away", "nan", "shape", "raises"])),
    redis=st.sampled_from(["", "away", "raises"]), models=st.booleans(),
)
async def test_k_valid_distinct_products_always(
    n: int, sold_out: int, new: int, k: int, user: str, broken: dict[str, str], redis: str, models: bool
) -> None:
    shelf = shelf_of(lineup_of(n) if models else Lineup(), catalogue_of(n, out_of_stock=min(sold_out, n), new=new))
    recommender = recommender_of(shelf, models=FakeModels(broken), shoppers=FakeShoppers(redis))
    if shelf.table.sellable.any():
        valid(await recommender.recommend(ask(user, k)), shelf, k)
    else:
        with pytest.raises(Unavailable):
            await recommender.recommend(ask(user, k))


async def test_the_record_holds_what_a_rebuild_needs() -> None:
    decision = await recommender_of(SHELF).recommend(ask())
    record = orjson.loads(orjson.dumps(to_record(decision), option=orjson.OPT_SERIALIZE_NUMPY))
    assert record["request_id"] == "r-1"
    assert record["items"][0]["item_id"] == decision.placed[0].item_id
    np.testing.assert_array_equal(features_of(record), decision.features)
    assert len(record["candidates"]["item_ids"]) == len(record["candidates"]["sources"]) == len(decision.pool.rows)
    ranked, preranked = set(record["rank"]["item_ids"]), set(record["prerank"]["item_ids"])
    assert ranked <= preranked <= set(record["candidates"]["item_ids"])
    assert record["model_versions"]["features"] == "f" * 12
    rules = record["rules"]
    assert [rule["name"] for rule in rules["applied"]] == [rule.name for rule in RULES]
    assert set(rules["item_ids"]) == ranked
    assert set(rules["new"]) == {item for item in ranked if item.startswith("n")}
    assert set(rules["vectors"]) <= set(rules["new"])


async def test_a_late_re_ranking_keeps_the_rules_that_must_be() -> None:
    recommender = recommender_of(SHELF, budgets_ms=BUDGETS | {"rerank": 0.0001})
    decision = await recommender.recommend(ask())
    valid(decision, SHELF, 20)
    assert decision.degraded == ("rerank_skipped",)
