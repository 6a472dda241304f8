"""The drills in their short form: the loop closes, bad models do no harm, triage finds the cause."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipelines.stack.launch import python_of
from settings import ROOT
from tests.e2e.platform import Platform

long = pytest.mark.skipif(
    not (os.environ.get("CI") or os.environ.get("MINIMART_E2E_DRILLS")),
    reason="takes minutes of two quiet cores: CI runs it; here MINIMART_E2E_DRILLS=1, or make drill-... SHORT=1",
)


def drilled(platform: Platform, name: str, *arguments: str, timeout_s: float = 1000) -> dict[str, Any]:
    """The report of a short drill that passed."""
    before = set((platform.settings.out / "drills").glob(f"{name}-*"))
    done = subprocess.run(
        [python_of("training"), "-m", "pipelines.drills", name, "--short", *arguments], cwd=ROOT,
        env={**os.environ, **platform.environment}, capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    (folder,) = set((platform.settings.out / "drills").glob(f"{name}-*")) - before
    report: dict[str, Any] = json.loads(Path(folder / "report.json").read_text())
    assert report["passed"]
    return report


@long
@pytest.mark.timeout(900)
def test_an_incident_is_found_mitigated_and_written_down(platform: Platform) -> None:
    report = drilled(platform, "incident", "--case", "silence")
    assert [c["ok"] for c in report["checks"] if "finds the cause" in c["name"]] == [True]
    assert list(platform.settings.incidents.glob("*drill-silence*.md"))


@long
@pytest.mark.timeout(1200)
def test_bad_challengers_do_no_harm(platform: Platform) -> None:
    report = drilled(platform, "sabotage")
    assert report["pictures"] == ["story.png"]
    assert sum("the gate stops it" in c["name"] for c in report["checks"]) == 3


@long
@pytest.mark.timeout(1200)
def test_drift_heals_although_the_controller_is_killed(platform: Platform) -> None:
    report = drilled(platform, "drift", "--scenario", "traffic_mix", "--kill", "controller")
    assert any("kill -9 controller" in line["what"] for line in report["timeline"])
    scenario = platform.http.get(f"{platform.settings.url('simulator')}/v1/scenario").json()
    assert set(scenario["scenario"].values()) == {0.0}, "the marketplace is quiet again"
