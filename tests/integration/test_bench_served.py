"""The benchmark of the whole funnel, in its quick form: a real Redis, a real recommender, every figure there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bench.ann_rule import at_size
from bench.funnel_scale import main
from bench.samples import STAGES


def test_the_quick_form_measures_everything_and_fails_nobody(tmp_path: Path) -> None:
    assert main(["--quick", "--save", str(tmp_path / "funnel.json")]) == 0
    found = json.loads((tmp_path / "funnel.json").read_text())
    rows = [*found["rows"], found["overload"]]
    assert all(row["errors"] == 0 and row["answered"] > 0 for row in rows)
    assert set(found["rows"][0]["stages_ms"]) == set(STAGES)
    assert len(found["floors_ms"]) == 5
    assert min(found["floors_ms"].values()) > 0
    assert found["cpu_over_floor"] > 1
    assert found["in_a_row_ms"] > 0
    assert len(found["own_ms"]) == 3
    assert min(found["own_ms"].values()) > 0
    assert 1 < found["affordable_ms"] < 40
    assert found["recall_at_1000"] > 0.95
    assert found["memory_mib"] > 50
    with np.load(tmp_path / "funnel.samples.npz") as kept:
        assert (kept["rate_20_status"] == 200).all()


def test_every_kind_of_index_is_measured_and_the_best_one_named() -> None:
    found = at_size(2000, queries=10)
    assert [row["kind"] for row in found["kinds"]] == ["exact", "hnsw", "ivf"]
    assert found["rule"] == "exact"
    assert found["kinds"][0]["recall"] == 1.0
    assert found["best"] in {row["kind"] for row in found["kinds"] if row["recall"] >= 0.95}
