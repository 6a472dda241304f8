"""One more line in `features.py` is all that a new feature takes: it is in the stream, the SQL, the training columns,
the listing and Feast."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from adapters import event_lake
from adapters.feature_state import Progress
from adapters.kafka import Record
from feature_repo import events, tiles
from feature_repo.plan import FeaturePlan
from pipelines.point_in_time import service_at
from services.stream_features.shard import Engine, Shard

T0 = 1_790_000_000_000
BEFORE = '        over("click_price", "max", "1h 24h 7d"),\n'
ADDED = '        over("click_price", "std", "24h"),\n'
NAME = "user_click_price_std_24h"
PRICES = (100, 300, 500)


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The declarations with one line more."""
    text = (Path(__file__).parents[2] / "feature_repo" / "features.py").read_text()
    assert text.count(BEFORE) == 1
    assert ADDED not in text
    path = tmp_path_factory.mktemp("features") / "features.py"
    path.write_text(text.replace(BEFORE, BEFORE + ADDED))
    spec = importlib.util.spec_from_file_location("features_with_one_more", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def plan(declared: ModuleType) -> FeaturePlan:
    return FeaturePlan.parse(declared.PLAN.dump())


def clicks() -> list[Record]:
    made = [events.ProductClicked(event_id=f"e{i}", event_time=T0 + i, user_id="u1", item_id="i1", category="tea",
                                  price_cents=price) for i, price in enumerate(PRICES)]
    return [Record("shop.clicks", 0, i, T0 + i, "u1", events.encode(e)) for i, e in enumerate(made)]


def test_the_stream_keeps_it(plan: FeaturePlan) -> None:
    shard = Shard(Engine(plan, 1), 0, "token", Progress())
    shard.read("shop.clicks", clicks())
    batch = shard.apply([(key, None) for key in shard.missing()])
    found = tiles.windows(plan.view("user_activity"), batch.states["user_activity", ("u1",)], T0 + 10)
    assert found[NAME] == pytest.approx(np.std(PRICES), rel=1e-12)


def test_a_training_set_has_its_column_by_sql(plan: FeaturePlan, tmp_path: Path) -> None:
    table, _ = event_lake.to_table("shop.clicks", clicks())
    event_lake.write_part(tmp_path, "shop.clicks", 0, 0, 2, T0, table)
    keys = {"user_id": np.array(["u1", "u1"]), "item_id": np.array(["i1", "i1"]), "category": np.array(["tea", "tea"])}
    found = service_at(tmp_path, plan, "ranking", keys, np.array([T0 + 2, T0 + 10]))
    assert found[NAME].tolist() == pytest.approx([np.std(PRICES[:2]), np.std(PRICES)], rel=1e-12)
    assert set(found) == {f for view in plan.service("ranking").views if view in plan.views
                          for f in plan.view(view).features}


def test_the_listing_says_what_it_is_whose_it_is_and_who_reads_it(plan: FeaturePlan) -> None:
    (found,) = [f for f in plan.listing() if f.name == NAME]
    assert (found.view, found.entity, found.dtype, found.owner) == ("user_activity", "user", "float64", "features")
    assert found.meaning == "standard deviation of click price in 24h"
    assert (found.topics, found.services) == (("shop.clicks",), ("ranking", "shopper_profile"))
    assert found.freshness_sla_s > 0


def test_feast_serves_it_and_the_feature_set_has_another_version(declared: ModuleType, plan: FeaturePlan) -> None:
    from feature_repo import features

    (windows,) = [o for o in declared.OBJECTS if o.name == "user_activity_windows"]
    assert NAME in {f.name for f in windows.schema}
    assert plan.sha256 != features.PLAN.sha256
    assert len(plan.listing()) == len(features.PLAN.listing()) + 1
