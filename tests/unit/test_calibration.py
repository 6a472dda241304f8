"""Calibration against scikit-learn, and the estimate of quality without labels."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, ndcg_score

from models.calibration import ClickModel, Isotonic, Platt, brier, expected_calibration_error, sigmoid
from models.performance_estimate import estimate, expected, realised, true_up

RNG = np.random.default_rng(4)


def clicks(n: int, *, slope: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, places and clicks of n shown rows, 20 a feed."""
    scores = RNG.normal(size=n)
    places = np.tile(np.arange(1, 21), n // 20 + 1)[:n]
    chance = sigmoid(slope * scores - 2 - 0.6 * np.log(places))
    return scores, places, RNG.random(n) < chance


def test_platt_is_sklearns_sigmoid_calibration() -> None:
    scores, _, hits = clicks(4000)
    theirs = _SigmoidCalibration().fit(scores, hits)
    assert Platt.fit(scores, hits).predict(scores) == pytest.approx(theirs.predict(scores), abs=1e-4)


def test_platt_of_two_inputs_is_a_logistic_regression() -> None:
    scores, places, hits = clicks(20_000)
    x = np.column_stack([scores, np.log(places)])
    theirs = LogisticRegression(C=1e6).fit(x, hits)
    assert Platt.fit(x, hits).predict(x) == pytest.approx(theirs.predict_proba(x)[:, 1], abs=2e-3)


def test_platt_refuses_one_class() -> None:
    with pytest.raises(ValueError, match="both classes"):
        Platt.fit(np.arange(5.0), np.ones(5))


@given(y=st.lists(st.floats(0, 1), min_size=1, max_size=60), seed=st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_isotonic_is_sklearns(y: list[float], seed: int) -> None:
    x = np.random.default_rng(seed).integers(0, 20, len(y)).astype(float)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(x, y)
    at = np.linspace(-1, 21, 45)
    ours = Isotonic.fit(x, np.array(y)).predict(at)
    assert ours == pytest.approx(theirs.predict(at), abs=1e-9)
    assert np.all(np.diff(ours) >= -1e-12)


def test_isotonic_with_few_knots_stays_close() -> None:
    scores, _, hits = clicks(20_000)
    full, few = Isotonic.fit(scores, hits), Isotonic.fit(scores, hits, knots=32)
    assert len(few.x) <= 32
    assert np.abs(full.predict(scores) - few.predict(scores)).mean() < 0.01


def test_click_model_is_calibrated_knows_places_and_survives_json() -> None:
    scores, places, hits = clicks(40_000)
    model = ClickModel.from_dict(json.loads(json.dumps(ClickModel.fit(scores, hits, places).as_dict())))
    fresh, where, came = clicks(40_000)
    chance = model.predict(fresh, where)
    assert expected_calibration_error(chance, came) < 0.01
    assert model.predict(np.zeros(1), np.ones(1))[0] > model.predict(np.zeros(1), np.full(1, 20))[0]
    with pytest.raises(ValueError, match="places"):
        model.predict(fresh)


def test_scores_of_calibration() -> None:
    scores, _, hits = clicks(2000)
    p = sigmoid(scores)
    assert brier(p, hits) == pytest.approx(brier_score_loss(hits, p))
    assert expected_calibration_error(np.full(1000, 0.2), np.arange(1000) % 5 == 0) == pytest.approx(0, abs=1e-9)
    assert np.isnan(brier(np.zeros(0), np.zeros(0)))
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0)))


def test_estimate_meets_the_outcome_when_only_inputs_move() -> None:
    scores, places, hits = clicks(40_000)
    model = ClickModel.fit(scores, hits, places)
    better = RNG.normal(0.7, 1.0, 40_000)
    request = np.repeat(np.arange(2000), 20)
    came = RNG.random(40_000) < sigmoid(better - 2 - 0.6 * np.log(places))
    promised = estimate(model, better, places, request)
    found = realised(model, better, places, request, came)
    assert promised.click_rate == pytest.approx(found.click_rate, rel=0.05)
    assert promised.feeds_with_click == pytest.approx(found.feeds_with_click, rel=0.05)
    assert promised.log_loss == pytest.approx(found.log_loss, rel=0.05)
    assert found.log_loss == pytest.approx(log_loss(came, np.clip(model.predict(better, places), 1e-6, 1)), rel=1e-6)
    trued = true_up(promised, found, 2000)
    assert trued.factor == pytest.approx(1, abs=4 * trued.error)


def test_estimate_fails_when_the_meaning_moves_and_truing_up_says_so() -> None:
    scores, places, hits = clicks(40_000)
    model = ClickModel.fit(scores, hits, places)
    request = np.repeat(np.arange(2000), 20)
    came = RNG.random(40_000) < 0.5 * sigmoid(scores - 2 - 0.6 * np.log(places))
    promised = estimate(model, scores, places, request)
    trued = true_up(promised, realised(model, scores, places, request, came), 2000)
    assert trued.factor == pytest.approx(0.5, abs=0.05)
    assert trued.correct(promised.click_rate) == pytest.approx(came.mean(), rel=1e-6)


def test_ndcg_of_shown_order_is_sklearns() -> None:
    gain = (RNG.random((50, 20)) < 0.2).astype(float)
    gain[gain.sum(1) == 0, 3] = 1.0
    order = -np.tile(np.arange(20.0), (50, 1))
    found = expected(gain.ravel(), np.repeat(np.arange(50), 20))
    assert found.ndcg == pytest.approx(ndcg_score(gain, order), abs=1e-4)


def test_no_rows_are_no_crash() -> None:
    scores, places, hits = clicks(4000)
    model, none = ClickModel.fit(scores, hits, places), np.zeros(0)
    found = realised(model, none, none, none.astype(int), none)
    assert found.rows == 0
    assert found.as_dict()["click_rate"] is None
