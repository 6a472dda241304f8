"""Six bad rankers: each has its one fault and no other."""

from __future__ import annotations

import json
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from adapters.bundles import Bundle, load_bundle, write_bundle
from models import onnx_export
from models.ranking_features import FEATURES
from pipelines.drills.challengers import SIX, Bad, write

ROWS = 200


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(3)
    rows = rng.normal(0, 1, (ROWS, len(FEATURES))).astype(np.float32)
    rows[:, FEATURES.index("item_log_price")] = rng.uniform(5, 11, ROWS)
    return rows


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory, rows: np.ndarray) -> Bundle:
    rng = np.random.default_rng(4)
    many = np.tile(rows, (5, 1)) + rng.normal(0, 0.1, (5 * ROWS, len(FEATURES))).astype(np.float32)
    fresh, slow = FEATURES.index("item_clicks_count_1h"), FEATURES.index("two_tower_score")
    target = (many[:, fresh] + many[:, slow] + rng.normal(0, 0.3, len(many)) > 0.5).astype(int)
    data = lightgbm.Dataset(many, target, params={"verbose": -1})
    booster = lightgbm.train({"objective": "regression", "verbose": -1, "num_threads": 1, "num_leaves": 15}, data, 20)
    files = {
        "model.txt": booster.model_to_string().encode(), "model.onnx": onnx_export.trees(booster, len(FEATURES)),
        "features.json": json.dumps(list(FEATURES)).encode(),
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("champion")
    meta = {"calibration": {"slope": 1, "intercept": 0}}
    return write_bundle(folder, "ranker", "1", dict(files), meta, gate="passed")


def scores(bundle: Bundle, rows: np.ndarray) -> np.ndarray:
    return onnx_export.run(bundle.path("model.onnx").read_bytes(), {"features": rows})[:, 0]


def made(kind: str, champion: Bundle, folder: Path) -> Bundle:
    bad: Bad = next(b for b in SIX if b.kind == kind)
    write(bad, champion, folder, "bad", seed=7)
    return load_bundle(folder / "ranker" / "bad")


@pytest.mark.parametrize("kind", [b.kind for b in SIX])
def test_a_bad_ranker_is_a_whole_bundle_that_no_gate_has_passed(kind: str, champion: Bundle, tmp_path: Path) -> None:
    bundle = made(kind, champion, tmp_path)
    assert bundle.manifest.gate == "pending"
    assert bundle.manifest.files.keys() == champion.manifest.files.keys()
    assert bundle.manifest.meta["drill"] == kind
    same = {file for file, digest in bundle.manifest.files.items() if digest == champion.manifest.files[file]}
    assert len(same) < len(bundle.manifest.files), "something about it is wrong"


def test_faults(champion: Bundle, rows: np.ndarray, tmp_path: Path) -> None:
    right = scores(champion, rows)
    worse = scores(made("worse quality", champion, tmp_path / "w"), rows)
    assert np.corrcoef(right, worse)[0, 1] < -0.9, "the best comes last"
    sure = scores(made("miscalibrated", champion, tmp_path / "m"), rows)
    assert (np.argsort(right) == np.argsort(sure)).mean() > 0.9, "the order stays"
    assert sure.std() > 5 * right.std()
    nan = scores(made("NaN scores", champion, tmp_path / "n"), rows)
    dear = rows[:, FEATURES.index("item_log_price")] > np.log1p(3000)
    np.testing.assert_array_equal(np.isnan(nan), dear)
    np.testing.assert_allclose(nan[~dear], right[~dear], atol=1e-6)
    slow = scores(made("slow", champion, tmp_path / "s"), rows)
    np.testing.assert_allclose(slow, right, atol=1e-6)
    graphs = [made("slow", champion, tmp_path / "s2"), champion]
    sizes = [b.path("model.onnx").stat().st_size for b in graphs]
    assert sizes[0] > sizes[1] + 4_000_000, "four megabytes of weights"
    names = json.loads(made("wrong schema", champion, tmp_path / "x").path("features.json").read_text())
    assert names != list(FEATURES)
    assert sorted(names) == sorted(FEATURES)


def test_stale_features_no_longer_move_the_score(champion: Bundle, rows: np.ndarray, tmp_path: Path) -> None:
    stale = made("stale features", champion, tmp_path)
    moved = rows.copy()
    moved[:, FEATURES.index("item_clicks_count_1h")] += 5
    np.testing.assert_allclose(scores(stale, rows), scores(stale, moved))
    assert np.abs(scores(champion, rows) - scores(champion, moved)).max() > 0.1
    other = rows.copy()
    other[:, FEATURES.index("two_tower_score")] += 5
    assert np.abs(scores(stale, rows) - scores(stale, other)).max() > 0.1


@pytest.mark.parametrize("bad", SIX, ids=lambda bad: bad.kind)
def test_mistakes_in_trees_make_a_students_place_theirs(bad: Bad, champion: Bundle, tmp_path: Path) -> None:
    files = {file: champion.path(file).read_bytes() for file in champion.manifest.files}
    student = write_bundle(tmp_path, "ranker", "1", dict(files), {"form": "student"}, gate="passed")
    bundle = made(bad.kind, student, tmp_path)
    in_trees = bundle.manifest.files["model.txt"] != student.manifest.files["model.txt"]
    assert bundle.manifest.meta["form"] == ("trees" if in_trees else "student")
    assert in_trees == (bad.kind in ("worse quality", "miscalibrated", "stale features"))


@pytest.mark.parametrize("kind", ["worse quality", "miscalibrated", "stale features"])
def test_parity_holds_where_the_fault_is_not_in_the_graph(
    kind: str, champion: Bundle, rows: np.ndarray, tmp_path: Path
) -> None:
    bundle = made(kind, champion, tmp_path)
    booster = lightgbm.Booster(model_file=str(bundle.path("model.txt")))
    assert onnx_export.max_difference(scores(bundle, rows), booster.predict(rows)) < 1e-4
