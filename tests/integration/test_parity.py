"""`make parity` in small on every change: real Kafka and Redis, workers killed at every named point and a random one,
and a reader that logs vectors all the while."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest

from feature_repo.plan import FeaturePlan
from pipelines.parity import faults, report
from pipelines.parity.conservation import OUTCOMES
from pipelines.parity.prove import SHORT, prove

ROOT = Path(__file__).parents[2]
PLAN = FeaturePlan.load(ROOT / "tests" / "plan.json")
EVENTS = 20_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parity")


@pytest.fixture(scope="module")
def outcome(folder: Path) -> report.Outcome:
    return prove(PLAN, events_wanted=EVENTS, seed=7, engine_name="python", python=sys.executable, form=SHORT,
                 tell=print, folder=folder / "run")


def test_everyone_gives_the_same_value(outcome: report.Outcome) -> None:
    assert outcome.comparison.wrong == 0, outcome.explained
    declared = {(v.name, f.function, f.window) for v in PLAN.declared_views for f in v.declared}
    assert {cell for cell, tally in outcome.comparison.tallies.items()
            if set(tally.checks) == {"stream", "sql", "logged"}} == declared
    assert outcome.vectors > 100


def test_every_record_is_accounted_for(outcome: report.Outcome) -> None:
    assert [account.wrong for account in outcome.accounts] == [[]] * len(PLAN.topics)
    assert sum(account.sent for account in outcome.accounts) == EVENTS
    assert all(account.engine == account.truth for account in outcome.accounts)
    for became in OUTCOMES:
        assert sum(account.truth[became] for account in outcome.accounts) > 0, became


def test_the_stream_was_hard_and_the_workers_died(outcome: report.Outcome) -> None:
    assert outcome.planted["late"] >= 0.05 * EVENTS
    assert outcome.planted["duplicate"] >= 0.01 * EVENTS
    done = [fault.what for fault in outcome.faults]
    assert [what.split()[1].split(":")[0] for what in done if what.startswith("crash")] == list(faults.POINTS)
    assert sum("kill -9" in what for what in done) == 1
    assert outcome.passed


def test_the_verdict_can_be_read_by_people_and_machines(outcome: report.Outcome, folder: Path) -> None:
    document, picture = report.write(outcome, folder)
    found = json.loads(document.read_text())
    assert (found["passed"], found["events"], found["wrong"]) == (True, EVENTS, 0)
    assert found["checks"] == sum(sum(cell["checks"].values()) for cell in found["cells"])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_logs_hold_no_traceback(outcome: report.Outcome, folder: Path) -> None:
    for log in (folder / "run" / "home").glob("*.log"):
        assert "Traceback" not in log.read_text(errors="replace"), log


def test_brute_force_shares_no_code() -> None:
    for name in ("brute_force", "brute_rows", "brute_events"):
        tree = ast.parse((ROOT / "pipelines" / "parity" / f"{name}.py").read_text())
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        ours = {m for m in imported if m and (ROOT / m.split(".")[0]).exists()}
        assert ours <= {"pipelines.parity.brute_rows", "pipelines.parity.brute_events"}, name
