"""A student learns its teacher's order; 8-bit forms stay close; the rule takes what is quick and still good."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench import compression as bench
from models import onnx_export
from models.compression import StudentConfig, distil, int8_dynamic, int8_static
from models.ranker import RankingRows, ndcg_of

GROUPS, SIZE, FEATURES = 120, 30, 6


@pytest.fixture(scope="module")
def world() -> tuple[RankingRows, np.ndarray]:
    """Rows and a teacher's scores: prices over orders of magnitude, some missing, a step, an offset per request."""
    rng = np.random.default_rng(3)
    features = rng.normal(size=(GROUPS * SIZE, FEATURES)).astype(np.float32)
    features[:, 0] = np.exp(features[:, 0] * 3)
    features[rng.random(len(features)) < 0.1, 1] = np.nan
    known = np.nan_to_num(features[:, 1])
    scores = np.log1p(features[:, 0]) + known + (features[:, 2] > 0) + np.repeat(rng.normal(size=GROUPS) * 9, SIZE)
    labels = (rng.random(len(scores)) < 0.1).astype(np.int64)
    return RankingRows(features, labels, np.full(GROUPS, SIZE)), scores


@pytest.fixture(scope="module")
def student(world: tuple[RankingRows, np.ndarray]) -> bytes:
    return distil(*world, StudentConfig(hidden=(32,), epochs=200), threads=1).onnx()


def within_requests(rows: RankingRows, a: np.ndarray, b: np.ndarray) -> float:
    """Mean correlation of two scores within a request."""
    pairs = zip(np.split(a, GROUPS), np.split(b, GROUPS), strict=True)
    return float(np.mean([np.corrcoef(one, other)[0, 1] for one, other in pairs]))


def test_the_student_orders_as_its_teacher(world: tuple[RankingRows, np.ndarray], student: bytes) -> None:
    rows, scores = world
    answered = onnx_export.run(student, {"features": rows.features})[:, 0]
    assert np.isfinite(answered).all(), "a missing value gives a score all the same"
    assert within_requests(rows, answered, scores) > 0.9
    assert answered.mean() == pytest.approx(scores.mean(), abs=0.5), "on the teacher's scale"
    again = distil(rows, scores, StudentConfig(hidden=(32,), epochs=200), threads=1)
    assert again.onnx() == student, "the same seed"
    assert onnx_export.max_difference(answered, again.predict(rows.features)) < 1e-4


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_eight_bits_keep_the_order(world: tuple[RankingRows, np.ndarray], student: bytes, kind: str) -> None:
    rows, _ = world
    sample = {"features": rows.features[:600]}
    small = int8_dynamic(student) if kind == "dynamic" else int8_static(student, sample)
    assert small != student
    whole, less = (onnx_export.run(model, {"features": rows.features})[:, 0] for model in (student, small))
    assert within_requests(rows, less, whole) > 0.97


def row(form: str, kept: bool, ms: float) -> dict[str, Any]:
    return {"form": form, "kept": kept, "latency_ms": {"200": {"p50": ms}}}


def test_the_rule_takes_the_quickest_that_kept_its_quality() -> None:
    rows = [row("trees", True, 3.0), row("student", False, 0.1), row("int8", True, 4.0), row("fewer", True, 1.0)]
    assert bench.choose(rows, "200") == "fewer"
    assert bench.choose(rows[:3], "200") == "trees", "INT8 that is slower is not taken"


def test_requests_without_a_click_judge_nothing() -> None:
    rows = RankingRows(np.zeros((4, 1), np.float32), np.array([0, 0, 1, 0]), np.array([2, 2]))
    assert ndcg_of(rows, np.array([1.0, 0.0, 0.5, 0.1])).tolist() == [1.0]
