"""Runs that are trained again: what counts as a difference, whose code is taken, and what a run must carry."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest

from adapters.errors import Misconfigured
from adapters.past_runs import PastRun
from adapters.provenance import ROOT
from models import onnx_export
from pipelines import repeat
from pipelines.run_record import command, digest_of, provenance
from pipelines.stages import Context, Stage
from settings import Settings

TAGS = {"stage": "production", "seed": "7", "threads": "2", "inputs_sha256": "a", "code_sha256": "b",
        "environment_sha256": "c", "data_version": "d", "hardware": "{}", "until_ms": "1000"}  # fmt: skip


def a_run(metrics: dict[str, list[float]], files: dict[str, str], **tags: str) -> PastRun:
    return PastRun("r1", "train_ranker", "FINISHED", 0, {}, TAGS | tags, metrics, files)


def test_the_same_run_is_the_same_whatever_its_time() -> None:
    then = a_run({"ndcg": [0.1, 0.2], "seconds": [9.0]}, {"model/model.txt": "x", "curves.png": "p"})
    now = a_run({"ndcg": [0.1, 0.2], "seconds": [3.0]}, {"model/model.txt": "x", "curves.png": "q"})
    found = repeat.compare(then, now, TAGS)
    assert found.same
    assert (found.same_metrics, found.same_models) == (1, 1)
    assert found.circumstances == {}


def test_every_difference_is_named_with_what_may_be_why() -> None:
    then = a_run({"ndcg": [0.1, 0.2]}, {"model/model.txt": "x", "model/model.onnx": "y"})
    now = a_run({"ndcg": [0.1, 0.3], "new": [1.0]}, {"model/model.txt": "z"})
    found = repeat.compare(then, now, TAGS | {"environment_sha256": "other"})
    assert not found.same
    assert found.metrics == {"ndcg": ([0.1, 0.2], [0.1, 0.3]), "new": ([], [1.0])}
    assert found.files == {"model/model.txt": ("x", "z"), "model/model.onnx": ("y", "missing")}
    assert found.circumstances == {"environment_sha256": ("c", "other")}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stage": "tuesday"}, "stage 'tuesday'"),
        ({"data_version": "d+17"}, "automatic retraining"),
    ],
)
def test_what_cannot_be_repeated_says_why(tmp_path: Path, change: dict[str, str], said: str) -> None:
    settings = Settings(home=tmp_path, _env_file=None)  # type: ignore[call-arg]
    with pytest.raises(Misconfigured, match=said):
        repeat.repeat(a_run({}, {}, **change), settings, tmp_path)


def test_the_code_is_the_runs_commit(tmp_path: Path) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    if head.returncode:
        pytest.skip("not a git checkout")
    commit = head.stdout.strip()
    folder, whose = repeat._code_of(a_run({}, {}, git_commit=commit), tmp_path / "code")
    assert whose == f"commit {commit[:12]}"
    assert (folder / "pipelines" / "train_ranker.py").exists()
    assert repeat._code_of(a_run({}, {}, git_commit=f"{commit}-dirty"), tmp_path / "other")[0] == ROOT
    assert "git does not know" in repeat._code_of(a_run({}, {}, git_commit="f" * 40), tmp_path / "third")[1]


def test_a_run_carries_what_repeats_it(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "_meta.json").write_text('{"data_version": "v1", "source": "simulator", "as_of_ms": 5}')
    (tmp_path / "rows.npz").write_bytes(b"rows")
    context = Context(Settings(home=tmp_path, seed=11, _env_file=None), print)  # type: ignore[call-arg]
    tags = provenance(context, "train_ranker", Stage("production", 6, 1, tmp_path), [tmp_path / "rows.npz"])
    assert set(TAGS) <= set(tags)
    assert {"git_commit", "command"} <= set(tags)
    assert all(tags.values())
    assert tags["seed"] == "11"
    assert tags["inputs_sha256"] == digest_of([tmp_path / "rows.npz"])
    assert len(tags["code_sha256"]) >= 12
    assert str(Path.home()) not in command()


def test_inputs_are_told_apart_by_content_and_order(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    assert len({digest_of([]), digest_of([a]), digest_of([a, b]), digest_of([b, a])}) == 4


def test_the_same_trees_are_the_same_bytes() -> None:
    rng = np.random.default_rng(1)
    data: Any = lightgbm.Dataset(rng.normal(size=(200, 4)), rng.normal(size=200))
    booster = lightgbm.train({"num_leaves": 5, "verbose": -1, "num_threads": 1}, data, num_boost_round=4)
    assert onnx_export.trees(booster, 4) == onnx_export.trees(booster, 4)
