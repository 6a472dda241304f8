"""The shared check suite of the drift detectors, and their figures against scipy, sklearn and hypothesis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from models.drift.base import LEAST, Rate, Thresholds
from models.drift.bins import binned
from models.drift.columns import Column, category, numeric
from models.drift.family import COMPARISONS, RATES, SEQUENTIAL
from models.drift.significance import chi_square_tail, holm, kolmogorov_tail, normal_tail
from models.drift.watched import WATCHED
from models.ranking_features import FEATURES

RNG = np.random.default_rng(11)
NORMAL = numeric("x", RNG.normal(size=4000))
SAMPLES = st.lists(
    st.one_of(st.floats(-1e6, 1e6, allow_nan=False), st.just(float("nan")), st.integers(0, 3).map(float)), max_size=300
)


@pytest.mark.parametrize("name", COMPARISONS)
class TestEveryComparison:
    """What holds for each member of the family."""

    def test_identical_samples_are_no_distance(self, name: str) -> None:
        found = COMPARISONS[name].measure(NORMAL, NORMAL)
        assert found is not None
        assert found.value == pytest.approx(0, abs=1e-9)

    @given(first=SAMPLES, second=SAMPLES)
    @settings(max_examples=60, deadline=None)
    def test_is_never_negative_and_never_crashes(self, name: str, first: list[float], second: list[float]) -> None:
        found = COMPARISONS[name].measure(numeric("x", first), numeric("x", second))
        if found is not None:
            assert found.value >= 0
            assert np.isfinite(found.value)
            assert found.p_value is None or 0 <= found.p_value <= 1

    @given(sample=st.lists(st.floats(-100, 100), min_size=LEAST, max_size=200), seed=st.integers(0, 9))
    @settings(max_examples=30, deadline=None)
    def test_order_does_not_matter(self, name: str, sample: list[float], seed: int) -> None:
        shuffled = np.random.default_rng(seed).permutation(sample)
        one = COMPARISONS[name].measure(NORMAL, numeric("x", sample))
        other = COMPARISONS[name].measure(NORMAL, numeric("x", shuffled))
        assert one is not None
        assert other is not None
        assert one.value == pytest.approx(other.value, rel=1e-9, abs=1e-12)

    @pytest.mark.parametrize(
        "sample", [[], [float("nan")] * 500, [3.0] * 500, list(range(20)), [float("inf")] * 50],
        ids=["empty", "all null", "constant", "20 rows", "infinite"],
    )  # fmt: skip
    def test_degenerate_columns_on_either_side(self, name: str, sample: list[float]) -> None:
        column, detector = numeric("x", sample), COMPARISONS[name]
        for pair in ((NORMAL, column), (column, NORMAL), (column, column)):
            found = detector.measure(*pair)
            assert found is None or np.isfinite(found.value)

    def test_too_few_rows_say_nothing(self, name: str) -> None:
        assert COMPARISONS[name].measure(NORMAL, numeric("x", RNG.normal(size=LEAST - 1))) is None

    def test_texts_are_compared_or_refused(self, name: str) -> None:
        before, now = category("c", ["a"] * 300 + ["b"] * 100), category("c", ["a"] * 100 + ["z"] * 300)
        found = COMPARISONS[name].measure(before, now)
        assert found is None if COMPARISONS[name].numbers_only else found is not None

    def test_many_healthy_pairs_rarely_look_significant(self, name: str) -> None:
        rng, small = np.random.default_rng(3), 0
        for _ in range(200):
            one, other = (numeric("x", rng.normal(size=400)) for _ in range(2))
            found = COMPARISONS[name].measure(one, other)
            assert found is not None
            small += found.p_value is not None and found.p_value < 0.01 and found.value > 0
        assert small <= 8  # 200 pairs at 1 %: 2 are expected


class TestAgainstOracles:
    def test_ks_is_scipys_to_the_grid(self) -> None:
        for shift in (0.0, 0.3, 1.0):
            a, b = RNG.normal(size=3000), RNG.normal(shift, size=2000)
            found = COMPARISONS["ks"].measure(numeric("x", a, grid=512), numeric("x", b, grid=512))
            assert found is not None
            assert found.value == pytest.approx(stats.ks_2samp(a, b).statistic, abs=0.006)

    def test_ks_is_exact_for_few_values(self) -> None:
        a, b = RNG.integers(0, 5, 1000).astype(float), RNG.integers(0, 4, 700).astype(float)
        found = COMPARISONS["ks"].measure(numeric("x", a), numeric("x", b))
        assert found is not None
        assert found.value == pytest.approx(stats.ks_2samp(a, b).statistic, abs=1e-12)

    def test_wasserstein_is_scipys_in_deviations(self) -> None:
        a, b = RNG.gamma(2, size=3000), RNG.gamma(2.6, size=2500)
        found = COMPARISONS["wasserstein"].measure(numeric("x", a, grid=512), numeric("x", b, grid=512))
        assert found is not None
        assert found.value == pytest.approx(stats.wasserstein_distance(a, b) / a.std(), rel=0.03)

    def test_jensen_shannon_is_scipys_on_the_same_bins(self) -> None:
        before, now = category("c", list("aaabbc" * 100)), category("c", list("abbccc" * 100))
        p, q = binned(before, now)
        found = COMPARISONS["js"].measure(before, now)
        assert found is not None
        assert found.value == pytest.approx(jensenshannon(p, q, base=2), abs=1e-12)

    def test_psi_by_hand(self) -> None:
        before, now = category("c", ["a"] * 5000 + ["b"] * 5000), category("c", ["a"] * 8000 + ["b"] * 2000)
        found = COMPARISONS["psi"].measure(before, now)
        assert found is not None
        assert found.value == pytest.approx(0.3 * np.log(0.8 / 0.5) - 0.3 * np.log(0.2 / 0.5), rel=1e-3)

    def test_laws(self) -> None:
        assert chi_square_tail(16.9, 9) == pytest.approx(stats.chi2.sf(16.9, 9))
        assert normal_tail(1.96) == pytest.approx(2 * stats.norm.sf(1.96))
        assert kolmogorov_tail(0.1, 500, 400) == pytest.approx(stats.kstwobign.sf(0.1 * np.sqrt(500 * 400 / 900)))

    def test_holm_by_hand(self) -> None:
        assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
        assert holm([]) == []

    def test_psi_of_healthy_samples_follows_its_law(self) -> None:
        rng = np.random.default_rng(5)
        tails = []
        for _ in range(300):
            found = COMPARISONS["psi"].measure(numeric("x", rng.normal(size=600)), numeric("x", rng.normal(size=300)))
            assert found is not None
            tails.append(found.p_value)
        assert stats.kstest(np.array(tails, float), "uniform").statistic < 0.15


class TestWhatEachIsFor:
    def test_psi_thresholds_are_the_cases(self) -> None:
        assert COMPARISONS["psi"].thresholds == Thresholds(0.1, 0.25)

    def test_a_surge_of_nulls_is_seen(self) -> None:
        column = numeric("x", np.where(RNG.random(1000) < 0.4, np.nan, RNG.normal(size=1000)))
        found = COMPARISONS["null_share"].measure(NORMAL, column)
        assert found is not None
        assert found.value == pytest.approx(0.4, abs=0.05)
        everything = COMPARISONS["null_share"].measure(NORMAL, numeric("x", [None] * 100))
        assert everything is not None
        assert everything.value == 1.0

    def test_new_categories_are_named(self) -> None:
        before, now = category("c", ["a"] * 500), category("c", ["a"] * 450 + ["z"] * 50)
        found = COMPARISONS["new_categories"].measure(before, now)
        assert found is not None
        assert (found.value, found.detail) == (pytest.approx(0.1), "z")

    def test_broken_units_are_out_of_range(self) -> None:
        euros = np.log1p(RNG.integers(500, 50_000, 2000))
        broken = np.where(RNG.random(2000) < 0.3, euros - np.log(100), euros)
        found = COMPARISONS["out_of_range"].measure(numeric("price", euros), numeric("price", broken))
        assert found is not None
        assert found.value > 0.15

    @pytest.mark.parametrize("name", RATES)
    def test_rates_without_a_reference_say_nothing(self, name: str) -> None:
        assert RATES[name].measure(Rate(0, 0), Rate(10, 100)) is None

    @pytest.mark.parametrize("name", RATES)
    def test_equal_rates_are_no_drift(self, name: str) -> None:
        found = RATES[name].measure(Rate(1000, 1000), Rate(500, 500))
        assert found is not None
        assert found.value < 0.01

    def test_silence_falls_and_volume_moves_both_ways(self) -> None:
        busy = Rate(1000, 100)
        for name, more, less in (("volume", 1.0, 1.0), ("silence", 0.0, 1.0)):
            up, down = RATES[name].measure(busy, Rate(4000, 100)), RATES[name].measure(busy, Rate(0, 100))
            assert up is not None
            assert down is not None
            assert (up.value > 1) == bool(more)
            assert (down.value > 3) == bool(less)
            assert down.p_value is not None
            assert down.p_value < 1e-6

    @pytest.mark.parametrize("name", SEQUENTIAL)
    def test_streams_that_change_are_seen_and_others_are_not(self, name: str) -> None:
        rng = np.random.default_rng(2)
        calm = (rng.random(6000) < 0.3).astype(float)
        changed = np.concatenate([calm[:3000], (rng.random(3000) < 0.7).astype(float)])
        quiet, loud = SEQUENTIAL[name](), SEQUENTIAL[name]()
        assert sum(quiet.update(v) for v in calm) <= 1
        first = next(i for i, v in enumerate(changed) if loud.update(v))
        assert 3000 <= first < 4500


class TestColumns:
    @given(sample=SAMPLES)
    @settings(max_examples=60, deadline=None)
    def test_a_summary_survives_json_and_keeps_its_size(self, sample: list[float]) -> None:
        column = numeric("x", sample)
        again = Column.from_dict(column.as_dict())
        assert (again.rows, again.units, len(again.quantiles)) == (column.rows, column.units, len(column.quantiles))
        assert again.null_share == pytest.approx(column.null_share, abs=1e-5)
        assert len(column.quantiles) <= 65
        assert len(column.values) <= 24

    def test_the_distribution_function_is_the_samples(self) -> None:
        sample = RNG.normal(size=5000)
        at = np.linspace(-3, 3, 41)
        truth = (sample[:, None] <= at).mean(0)
        assert np.abs(numeric("x", sample).cdf(at) - truth).max() < 1 / 64

    def test_rare_texts_are_counted_together(self) -> None:
        column = category("c", [f"v{i}" for i in range(200)])
        assert len(column.values) == 65
        assert sum(column.shares) == pytest.approx(1)

    def test_texts_have_no_order(self) -> None:
        with pytest.raises(ValueError, match="no order"):
            category("c", ["a"]).cdf(np.zeros(1))


def test_every_ranking_feature_is_declared() -> None:
    assert set(WATCHED) == set(FEATURES)
    assert all(watch.method in COMPARISONS for watch in WATCHED.values())


def test_thresholds_check_themselves() -> None:
    with pytest.raises(ValueError, match="warn <= alert"):
        Thresholds(0.3, 0.1)
