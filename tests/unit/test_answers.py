"""Shared decisions: identical requests wait for one, strangers may get the last stranger's, and nobody else's ever."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.errors import Overloaded, Unavailable
from services.recommender.admission import Admission, AdmissionConfig
from services.recommender.answers import CACHE, Answers
from services.recommender.flights import SingleFlight
from services.recommender.record import to_record
from services.recommender.roles import Choice
from services.recommender.terms import STAGES, Ask
from tests.unit.recommender_world import (
    NOW,
    VERSIONS,
    FakeModels,
    FakeShoppers,
    catalogue_of,
    lineup_of,
    recommender_of,
    shelf_of,
)

SHELF = shelf_of(lineup_of(200), catalogue_of(200, new=5))
OTHER = shelf_of(replace(lineup_of(200, seed=9), versions=VERSIONS | {"ranker": "2"}), catalogue_of(200, new=5))


class Counting(FakeModels):
    """Counts what the ranker is asked, and takes a moment for it."""

    def __init__(self) -> None:
        super().__init__()
        self.ranked = 0

    async def infer(self, model: str, version: str, inputs: Any) -> Any:
        self.ranked += model == "ranker"
        await asyncio.sleep(0)
        return await super().infer(model, version, inputs)


class World:
    """Answers with a clock that a test sets; `choose` may be changed under way."""

    def __init__(self, **options: Any) -> None:
        self.now, self.models, self.shelf, self.sold_out = NOW, Counting(), SHELF, set[str]()
        self.arms: dict[str, str] = {}
        recommender = recommender_of(
            SHELF, models=self.models, shoppers=options.pop("shoppers", FakeShoppers()), choose=self._choose,
            in_stock=lambda item: item not in self.sold_out, budgets_ms=dict.fromkeys(STAGES, 30_000.0),
        )  # fmt: skip
        most = options.pop("most", 64)
        self.answers = Answers(recommender, Admission(AdmissionConfig(most=most)), lambda: self.now, **options)

    def _choose(self, user_id: str) -> Choice:
        return Choice(self.shelf, self.arms.get(user_id, "champion"))  # type: ignore[arg-type]

    async def ask(self, user_id: str, **other: Any) -> Any:
        return await self.answers.answer(Ask(f"r-{user_id}-{self.models.ranked}", user_id, self.now, **other))


def shown(decision: Any) -> list[tuple[str, float]]:
    return [(item.item_id, item.score) for item in decision.placed]


async def test_identical_requests_at_once_cost_one_decision_and_keep_their_own_ids() -> None:
    world = World()
    asks = [Ask(f"r-{i}", "u1", NOW) for i in range(8)]
    decisions = await asyncio.gather(*map(world.answers.answer, asks))
    assert world.models.ranked == 1
    assert [d.ask.request_id for d in decisions] == [a.request_id for a in asks]
    assert [d.made_for for d in decisions] == [None] + ["r-0"] * 7
    assert len({tuple(shown(d)) for d in decisions}) == 1
    record = to_record(decisions[5])
    assert (record["request_id"], record["made_for"], record["user_id"]) == ("r-5", "r-0", "u1")
    await world.answers.answer(Ask("r-9", "u1", NOW))
    assert world.models.ranked == 2, "afterwards nothing is kept for a known shopper"


@pytest.mark.parametrize(
    "different", [{"k": 5}, {"surface": "cart"}, {"device": "phone"}, {"country": "DE"}, {"of_age": True}]
)
async def test_what_differs_is_decided_apart(different: dict[str, Any]) -> None:
    world = World()
    await asyncio.gather(world.ask("u1"), world.ask("u1", **different), world.ask("s1"), world.ask("s2", **different))
    assert world.models.ranked == 4


async def test_strangers_share_an_answer_for_a_moment_and_its_age_is_said() -> None:
    world = World(keep_ms=1000)
    first = await world.ask("s1")
    hits = CACHE.labels("hit")._value.get()
    world.now += 400
    second = await world.ask("s2")
    assert (world.models.ranked, CACHE.labels("hit")._value.get()) == (1, hits + 1)
    assert (second.cached_ms, second.made_for, second.cold_start) == (400, first.ask.request_id, "new_visitor")
    assert (second.ask.user_id, second.shopper.user_id, second.ask.now_ms) == ("s2", "s2", NOW)
    assert shown(second) == shown(first)
    world.now += 700
    third = await world.ask("s3")
    assert (world.models.ranked, third.cached_ms, third.made_for) == (2, 0, None)


async def test_strangers_at_once_wait_for_one_decision() -> None:
    world = World()
    decisions = await asyncio.gather(*(world.ask(f"s{i}") for i in range(6)))
    assert world.models.ranked == 1
    assert len({tuple(shown(d)) for d in decisions}) == 1


async def test_a_known_shopper_never_gets_a_strangers_answer_nor_gives_one() -> None:
    world = World()
    known = await world.ask("u1")
    stranger = await world.ask("s1")
    again = await world.ask("u1")
    assert world.models.ranked == 3
    assert (known.made_for, stranger.made_for, again.made_for) == (None, None, None)


async def test_a_shopper_whom_only_the_models_know_is_no_stranger() -> None:
    class Silent(FakeShoppers):
        async def who(self, user_id: str, categories: Any, now_ms: int) -> Any:
            return replace(await super().who("nobody", categories, now_ms), user_id=user_id)

    world = World(shoppers=Silent())
    await world.ask("s1")
    await world.ask("u1")
    assert world.models.ranked == 2


async def test_never_across_models_or_arms() -> None:
    world = World()
    await world.ask("s1")
    world.arms = {"s2": "canary", "s3": "control"}
    for user in ("s2", "s3"):
        assert (await world.ask(user)).arm == world.arms[user]
    assert world.models.ranked == 3
    world.shelf = OTHER
    assert (await world.ask("s4")).model_versions["ranker"] == "2"
    assert world.models.ranked == 4


async def test_a_product_that_sold_out_makes_the_answer_unusable() -> None:
    world = World()
    gone = (await world.ask("s1")).placed[3].item_id
    world.sold_out.add(gone)
    fresh = await world.ask("s2")
    assert world.models.ranked == 2
    assert gone not in {item.item_id for item in fresh.placed}


async def test_when_the_store_is_away_nobody_counts_as_a_stranger() -> None:
    world = World(shoppers=FakeShoppers("away"))
    await world.ask("s1")
    await world.ask("s2")
    assert world.models.ranked == 2


async def test_a_degraded_answer_is_not_kept() -> None:
    world = World()
    world.models.broken = {"preranker": "away"}
    assert (await world.ask("s1")).degraded
    world.models.broken = {}
    assert (await world.ask("s2")).degraded == ()
    assert world.models.ranked == 2


async def test_both_can_be_switched_off() -> None:
    world = World(keep_ms=0, coalesce=False)
    await asyncio.gather(world.ask("u1"), world.ask("u1"), world.ask("s1"), world.ask("s2"))
    assert world.models.ranked == 4


async def test_memory_stays_bounded() -> None:
    world = World(keep_ms=60_000)
    for k in range(300):
        await world.ask("s1", surface=f"surface-{k}", k=3)
    assert len(world.answers._strangers or ()) <= 257
    world.now += 60_001
    await world.ask("s1", k=3)
    assert len(world.answers._strangers or ()) == 1


@settings(max_examples=20, deadline=None)
@given(users=st.lists(st.sampled_from(["u1", "s1", "s2", "s3"]), min_size=1, max_size=12), steps=st.integers(0, 700))
async def test_sharing_never_changes_what_is_shown(users: list[str], steps: int) -> None:
    """The fakes' scores depend on nothing but the rows, so each answer can be compared with one made alone."""
    world, alone = World(), World(keep_ms=0, coalesce=False)
    for user in users:
        world.now += steps
        alone.now = world.now
        assert shown(await world.ask(user)) == shown(await alone.ask(user))


@pytest.mark.parametrize("coalesce", [True, False])
async def test_a_full_door_refuses_in_the_first_step(coalesce: bool) -> None:
    world = World(most=1, coalesce=coalesce)
    held = asyncio.create_task(world.ask("u1"))
    while world.answers.admission.in_flight == 0:
        await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="1 requests are here"):
        world.answers.answer(Ask("r-2", "u2", NOW)).send(None)
    assert (await held).placed


async def test_a_flight_survives_who_started_it_and_hands_its_failure_to_all() -> None:
    flights: SingleFlight[int] = SingleFlight()
    gate = asyncio.Event()

    async def work() -> int:
        await gate.wait()
        return 7

    first, second = (asyncio.create_task(flights.do("key", work)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    gate.set()
    assert await second == (7, True)
    assert len(flights) == 0

    async def fail() -> int:
        raise Unavailable("no")

    outcomes = await asyncio.gather(flights.do("key", fail), flights.do("key", fail), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    assert len(flights) == 0
