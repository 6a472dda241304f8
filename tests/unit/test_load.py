"""The load tool: its schedule, its mix, and that it does not hide a stall."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson

from bench.client import Reply, poisson_times
from bench.load import NEW_VISITORS, requests, stalled_run
from bench.samples import STAGES, percentiles, picture, samples_of, summary, write


def test_arrivals_are_fixed_by_the_seed_and_have_the_rate() -> None:
    times = poisson_times(50, 100, seed=3)
    np.testing.assert_array_equal(times, poisson_times(50, 100, seed=3))
    assert 4700 < len(times) < 5300
    assert (np.diff(times) > 0).all()
    assert times[-1] < 100


def test_the_mix_has_regulars_and_new_visitors() -> None:
    bodies = [orjson.loads(b) for b in requests(2000, [f"u{i}" for i in range(100)], seed=1)]
    new = sum(b["user_id"].startswith("visitor-") for b in bodies) / len(bodies)
    assert abs(new - NEW_VISITORS) < 0.03
    shown = [b["user_id"] for b in bodies if not b["user_id"].startswith("visitor-")]
    assert max(shown.count(u) for u in set(shown)) > 5 * len(shown) / 100
    assert {b["surface"] for b in bodies} == {"home", "category", "product", "cart"}


async def test_a_stall_is_charged_to_everyone_who_waited() -> None:
    samples = await stalled_run(rate=100, seconds=3.0, stall_from_s=1.0, stall_s=0.5)
    assert (samples.status == 200).all()
    # A sixth of the arrivals fall into the stall and wait evenly 0 to 500 ms: the worst tenth waits 200 ms or more.
    assert percentiles(samples.latency_ms)["p90"] >= 180


def test_a_run_is_summed_up_and_kept(tmp_path: Path) -> None:
    answer = {"timings_ms": {"total": 8.0, "rank": 3.0}, "degraded": ["redis_down"]}
    replies = [
        Reply(0.0, 0.010, 200, orjson.dumps(answer)), Reply(0.5, 0.520, 200, orjson.dumps(answer | {"degraded": []})),
        Reply(1.0, 1.001, 429, b"{}"), Reply(2.0, 3.0, 0, b"refused"), Reply(2.0, 2.1, 500, b"{}"),
    ]
    samples = samples_of(replies)
    figures = summary(samples, rate=50, seconds=3, seed=1)
    assert (figures["answered"], figures["shed"], figures["errors"]) == (2, 1, 2)
    assert figures["degraded"] == {"redis_down": 0.5}
    assert figures["latency_ms"]["max"] == 20.0
    assert figures["stages_ms"]["total"]["p50"] == 8.0
    assert figures["stages_ms"]["retrieve"] == {}
    write(samples, figures, tmp_path / "load.json")
    with np.load(tmp_path / "load.samples.npz") as kept:
        np.testing.assert_allclose(kept["latency_ms"][:2], [10.0, 20.0], rtol=1e-5)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    answer = orjson.dumps({"timings_ms": dict.fromkeys(STAGES, 2)})
    picture(samples_of([Reply(i / 50, i / 50 + 0.01, 200, answer) for i in range(50)]), tmp_path / "p.png", "50/s")
    assert (tmp_path / "p.png").stat().st_size > 5000
