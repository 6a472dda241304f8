"""The feature server: values in the order asked; present, missing, stale and default told apart; pinned versions."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.errors import BadInput, NotFound, Overloaded, TooLarge, Unavailable
from adapters.feature_client import FeatureClient
from adapters.online_rows import Attributes
from feature_repo import tiles
from feature_repo.layout import layout_of
from feature_repo.service_versions import Projection, chosen, compile_services, version_of, whole
from pipelines.stack.launch import free_ports
from services.feature_server import answer as answering
from services.feature_server.last_known import LastKnown
from services.feature_server.listing import pins, unanswerable
from services.feature_server.rpc import start
from services.feature_server.terms import NEVER, Answer, State
from tests.unit.feature_server_world import NOW, PLAN, FeatureWorld


async def answer(world: FeatureWorld, service: str = "item_profile", at_ms: int | None = None, *,
                 features: tuple[str, ...] = (), **entities: Any) -> Answer:
    service = "" if features else service
    return await world.answers.answer(world.asks.ask(service, features, entities, at_ms, world.now))


def state_names(found: Answer, view: int = 0) -> list[str]:
    return [State(s).name for s in found.views[view].states.tolist()]


KEYS = st.lists(st.sampled_from(["i0", "i1", "i2", "i5", "nobody", "no one"]), min_size=1, max_size=12)


@given(keys=KEYS)
@settings(max_examples=20, deadline=None)
def test_every_row_is_the_value_of_its_key(keys: list[str]) -> None:
    world = FeatureWorld()
    found = asyncio.run(answer(world, item_id=keys))
    windows, plain = found.views
    view = PLAN.view("item_activity")
    for row, key in enumerate(keys):
        truth = tiles.windows(view, world.rows.stored["item_activity"].get((key,)), NOW)  # type: ignore[arg-type]
        for column in windows.columns:
            value, wanted = column.values[row], truth[column.name]
            assert value == wanted or (math.isnan(value) and math.isnan(wanted)), column.name
        stored = world.rows.stored["item_attributes"].get((key,))
        assert windows.states[row] == plain.states[row] == (State.MISSING if stored is None else State.PRESENT)
        assert plain.ages_ms[row] == (NEVER if stored is None else NOW - stored.at_ms)  # type: ignore[union-attr]
        assert [c.values[row] for c in plain.columns] == (
            [None] * 5 if stored is None else list(stored.values))  # type: ignore[union-attr]


async def test_a_key_that_is_given_once_is_answered_once() -> None:
    world = FeatureWorld()
    found = await answer(world, "ranking", user_id=["u1"], item_id=["i1", "i2", "i1"], category=["c"])
    assert [(v.name, len(v.states)) for v in found.views] == [
        ("user_activity", 1), ("item_activity", 3), ("user_category_activity", 1), ("item_attributes", 3)]
    assert found.ask.rows == 3
    both = await answer(world, "ranking", user_id=["u1"], item_id=["i1"], category=["a", "b"])
    assert [len(v.states) for v in both.views] == [1, 1, 2, 1]


async def test_the_age_is_that_of_the_newest_event() -> None:
    world = FeatureWorld()
    found = await answer(world, item_id=["i1", "none"], at_ms=NOW + 60_000)
    packed = world.rows.stored["item_activity"]["i1",]
    state = tiles.unpack(layout_of(PLAN.view("item_activity")), packed)  # type: ignore[arg-type]
    assert state is not None
    assert found.views[0].ages_ms.tolist() == [NOW + 60_000 - state.arrival, NEVER]


async def test_while_the_store_is_away_the_last_known_then_the_declared_default() -> None:
    world = FeatureWorld()
    before = await answer(world, item_id=["i1", "i2"])
    world.now += 5_000
    world.rows.down = True
    found = await answer(world, item_id=["i2", "i4", "i2"], at_ms=NOW)
    assert found.stale
    assert found.degraded == ("store_down",)
    assert state_names(found) == state_names(found, 1) == ["STALE", "DEFAULT", "STALE"]
    assert found.views[0].reads_ms_ago.tolist() == [5_000, NEVER, 5_000]
    for old, new in zip(before.views[0].columns, found.views[0].columns, strict=True):
        np.testing.assert_array_equal(new.values[0], old.values[1])
    plain = {c.name: c.values.tolist() for c in found.views[1].columns}
    assert plain["adult"] == [False, True, False], "declared: unknown counts as adult"
    assert plain["price_cents"] == [102, None, 102]


async def test_it_leaves_an_absent_store_alone_and_recovers_by_itself() -> None:
    world = FeatureWorld()
    world.rows.down = True
    for _ in range(3):
        await answer(world, item_id=["i1"])
    assert world.answers.away
    world.rows.down = False
    assert state_names(await answer(world, item_id=["i1"])) == ["DEFAULT"], "the breaker rests"
    world.now += 1_500
    await world.answers.probe()
    assert not world.answers.away
    found = await answer(world, item_id=["i1", "none"])
    assert state_names(found) == ["PRESENT", "MISSING"]
    assert not found.stale


async def test_a_store_that_came_back_empty_proves_nothing() -> None:
    world = FeatureWorld()
    await answer(world, item_id=["i1"])
    for view in world.rows.stored.values():
        view.clear()
    world.rows.whole = False
    world.rows.stored["item_activity"]["i3",] = FeatureWorld().rows.stored["item_activity"]["i3",]
    found = await answer(world, item_id=["i1", "i2", "i3"])
    assert state_names(found) == ["STALE", "DEFAULT", "PRESENT"]
    assert found.degraded == ("store_incomplete",)
    world.rows.whole = True
    assert state_names(await answer(world, item_id=["i1"])) == ["MISSING"]
    world.rows.down = True
    assert state_names(await answer(world, item_id=["i1"])) == ["DEFAULT"], "what is known to be gone is forgotten"


async def test_tiles_of_another_feature_set_are_no_values() -> None:
    world = FeatureWorld()
    world.rows.stored["item_activity"]["i1",] = world.rows.stored["user_activity"]["u1",]
    assert state_names(await answer(world, item_id=["i1", "i2"])) == ["DEFAULT", "PRESENT"]


def test_what_is_kept_is_bounded_and_the_longest_unread_goes_first() -> None:
    kept = LastKnown(most_bytes=3 * 500)
    for i in range(5):
        kept.keep("v", [(f"k{i}",)], [b"x" * 100], i)
        kept.keep("v", [("k0",)], [b"x" * 100], i)
    assert kept.bytes <= 1500
    assert [kept.find("v", (f"k{i}",)) is not None for i in range(5)] == [True, False, False, True, True]
    kept.keep("v", [("k0",), ("k3",)], [None, Attributes(0, (1,))], 9)
    assert kept.find("v", ("k0",)) is None
    assert kept.bytes == 500 + 464


async def test_too_many_at_once_are_shed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "AT_ONCE", 0)
    with pytest.raises(Overloaded):
        await answer(FeatureWorld(), item_id=["i1"])


@pytest.mark.parametrize(("service", "features", "entities", "kind", "field", "says"), [
    ("", [], {}, BadInput, "feature_service", "either"),
    ("ranking", ["item_activity"], {}, BadInput, "feature_service", "not both"),
    ("rankings", [], {}, NotFound, "feature_service", "there are ranking, "),
    ("ranking@0123", [], {}, NotFound, "feature_service", "versions are"),
    ("", ["nothing"], {}, NotFound, "features", "views are user_activity"),
    ("", ["item_activity:nothing"], {}, NotFound, "features", "it has item_impressions_count_5m"),
    ("item_profile", [], {}, BadInput, "entities.item_id", "once for all"),
    ("item_profile", [], {"item_id": ["i"], "user_id": ["u"]}, BadInput, "entities", "'user_id' is no join key"),
    ("", ["user_category_activity"], {"user_id": ["a", "b"], "category": ["c"] * 3}, BadInput, "entities.user_id",
     "allowed: 1 or 3"),
    ("item_profile", [], {"item_id": ["x" * 129]}, BadInput, "entities.item_id", "128"),
    ("item_profile", [], {"item_id": ["x"] * 2001}, TooLarge, "entities", "2000"),
])
def test_what_cannot_be_answered_is_refused_by_name(service: str, features: list[str], entities: dict[str, list[str]],
                                                    kind: type[Exception], field: str, says: str) -> None:
    with pytest.raises(kind, match=says) as refused:
        FeatureWorld().asks.ask(service, features, entities, None, NOW)
    assert refused.value.field == field  # type: ignore[attr-defined]


@pytest.mark.parametrize("at_ms", [NOW - 3_600_001, NOW + 300_001])
def test_moments_far_from_now_are_refused(at_ms: int) -> None:
    with pytest.raises(BadInput, match="point_in_time"):
        FeatureWorld().asks.ask("item_profile", [], {"item_id": ["i1"]}, at_ms, NOW)


# Versions


def test_a_version_changes_with_the_meaning_of_its_features_and_with_nothing_else() -> None:
    first = compile_services(PLAN)
    view = PLAN.view("item_activity")
    more = msgspec.structs.replace(view, declared=(*view.declared, msgspec.structs.replace(
        view.declared[0], name="item_impressions_count_new")))
    others = tuple(v for v in PLAN.declared_views if v.name != "item_activity")
    grown = compile_services(msgspec.structs.replace(PLAN, declared_views=(more, *others)), first)
    old, new = first.newest["item_profile"], grown.newest["item_profile"]
    assert old.version != new.version
    assert grown.resolve(old.ref) == old, "whoever is pinned goes on being served"
    assert grown.newest["shopper_profile"] == first.newest["shopper_profile"]
    changed = msgspec.structs.replace(view, declared=tuple(
        msgspec.structs.replace(f, window="24h") if f.window == "1h" and f.function == "count" else f
        for f in view.declared))
    after = compile_services(msgspec.structs.replace(PLAN, declared_views=(changed, *others)), grown)
    with pytest.raises(LookupError, match=after.newest["item_profile"].version):
        after.resolve(old.ref)


def test_choices_of_features() -> None:
    found = chosen(PLAN, ["item_attributes:adult", "item_activity:item_clicks_count_1h", "item_attributes:seller_id"])
    assert found == (Projection(view="item_attributes", features=("adult", "seller_id")),
                     Projection(view="item_activity", features=("item_clicks_count_1h",)))
    assert version_of(PLAN, "a", found).version != version_of(PLAN, "a", reversed(found)).version
    assert whole(PLAN, "item_attributes").features[0] == "item_category"


def test_a_model_whose_service_is_gone_is_named(tmp_path: Any) -> None:
    services = compile_services(PLAN)
    good = services.newest["ranking"].ref
    assert unanswerable(services, {good: ["ranker@3"], "ranking@gone": ["ranker@2"]}) == [
        "ranker@2 was trained on ranking@gone"]
    assert pins(tmp_path / "nothing published") == {}


# Edges


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with FeatureWorld().client() as found:
        yield found


async def test_over_http(client: httpx.AsyncClient) -> None:
    body = {"feature_service": "item_profile", "entities": {"item_id": ["i1", "none"]}}
    reply = (await client.post("/v1/features", json=body)).json()
    assert (reply["rows"], reply["stale"], reply["degraded"]) == (2, False, [])
    assert reply["feature_service"] == compile_services(PLAN).newest["item_profile"].ref
    windows, plain = reply["views"]
    assert windows["states"] == ["present", "missing"]
    assert windows["ages_ms"][1] is None
    assert isinstance(windows["values"]["item_clicks_count_7d"][0], int)
    assert plain["values"]["price_cents"] == [101, None]
    listed = (await client.get("/v1/feature-services")).json()
    assert {s["name"] for s in listed} == {s.name for s in PLAN.services}
    assert next(s for s in listed if s["name"] == "item_profile")["join_keys"] == ["item_id"]


async def test_refusals_over_http_are_problem_documents(client: httpx.AsyncClient) -> None:
    refused = await client.post("/v1/features", json={"feature_service": "ranking@0", "entities": {"user_id": ["u"]}})
    assert refused.status_code == 404
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["errors"][0]["field"] == "feature_service"


async def test_over_grpc_it_is_the_same_answer() -> None:
    world = FeatureWorld()
    (port,) = free_ports(1)
    server = await start(world.rpc(), f"127.0.0.1:{port}")
    client = FeatureClient(f"127.0.0.1:{port}", timeout_s=20)
    entities = {"user_id": ["u1"], "item_id": ["i1", "none", "i1"], "category": ["c"]}
    try:
        found = await client.features("ranking", entities)
        direct = await answer(world, "ranking", **entities)
        assert found.feature_service == direct.ask.ref
        for view in direct.views:
            assert found.states[view.name] == [State(s).name.lower() for s in view.states.tolist()]
            assert found.ages_ms[view.name] == view.ages_ms.tolist()
            for column in view.columns:
                assert repr(found.columns[column.name].tolist()) == repr(column.values.tolist()), column.name
        assert {s.name for s in await client.services()} == {s.name for s in PLAN.services}
        with pytest.raises(NotFound, match="feature_service: feature service 'ranking' has no version"):
            await client.features("ranking@0", entities)
        with pytest.raises(BadInput, match="user_id"):
            await client.features("ranking", {})
    finally:
        await server.stop(None)
    with pytest.raises(Unavailable):
        await client.features("ranking", entities)
    await client.close()


async def test_a_stop_finishes_what_is_in_progress_and_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    world, begun, go_on = FeatureWorld(), asyncio.Event(), asyncio.Event()
    read = world.rows.read

    async def slow(asked: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await read(asked)

    monkeypatch.setattr(world.rows, "read", slow)
    (port,) = free_ports(1)
    server = await start(world.rpc(), f"127.0.0.1:{port}")
    client = FeatureClient(f"127.0.0.1:{port}", timeout_s=20)
    asked = asyncio.create_task(client.features("item_profile", {"item_id": ["i1"]}))
    await begun.wait()
    stopped = asyncio.create_task(server.stop(20))
    await asyncio.sleep(0)
    late = FeatureClient(f"127.0.0.1:{port}", timeout_s=20)
    with pytest.raises(Unavailable):
        await late.features("item_profile", {"item_id": ["i1"]})
    go_on.set()
    assert (await asked).states["item_activity"] == ["present"]
    await stopped
    await client.close()
    await late.close()
