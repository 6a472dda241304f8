"""Published models are verified, warmed and swapped in one step; a damaged set is refused and the old one stays."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from structlog.testing import capture_logs

from adapters.kafka import MemoryPublisher
from adapters.model_server import InProcess
from adapters.pointers import Rollout, set_rollout
from feature_repo.events import SHADOW, ItemListed
from models.ranking_features import FEATURES, ITEM
from models.rerank import RULES
from models.rollout.shares import arm_of
from models.rollout.state import Ref
from services.recommender.keeper import Keeper
from services.recommender.recommend import Recommender
from services.recommender.shadow import Shadow
from services.recommender.sources import SOURCES
from services.recommender.terms import Ask
from tests.unit.recommender_bundles import publish
from tests.unit.recommender_world import BUDGETS, NOW, FakeShoppers, ask, catalogue_of, listed


class FakeCatalogue:
    def __init__(self, items: list[ItemListed]) -> None:
        self.items = {item.item_id: item for item in items}
        self.version = 1
        self.ready = True
        self.changes: list[str] = []

    def get(self, item_id: str) -> ItemListed | None:
        return self.items.get(item_id)

    def snapshot(self) -> tuple[ItemListed, ...]:
        return tuple(self.items.values())

    def add(self, item: ItemListed) -> None:
        self.items[item.item_id] = item
        self.changes.append(item.item_id)
        self.version += 1

    def changes_since(self, version: int) -> dict[str, ItemListed | None] | None:
        return None if version < 1 else {name: self.items.get(name) for name in self.changes[version - 1 :]}


class FakeWindows:
    ready = True
    items: tuple[str, ...] = ("i5", "i3")

    def row_of(self, item_id: str) -> int:
        return self.items.index(item_id) if item_id in self.items else -1

    def columns(self, now_ms: int) -> dict[str, Any]:
        return {name: np.array([500.0, 300.0]) for name in ITEM}

    def age_s(self) -> float:
        return 0.5


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.fixture
def catalogue() -> FakeCatalogue:
    return FakeCatalogue(catalogue_of(60))


@pytest.fixture
def keeper(tmp_path: Path, catalogue: FakeCatalogue) -> Keeper:
    return Keeper(tmp_path / "published", catalogue, FakeWindows(), InProcess(), clock=lambda: NOW)


def republish(tmp_path: Path, version: str, **changes: Any) -> None:
    publish(tmp_path / "published", tmp_path / "scratch", version, **changes)


def recommender_of(keeper: Keeper, models: InProcess) -> Recommender:
    return Recommender(keeper.choose, FakeShoppers(), models, SOURCES, RULES, keeper.in_stock, lambda: False,
                       BUDGETS, "f" * 12)


def test_before_anything_is_published_it_is_not_ready_and_says_what_to_do(keeper: Keeper) -> None:
    keeper.tick()
    assert "make demo" in keeper.missing()["models"]
    assert keeper.shelf.table.sellable.sum() == 60


def test_a_published_set_comes_into_use(tmp_path: Path, keeper: Keeper) -> None:
    republish(tmp_path, "1")
    keeper.tick()
    assert keeper.missing() == {}
    assert set(keeper.shelf.lineup.versions.values()) == {"1"}
    assert keeper.shelf.lineup.complete


async def test_a_swap_under_way_answers_whole_from_one_version(tmp_path: Path, keeper: Keeper) -> None:
    republish(tmp_path, "1")
    keeper.tick()
    recommender = recommender_of(keeper, keeper._in_process)
    first = await recommender.recommend(ask())
    republish(tmp_path, "2", weight=-1.0)
    keeper.tick()
    second = await recommender.recommend(ask())
    assert {first.model_versions["ranker"], second.model_versions["ranker"]} == {"1", "2"}
    assert set(second.model_versions.values()) == {"2", "f" * 12}
    assert first.degraded == second.degraded == ()
    assert keeper._in_process.infer_now("ranker", "1", {"features": np.zeros((1, len(FEATURES)), np.float32)})


@pytest.mark.parametrize("harm", ["torn", "swapped", "wrong encoder", "wrong features", "nan", "not json"])
def test_a_damaged_set_is_refused_and_the_old_one_stays(tmp_path: Path, keeper: Keeper, harm: str) -> None:
    republish(tmp_path, "1")
    keeper.tick()
    published = tmp_path / "published"
    match harm:
        case "wrong encoder":
            republish(tmp_path, "2", encoder_version="1")
        case "wrong features":
            republish(tmp_path, "2", features=FEATURES[::-1])
        case "nan":
            republish(tmp_path, "2", weight=float("nan"))
        case _:
            republish(tmp_path, "2")
            files = {"torn": "ranker/2/model.onnx", "swapped": "index/2/items.txt", "not json": "CURRENT.json"}
            path = published / files[harm]
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    keeper.tick()
    assert set(keeper.shelf.lineup.versions.values()) == {"1"}
    assert keeper.notes()["refused_models"]
    assert keeper.missing() == {}
    republish(tmp_path, "3")
    keeper.tick()
    assert set(keeper.shelf.lineup.versions.values()) == {"3"}
    assert keeper.notes() == {}


def roll(tmp_path: Path, percent: int, challenger: str | None = "2", **changes: Any) -> None:
    """Point ROLLOUT.json at the set `challenger`."""
    refs = None
    if challenger:
        refs = {path.parent.parent.name: Ref(challenger, hashlib.sha256(path.read_bytes()).hexdigest())
                for path in (tmp_path / "published").glob(f"*/{challenger}/manifest.json")}
    pointer = Rollout(rollout="r-1", salt="r-1", challenger=refs, canary_percent=percent, state="canary_5", **changes)
    set_rollout(tmp_path / "published", pointer)


async def test_arms_are_answered_by_their_own_versions_and_never_by_a_mixture(tmp_path: Path, keeper: Keeper) -> None:
    republish(tmp_path, "1")
    republish(tmp_path, "2", weight=-1.0, current=False)
    roll(tmp_path, 25)
    keeper.tick()
    recommender, seen = recommender_of(keeper, keeper._in_process), dict[str, int]()
    for user in (f"u{i}" for i in range(60)):
        decision = await recommender.recommend(Ask("r", user, NOW, 20))
        arm = arm_of(user, "r-1", 25)
        expected = "2" if arm == "canary" else "1"
        assert (decision.arm, decision.rollout) == (arm, "r-1")
        assert set(decision.model_versions.values()) == {expected, "f" * 12}
        seen[arm] = seen.get(arm, 0) + 1
    assert seen.keys() == {"champion", "control", "canary"}


@pytest.mark.parametrize("harm", ["ungated", "bypassed", "torn", "nan", "wrong features", "lacks one"])
def test_a_bad_challenger_is_refused_and_the_champion_answers_everyone(
    tmp_path: Path, keeper: Keeper, harm: str
) -> None:
    republish(tmp_path, "1")
    keeper.tick()
    changes: dict[str, dict[str, Any]] = {
        "ungated": {"gate": "failed"}, "bypassed": {"gate": "bypassed"}, "nan": {"weight": float("nan")},
        "wrong features": {"features": FEATURES[::-1]},
    }  # fmt: skip
    republish(tmp_path, "2", current=False, **changes.get(harm, {}))
    if harm == "lacks one":
        shutil.rmtree(tmp_path / "published" / "preranker" / "2")
    roll(tmp_path, 100, bypass=True)
    if harm == "torn":
        (tmp_path / "published" / "ranker" / "2" / "model.onnx").write_bytes(b"torn")
    keeper.tick()
    assert keeper.refused["challenger"]
    assert {keeper.choose(f"u{i}").arm for i in range(50)} == {"champion"}
    assert set(keeper.shelf.lineup.versions.values()) == {"1"}
    assert keeper.missing() == {}
    assert keeper.describe()["refused"]["challenger"]


def test_going_back_loads_nothing_and_memory_stays_bounded(tmp_path: Path, keeper: Keeper) -> None:
    for version in map(str, range(1, 7)):
        republish(tmp_path, version, current=version == "1")
    keeper.tick()
    for version in map(str, range(2, 7)):
        roll(tmp_path, 50, version)
        keeper.tick()
        assert keeper.choose("u1").arm in ("canary", "control")
        assert len(keeper._lineups) == 2
        assert len(keeper._in_process._sessions) <= 9
    champion = keeper.shelf.lineup
    roll(tmp_path, 0, None)
    shutil.rmtree(tmp_path / "published" / "ranker")  # nothing is read from disk to go back
    keeper.tick()
    assert keeper.shelf.lineup is champion
    assert len(keeper._lineups) == 1


def test_a_rollout_pointer_that_cannot_be_read_means_no_rollout(tmp_path: Path, keeper: Keeper) -> None:
    republish(tmp_path, "1")
    republish(tmp_path, "2", current=False)
    roll(tmp_path, 50)
    keeper.tick()
    (tmp_path / "published" / "ROLLOUT.json").write_text("{")
    keeper.tick()
    assert {keeper.choose(f"u{i}").arm for i in range(50)} == {"champion"}
    assert "refused_rollout" in keeper.notes()


async def test_a_shadow_is_scored_by_the_challenger_and_nobody_sees_it(tmp_path: Path, keeper: Keeper) -> None:
    republish(tmp_path, "1")
    republish(tmp_path, "2", weight=-1.0, current=False)
    roll(tmp_path, 0, shadow=True)
    keeper.tick()
    recommender, sink = recommender_of(keeper, keeper._in_process), MemoryPublisher()
    shadow = Shadow(recommender, lambda: keeper.roles, sink)
    shadow.start()
    decision = await recommender.recommend(ask())
    assert (decision.arm, set(decision.model_versions.values())) == ("champion", {"1", "f" * 12})
    for _ in range(20):
        shadow.offer(decision)  # more than the queue takes: the rest is skipped
    async with asyncio.timeout(10):
        while len(sink.of(SHADOW)) < 8:
            await asyncio.sleep(0.01)
    await shadow.close()
    record = orjson.loads(sink.of(SHADOW)[0].value)
    assert set(record["model_versions"].values()) == {"2", "f" * 12}
    assert (record["request_id"], record["error"], record["rollout"]) == ("r-1", None, "r-1")
    assert 0 <= record["overlap_at_k"] <= 1
    assert len(sink.of(SHADOW)) <= 9


def test_an_item_newer_than_the_index_gets_a_place_in_its_space(
    tmp_path: Path, keeper: Keeper, catalogue: FakeCatalogue
) -> None:
    republish(tmp_path, "1")
    keeper.tick()
    assert keeper.shelf.row("fresh") == -1
    catalogue.add(listed("fresh", age_hours=0.1, category="c2"))
    keeper.tick()
    row = keeper.shelf.row("fresh")
    assert row == 60
    assert keeper.shelf.new[row]
    assert keeper.shelf.new_items.tolist() == [60]
    embeddings = keeper.shelf.embeddings(np.array([3, row]))
    assert embeddings is not None
    np.testing.assert_array_equal(np.argmax(embeddings, axis=1), [3, 3])  # c2 is category 3, 1-based


def test_item_windows_decide_what_is_trending(tmp_path: Path, keeper: Keeper) -> None:
    republish(tmp_path, "1")
    keeper.tick()
    assert keeper.shelf.trending[:3].tolist() == [5, 3, 0]
    activity = keeper.shelf.activity.of(np.array([5, 3, 7]))
    assert activity["item_clicks_count_1h"].tolist() == [500.0, 300.0, 0.0]


async def test_a_failed_tick_is_tried_again_and_the_new_models_are_taken(
    tmp_path: Path, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    republish(tmp_path, "1")
    keeper.tick()
    failed, right = list[int](), FakeWindows.columns

    def fails_once(self: FakeWindows, now_ms: int) -> dict[str, Any]:
        if keeper.shelf.lineup.versions["ranker"] == "1" and len(failed) < 1:
            failed.append(now_ms)
            raise RuntimeError("a bug")
        return right(self, now_ms)

    republish(tmp_path, "2")
    monkeypatch.setattr(FakeWindows, "columns", fails_once)
    keeper.start()
    async with asyncio.timeout(20):
        while keeper.shelf.lineup.versions["ranker"] != "2":
            await asyncio.sleep(0.01)
    keeper.close()
    assert failed


def test_stock_follows_the_live_catalogue(keeper: Keeper, catalogue: FakeCatalogue) -> None:
    assert keeper.in_stock("i1")
    catalogue.add(listed("i1", stock=0))
    assert not keeper.in_stock("i1")
    assert not keeper.in_stock("unheard-of")
