"""From a tiny lake to verified bundles; a second run does nothing; a failed gate leaves what serves alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from adapters.bundle_archive import ARCHIVE
from adapters.bundles import load_bundle
from adapters.errors import Corrupt, Misconfigured
from adapters.past_runs import PastRuns
from adapters.pointers import CURRENT, load_current
from adapters.registry import open_registry
from feature_repo.service_versions import FILE, FeatureServices
from models import onnx_export
from models.ann_index import AnnIndex
from models.cooccurrence import Cooccurrence
from models.ranking_features import FEATURES
from pipelines import publish
from pipelines.apply_features import compile_plan
from pipelines.build_dataset import load_rows
from pipelines.choose_forms import LOSE
from pipelines.rankers import FORMS, load_booster, scores_of
from pipelines.repeat import repeat
from pipelines.run_all import STEPS, bring
from pipelines.seed_history import seed
from pipelines.stages import Context, choose_window
from settings import Settings

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home, sim_shoppers=250, sim_items=200, sim_days=7, threads=1, triton_grpc="127.0.0.1:9")
    seed(settings, as_of_ms=1_767_225_600_000)
    settings.features.mkdir(parents=True, exist_ok=True)
    compile_plan(settings.features)
    context = Context(settings, lambda text: None)
    bring(context)
    return context


def test_bundles_are_what_serving_expects(context: Context) -> None:
    bundles = load_current(context.settings.published)
    assert set(bundles) == {"two-tower", "index", "cooccurrence", "popularity", "preranker", "ranker"}
    towers, items = bundles["two-tower"], bundles["index"].path("items.txt").read_text().splitlines()
    assert bundles["index"].manifest.meta["encoder_version"] == towers.version
    shopper = {"user_index": np.array([0, 1]), "recent_items": np.zeros((2, 20), dtype=np.int64)}
    query = onnx_export.run(towers.path("user_encoder.onnx").read_bytes(), shopper)
    assert query.shape == (2, 64)
    index = AnnIndex.load(bundles["index"].path("items.faiss"))
    assert len(index) == len(items) == len(towers.path("items.txt").read_text().splitlines())
    first = {"item_index": np.array([1]), "category_index": np.array([0]), "log_price": np.array([8.0], np.float32)}
    assert onnx_export.run(towers.path("item_encoder.onnx").read_bytes(), first).shape == (1, 64)
    assert len(Cooccurrence.load(bundles["cooccurrence"].path("neighbours.npz")).ids) == len(items)
    with np.load(bundles["popularity"].path("popularity.npz")) as popularity:
        assert popularity["scores"].shape == (len(items),)
    pinned = FeatureServices.load(context.settings.features / FILE).newest["ranking"].ref
    for name in ("preranker", "ranker"):
        assert bundles[name].manifest.meta["feature_service"] == pinned
        assert json.loads(bundles[name].path("features.json").read_text()) == list(FEATURES)
        rows = np.full((4, len(FEATURES)), np.nan, dtype=np.float32)
        scores = onnx_export.run(bundles[name].path("model.onnx").read_bytes(), {"features": rows})
        assert scores.shape == (4, 1)


def test_the_form_that_kept_its_quality_serves(context: Context) -> None:
    backtest, production = context.stage("backtest"), context.stage("production")
    rows = load_rows(backtest)[0].features[:500]
    for name, bundle in load_current(context.settings.published).items():
        if name not in ("preranker", "ranker"):
            continue
        tried = json.loads(backtest.path(FORMS).read_text())[name]
        assert tried["form"] == ("student" if tried["student"] >= (1 - LOSE) * tried["trees"] else "trees")
        assert bundle.manifest.meta["form"] == tried["form"], "production takes what the backtest chose"
        trees, served = load_booster(production, name).predict(rows), scores_of(production, name, rows)
        same = onnx_export.max_difference(served.astype(np.float32), trees) < 1e-4
        assert same == (tried["form"] == "trees"), "model.txt holds the trees either way"
        assert np.corrcoef(served, trees)[0, 1] > 0.5
        assert abs(served.mean() - trees.mean()) < trees.std(), "a student speaks on its teacher's scale"


def test_triton_and_the_registry_hold_the_same_versions(context: Context) -> None:
    bundles = load_current(context.settings.published)
    registry = open_registry("", context.settings.home)
    for model, (name, file) in publish.TRITON.items():
        placed = context.settings.triton_models / model
        assert (placed / "config.pbtxt").exists()
        assert (placed / bundles[name].version / "model.onnx").read_bytes() == bundles[name].path(file).read_bytes()
        version, tags = registry.champion(name)
        assert str(version) == bundles[name].version
        assert tags["manifest_sha256"] == bundles[name].manifest_sha256
        assert tags["gate"] == "passed"
        assert {"data_version", "git_commit"} <= set(tags)


def test_the_evaluation_says_how_it_measured(context: Context) -> None:
    report = json.loads(context.stage("backtest").path("evaluation.json").read_text())
    assert {row["model"] for row in report["rows"]} >= {"funnel", "popularity", "two-tower", "co-occurrence", "oracle"}
    assert {"split", "ties", "seen_items"} <= set(report["audit"])
    rows = {row["model"]: row["metrics"]["ndcg@10"]["mean"] for row in report["rows"]}
    assert rows["oracle"] > rows["popularity"]


def test_a_second_run_has_nothing_to_do(context: Context) -> None:
    stamps = context.settings.work / "stamps"
    before = {p.name: p.stat().st_mtime_ns for p in stamps.iterdir()}
    assert len(before) == len(STEPS)
    bring(Context(context.settings, context.say))
    assert {p.name: p.stat().st_mtime_ns for p in stamps.iterdir()} == before


@pytest.mark.parametrize("fault", ["parity", "features", "quality", "torn"])
def test_a_failed_gate_publishes_nothing(context: Context, fault: str) -> None:
    stage = context.stage("production")
    path = {
        "parity": stage.path("ranker/report.json"), "features": stage.path("preranker/features.json"),
        "quality": context.stage("backtest").path("evaluation.json"), "torn": stage.path("ranker/model.onnx"),
    }[fault]  # fmt: skip
    good, current = path.read_bytes(), (context.settings.published / CURRENT).read_bytes()
    bad = {
        "parity": lambda: json.dumps(json.loads(good) | {"parity": 0.1}).encode(),
        "features": lambda: json.dumps(list(FEATURES)[::-1]).encode(),
        "quality": lambda: json.dumps(
            json.loads(good) | {"funnel_minus": {"popularity": {"mean": -0.02, "low": -0.03, "high": -0.01}}}
        ).encode(),
        "torn": lambda: good[: len(good) // 2],
    }[fault]()  # fmt: skip
    path.write_bytes(bad)
    try:
        with pytest.raises(Corrupt, match="nothing was published"):
            publish.run(context, stage)
    finally:
        path.write_bytes(good)
    assert (context.settings.published / CURRENT).read_bytes() == current


def test_no_history_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="seed or import"):
        bring(Context(Settings(home=tmp_path), lambda text: None))


def test_the_window_grows_where_a_day_is_thin() -> None:
    rng = np.random.default_rng(0)
    assert choose_window(rng.integers(0, 30 * DAY_MS, 10_000)) == DAY_MS
    assert choose_window(rng.integers(0, 4000 * DAY_MS, 10_000)) == 112 * DAY_MS


def test_what_serves_is_archived(context: Context) -> None:
    for name, bundle in load_current(context.settings.published).items():
        kept = context.settings.published / ARCHIVE / name / bundle.manifest_sha256
        assert load_bundle(kept, expected_sha256=bundle.manifest_sha256).version == bundle.version


@pytest.mark.parametrize("pipeline", ["train_ranker", "train_two_tower"])
def test_a_run_is_trained_again_the_same(context: Context, tmp_path: Path, pipeline: str) -> None:
    runs = PastRuns("", context.settings.home)
    run_id = next(run for run, name, _ in runs.newest([pipeline]) if name == f"{pipeline} production")
    then, serving = runs.get(run_id), load_current(context.settings.published)["ranker"].version
    assert {"command", "hardware", "environment_sha256", "code_sha256", "inputs_sha256"} <= set(then.tags)
    found, _ = repeat(then, context.settings, tmp_path, checkout=True)
    assert found.same, found
    assert found.circumstances == {}
    assert found.same_models >= 2
    assert load_current(context.settings.published)["ranker"].version == serving, "repeating must change nothing"
