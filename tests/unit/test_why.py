"""Decisions made again: the same from archived models, a changed record or changed bytes are found, words are right."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import lightgbm
import numpy as np
import orjson
import pytest
from structlog.testing import capture_logs

from adapters.bundle_archive import find, keep
from adapters.bundles import Bundle, write_bundle
from adapters.decision_log import DecisionLog
from adapters.errors import Corrupt, NotFound
from adapters.kafka import MemoryPublisher
from adapters.model_server import InProcess
from adapters.web import create_app
from adapters.why import Explainer
from models import onnx_export
from models.contributions import Network, Trees
from models.ranking_features import FEATURES
from services.recommender.admission import Admission
from services.recommender.answers import Answers
from services.recommender.api import add_routes
from services.recommender.lineup import load_lineup
from services.recommender.record import to_record
from services.recommender.terms import Shopper
from tests.unit.recommender_bundles import publish, scorer
from tests.unit.recommender_world import BUDGETS, NOW, FakeShoppers, ask, catalogue_of, recommender_of, shelf_of

PLENTY = dict.fromkeys(BUDGETS, 10_000.0)


class KnownShopper(FakeShoppers):
    async def who(self, *_: Any) -> Shopper:
        return Shopper("u1", {"user_clicks_count_1h": 3.0}, ("i7", "i9", "i12", "i20", "i31", "i44"), seen_before=True)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.fixture(scope="module")
def booster() -> Any:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(400, len(FEATURES)))
    labels = rows[:, FEATURES.index("popularity_score")] + rows[:, FEATURES.index("two_tower_score")] > 0
    settings = {"objective": "regression", "num_leaves": 7, "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
    return lightgbm.train(settings, lightgbm.Dataset(rows, labels.astype(float)), num_boost_round=12)


def a_set(tmp_path: Path, booster: Any, version: str = "1") -> dict[str, Bundle]:
    """A published set whose ranker is a LightGBM model in both forms."""
    published = tmp_path / "published"
    bundles = publish(published, tmp_path / "scratch", version, current=False)
    files = {
        "model.onnx": onnx_export.trees(booster, len(FEATURES)), "model.txt": booster.model_to_string().encode(),
        "features.json": json.dumps(list(FEATURES)).encode(),
    }  # fmt: skip
    shutil.rmtree(bundles["ranker"].folder)
    bundles["ranker"] = write_bundle(published, "ranker", version, files, {}, gate="passed")
    return bundles


async def a_record(bundles: dict[str, Bundle], **changes: Any) -> dict[str, Any]:
    models = InProcess()
    shelf = shelf_of(load_lineup(bundles, models), catalogue_of(60, out_of_stock=2, new=6))
    wiring = {"models": models, "shoppers": KnownShopper(), "budgets_ms": PLENTY} | changes
    decision = await recommender_of(shelf, **wiring).recommend(ask())
    record: dict[str, Any] = orjson.loads(orjson.dumps(to_record(decision), option=orjson.OPT_SERIALIZE_NUMPY))
    await models.close()
    return record


def outcomes(why: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["outcome"] for check in why["checks"]}


async def test_a_decision_is_made_again_the_same(tmp_path: Path, booster: Any) -> None:
    record = await a_record(a_set(tmp_path, booster))
    why = Explainer(tmp_path / "published").explain(record)
    assert why["outcome"] == "same", why["checks"]
    assert set(outcomes(why)) == {
        "model files", "feature rows", "shopper's embedding", "features made again", "pre-ranker's scores",
        "cut after pre-ranking", "ranker's scores", "rules, in order",
    }  # fmt: skip
    assert [item["item_id"] for item in why["items"]] == [item["item_id"] for item in record["items"]]


async def test_replaced_versions_are_made_again_from_the_archive(tmp_path: Path, booster: Any) -> None:
    bundles = a_set(tmp_path, booster)
    record = await a_record(bundles)
    keep(tmp_path / "published", bundles)
    for bundle in bundles.values():
        shutil.rmtree(bundle.folder)
    assert Explainer(tmp_path / "published").explain(record)["outcome"] == "same"


async def test_without_its_models_a_decision_says_what_is_missing(tmp_path: Path, booster: Any) -> None:
    bundles = a_set(tmp_path, booster)
    record = await a_record(bundles)
    shutil.rmtree(bundles["ranker"].folder)
    why = Explainer(tmp_path / "published").explain(record)
    assert why["outcome"] == "cannot"
    problem = next(m["problem"] for m in why["models"] if m["name"] == "ranker")
    assert "neither published nor archived" in problem
    assert outcomes(why)["pre-ranker's scores"] == "cannot"


async def test_other_bytes_than_those_that_served_are_a_difference(tmp_path: Path, booster: Any) -> None:
    bundles = a_set(tmp_path, booster)
    record = await a_record(bundles)
    bundles["ranker"].path("model.onnx").write_bytes(b"other")
    why = Explainer(tmp_path / "published").explain(record)
    assert outcomes(why)["model files"] == "different"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda r: r["rank"]["scores"].__setitem__(3, 9.0), "ranker's scores"),
        (lambda r: r["prerank"]["scores"].__setitem__(0, -9.0), "cut after pre-ranking"),
        (lambda r: r["rerank"].reverse(), "rules, in order"),
        (lambda r: r["rules"]["promoted"].append(r["rules"]["item_ids"][15]), "rules, in order"),
        (lambda r: r["rules"]["adult"].append(r["rules"]["item_ids"][0]), "rules, in order"),
        (lambda r: r["rules"].update(liked=[r["rules"]["categories"][-1]] * 20), "rules, in order"),
        (lambda r: r["user_features"].update(user_clicks_count_1h=4.0), "features made again"),
        (lambda r: r.update(user_id="u2"), "shopper's embedding"),
    ],
)
async def test_a_changed_record_is_found(tmp_path: Path, booster: Any, change: Any, found: str) -> None:
    record = await a_record(a_set(tmp_path, booster))
    changed = copy.deepcopy(record)
    change(changed)
    why = Explainer(tmp_path / "published").explain(changed)
    assert outcomes(why)[found] == "different", why["checks"]
    assert why["outcome"] == "different"


async def test_an_older_record_says_what_it_lacks(tmp_path: Path, booster: Any) -> None:
    record = await a_record(a_set(tmp_path, booster))
    for name in ("manifests", "rules", "query"):
        del record[name]
    why = Explainer(tmp_path / "published").explain(record)
    assert outcomes(why)["ranker's scores"] == "same"
    assert outcomes(why)["rules, in order"] == outcomes(why)["shopper's embedding"] == "cannot"
    assert why["outcome"] == "cannot"


async def test_a_stage_that_was_left_out_is_said_and_the_rules_still_made_again(tmp_path: Path, booster: Any) -> None:
    record = await a_record(a_set(tmp_path, booster), budgets_ms=PLENTY | {"rank": 1e-9})
    why = Explainer(tmp_path / "published").explain(record)
    assert "rank_skipped" in next(c["detail"] for c in why["checks"] if c["name"] == "ranker's scores")
    assert outcomes(why)["rules, in order"] == "same"


async def test_what_sold_out_while_answering_is_no_difference(tmp_path: Path, booster: Any) -> None:
    asked: dict[str, int] = {}

    def in_stock(item: str) -> bool:  # the first product sells out after the stock rule looked
        asked[item] = asked.get(item, 0) + 1
        return not (item == first and asked[item] > 1)

    bundles = a_set(tmp_path, booster)
    first = (await a_record(bundles))["items"][0]["item_id"]
    record = await a_record(bundles, in_stock=in_stock)
    assert {"item_id": first, "rule": "sold_out"} in record["dropped"]
    assert Explainer(tmp_path / "published").explain(record)["outcome"] == "same"


async def test_the_words_tell_the_way_and_what_lifted_it(tmp_path: Path, booster: Any) -> None:
    record = await a_record(a_set(tmp_path, booster))
    why = Explainer(tmp_path / "published").explain(record, title=lambda i: f"Product {i}", also=["i50"])
    first = why["items"][0]
    text = " ".join(first["words"])
    assert first["title"] == f"Product {first['item_id']}"
    assert "Shown at place 1 of 20." in text
    assert "put it at" in text
    assert "ifted most by" in text or "owered most by" in text
    assert any(move["words"] for item in why["items"] for move in item["moves"])
    asked = next(item for item in why["items"] if item["item_id"] == "i50")
    assert asked["position"] is not None or "It was not shown." in asked["words"]
    assert why["answered_by"].startswith("The champion's models answered")
    during = Explainer(tmp_path / "published").explain(record | {"arm": "canary", "rollout": "r7"})
    assert "challenger" in during["answered_by"]
    json.dumps(why)


async def test_the_recommender_answers_with_the_record_and_why(tmp_path: Path, booster: Any) -> None:
    bundles, models = a_set(tmp_path, booster), InProcess()
    shelf = shelf_of(load_lineup(bundles, models), catalogue_of(60, new=6))
    log = DecisionLog(MemoryPublisher(), tmp_path / "lake")
    app = create_app("recommender", title="test", ready=dict)
    recommender = recommender_of(shelf, models=models, shoppers=KnownShopper(), budgets_ms=PLENTY)
    explain = Explainer(tmp_path / "published").explain
    add_routes(app, Answers(recommender, Admission(), lambda: NOW), log, explain=explain)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = (await client.post("/v1/recommendations", json={"user_id": "u1"})).json()
        found = (await client.get(f"/v1/decisions/{answer['request_id']}")).json()
    assert found["request_id"] == answer["request_id"]
    assert found["why"]["outcome"] == "same", found["why"]["checks"]
    assert [i["item_id"] for i in found["why"]["items"]] == [i["item_id"] for i in answer["items"]]
    log.close()
    await models.close()


def test_a_record_of_another_shape_is_no_crash(tmp_path: Path) -> None:
    why = Explainer(tmp_path).explain({"request_id": "r", "model_versions": {}})
    assert why["outcome"] == "cannot"


def a_network(rows: np.ndarray) -> np.ndarray:
    """A student of three features: a sum, a product, and what is missing counts as the average, 0."""
    known = np.nan_to_num(rows)
    return 2 * known[:, 0] + known[:, 1] * known[:, 2] + 5


def test_what_features_added_to_a_network_adds_up_and_treats_equals_alike() -> None:
    rows = np.array([[1.0, 3.0, 2.0, 7.0], [-1.0, np.nan, 2.0, 1.0]], np.float32)
    found = Network(a_network).of(rows)
    np.testing.assert_allclose(found.by_feature.sum(axis=1) + found.base, a_network(rows), atol=1e-6)
    np.testing.assert_allclose(found.by_feature, [[2, 3, 3, 0], [-2, 0, 0, 0]], atol=1e-6)
    assert found.base == 5


async def test_a_student_is_explained_by_itself_not_by_its_teacher(tmp_path: Path, booster: Any) -> None:
    bundles = a_set(tmp_path, booster)
    files = {file: bundles["ranker"].path(file).read_bytes() for file in bundles["ranker"].manifest.files}
    shutil.rmtree(bundles["ranker"].folder)
    files["model.onnx"] = scorer(2.0)
    bundles["ranker"] = write_bundle(tmp_path / "published", "ranker", "1", files, {"form": "student"}, gate="passed")
    why = Explainer(tmp_path / "published").explain(await a_record(bundles))
    assert why["outcome"] == "same", why["checks"]
    for item in why["items"]:
        added = {feature["name"]: feature["contribution"] for feature in item["features"]}
        assert added.keys() <= {"popularity_score"}
        assert sum(added.values()) == pytest.approx(item["score"], abs=1e-4)


def test_contributions_add_up_to_the_score(tmp_path: Path, booster: Any) -> None:
    booster.save_model(str(tmp_path / "model.txt"))
    rows = np.random.default_rng(5).normal(size=(9, len(FEATURES))).astype(np.float32)
    found = Trees(tmp_path / "model.txt").of(rows)
    np.testing.assert_allclose(found.by_feature.sum(axis=1) + found.base, booster.predict(rows))


def test_text_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("nothing of the kind")
    with pytest.raises(ValueError, match="not a LightGBM model"):
        Trees(tmp_path / "model.txt")


def test_the_archive_keeps_a_version_once_and_checks_it(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, "ranker", "7", {"a.txt": b"seven"}, {}, gate="passed")
    keep(tmp_path, {"ranker": bundle})
    keep(tmp_path, {"ranker": bundle})
    shutil.rmtree(bundle.folder)
    assert find(tmp_path, "ranker", "7", bundle.manifest_sha256).path("a.txt").read_bytes() == b"seven"
    assert find(tmp_path, "ranker", "7").manifest_sha256 == bundle.manifest_sha256
    with pytest.raises(NotFound):
        find(tmp_path, "ranker", "8")
    find(tmp_path, "ranker", "7").path("a.txt").write_bytes(b"eight")
    with pytest.raises(Corrupt, match="digest"):
        find(tmp_path, "ranker", "7", bundle.manifest_sha256)
