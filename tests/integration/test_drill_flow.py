"""Whole drills against a scripted platform: their flow, their proofs from served versions, what they put back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from rich.console import Console

from adapters.bundles import write_bundle
from models import onnx_export
from models.marketplace.config import MINUTE, WorldConfig
from models.marketplace.world import build_world
from models.ranking_features import FEATURES
from pipelines.drills import drift, incident, sabotage
from pipelines.drills.causes import Look, Served
from pipelines.drills.scene import Pace
from settings import Settings
from tests.integration.platform_on_one_port import Script, served

QUICK = Pace(healthy_s=2, after_s=5, asks=20, feeds=1, searches=0, most_s=30)
PARTS = ("controller", "recommender", "simulator", "collector")


@pytest.fixture
def script() -> Script:
    as_of = int(time.time() * 1000) // MINUTE * MINUTE - MINUTE
    return Script(build_world(WorldConfig(shoppers=300, items=300, days=7, seed=7, as_of_ms=as_of)))


@pytest.fixture
def settings(tmp_path: Path, script: Script) -> Iterator[Settings]:
    (tmp_path / "truth").mkdir()
    np.savez(tmp_path / "truth" / "world.npz", **script.world.arrays())
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, len(FEATURES))).astype(np.float32)
    data = lightgbm.Dataset(rows, rows[:, 0] + rows[:, 20], params={"verbose": -1})
    booster = lightgbm.train({"objective": "regression", "verbose": -1, "num_threads": 1}, data, 5)
    files = {
        "model.txt": booster.model_to_string().encode(), "model.onnx": onnx_export.trees(booster, len(FEATURES)),
        "features.json": json.dumps(list(FEATURES)).encode(),
    }  # fmt: skip
    write_bundle(tmp_path / "published", "ranker", "1", dict(files), {}, gate="passed")
    with served(script) as address:
        urls: dict[str, Any] = {f"{part}_url": address for part in PARTS}
        yield Settings(home=tmp_path, _env_file=None, **urls)


def report_of(settings: Settings, name: str) -> dict[str, Any]:
    (folder,) = (settings.home / "drills").glob(f"{name}-*")
    assert all((folder / picture).exists() for picture in json.loads((folder / "report.json").read_text())["pictures"])
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def failed(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The checks that did not hold; how many requests a busy machine loses is left to the real platform."""
    return [check for check in report["checks"] if not check["ok"] and check["name"] != "always an answer"]


def test_drift_is_followed_from_the_injection_to_the_promotion(
    settings: Settings, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "Pace", lambda: QUICK)
    monkeypatch.setattr(drift, "_take_as_healthy", lambda stage: None)
    passed = drift.drill(settings, Console(quiet=True), scenario="taste_shift", share=None, short=False, kill="",
                         kill_in="retraining")  # fmt: skip
    report = report_of(settings, "drift")
    assert failed(report) == []
    assert passed == all(check["ok"] for check in report["checks"])
    figures = report["figures"]
    assert figures["quality_before"] == pytest.approx(1.0, abs=0.02)
    assert figures["quality_during"] < 0.8
    assert figures["quality_after"] == pytest.approx(1.0, abs=0.05)
    assert script.scenario.shares() == type(script.scenario)().shares(), "the marketplace is quiet again"
    assert script.holds == {}


def test_bad_challengers_are_stopped_and_the_proof_is_in_the_answers(
    settings: Settings, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sabotage, "PACE", QUICK)
    monkeypatch.setattr(sabotage, "GONE_S", 1.0)
    monkeypatch.setattr(sabotage, "SIX", [b for b in sabotage.SIX if b.kind in ("slow", "worse quality")])
    passed = sabotage.drill(settings, Console(quiet=True), short=False, kill="")
    report = report_of(settings, "sabotage")
    assert failed(report) == []
    assert passed == all(check["ok"] for check in report["checks"])
    assert len(report["tables"][0]["rows"]) == 4, "two through the gate and two around it"
    assert script.champion == {"ranker": "1", "two-tower": "1"}


def test_a_platform_that_serves_a_bad_model_on_is_found_out(
    settings: Settings, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller says that it rolled back, the answers say otherwise."""
    monkeypatch.setattr(sabotage, "PACE", QUICK)
    monkeypatch.setattr(sabotage, "GONE_S", 2.0)
    monkeypatch.setattr(sabotage, "SIX", [b for b in sabotage.SIX if b.kind == "worse quality"])
    real = script.serve

    def serve(user: int, user_id: str) -> dict[str, Any]:
        answer = real(user, user_id)
        if script.bad and script.state in ("rolled_back", "healthy"):
            answer["model_versions"] = {**answer["model_versions"], "ranker": max(script.bad)}
        return answer

    monkeypatch.setattr(script, "serve", serve)
    assert not sabotage.drill(settings, Console(quiet=True), short=False, kill="")
    names = [check["name"] for check in failed(report_of(settings, "sabotage"))]
    assert any("gate bypassed" in name for name in names)


def test_an_incident_is_found_held_repaired_and_written_down(
    settings: Settings, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int | None] = []

    def look(_store: Any, since_ms: int, until_ms: int, _usual: tuple[int, int], *,
             versions_since_ms: int | None = None) -> Look:
        counted.append(versions_since_ms)
        seconds = (until_ms - since_ms) / 1000
        feeds, clicks = int(30 * seconds), int(60 * seconds * (1 - script.scenario.silence))
        events = {"impressions": feeds, "clicks": clicks, "orders": clicks // 10}
        return Look(seconds, events, versions={"1": Served(feeds, clicks, 20.0, 0.0)})

    monkeypatch.setattr(incident, "look", look)
    monkeypatch.setattr(incident, "open_store", lambda _settings: None)
    monkeypatch.setattr(incident, "PACE", replace(QUICK, healthy_s=6))
    monkeypatch.setattr(incident, "WINDOW_S", 2.0)
    passed = incident.drill(settings, Console(quiet=True), only="silence", short=False, kill="")
    report = report_of(settings, "incident")
    assert failed(report) == []
    assert passed == all(check["ok"] for check in report["checks"])
    (written,) = settings.incidents.glob("*silence*.md")
    assert "an upstream is silent" in written.read_text()
    asked = [since for since in counted if since is not None]
    assert len(set(asked)) == 1, "while a cause is looked for, versions count from the moment at which it broke"
    assert counted[-1] is None, "afterwards in the newest window alone: what was rolled back counts no more"
    assert script.holds == {}
