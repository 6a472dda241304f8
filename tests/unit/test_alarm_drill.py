"""The alarm drill: no rule is left out, rules only wait less, an alert counts when it fires after its fault began."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import Misconfigured
from pipelines.drills import alarms, faults
from pipelines.drills.alarm_watch import hurried, rules_of
from pipelines.drills.faults import FAULTS, Fault, Tick
from pipelines.drills.truth import Truth
from tests.unit.test_drills import FakePlatform, scene_of, truth  # noqa: F401 the fixture


class FakeWatch:
    """Fires what it is told to, from the second look on."""

    def __init__(self, *alerts: str, before: set[str] | None = None) -> None:
        self.alerts, self.before, self.looks = set(alerts), before or set(), 0

    def firing(self) -> set[str]:
        self.looks += 1
        return self.alerts | self.before if self.looks > 1 else self.before


@contextlib.contextmanager
def broken(_stage: Any, _watch: Any) -> Iterator[Tick]:
    yield faults.nothing


def test_every_rule_has_exactly_one_fault() -> None:
    raised = [alert for fault in FAULTS for alert in fault.alerts]
    assert sorted(raised) == sorted(rule["alert"] for rule in rules_of())


def test_what_is_counted_is_a_rule() -> None:
    assert set(alarms.COUNTED) <= {rule["alert"] for rule in rules_of()}


def test_hurried_rules_wait_two_seconds_and_ask_the_same() -> None:
    (group,) = hurried(rules_of())["groups"]
    for quick, rule in zip(group["rules"], rules_of(), strict=True):
        assert quick.get("for", "2s") == "2s"
        assert ("for" in quick) == ("for" in rule)
        assert quick["expr"] == rule["expr"] or rule["alert"] == "TopicStale"
        assert quick["labels"] == rule["labels"]


@pytest.mark.parametrize(("watch", "ok"), [
    (FakeWatch("DeadLetters"), True),
    (FakeWatch(), False),
    (FakeWatch("DeadLetters", before={"DeadLetters"}), False),
])
def test_an_alert_must_fire_after_its_fault_and_not_before(
    watch: FakeWatch, ok: bool, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    monkeypatch.setattr(alarms, "FIRES_S", 0.1)
    stage = scene_of(FakePlatform(), truth, tmp_path)
    fault, watch.looks = Fault("something", ("DeadLetters",), broken), 1
    found = alarms.provoke(stage, watch, fault, watch.before)  # type: ignore[arg-type]
    assert [c.ok for c in stage.report.checks] == [ok]
    assert (found[0].after_s is not None) == (ok or bool(watch.before))


def test_a_whole_drill_tells_each_alert_in_a_table_and_a_picture(truth: Truth, tmp_path: Path) -> None:  # noqa: F811
    stage = scene_of(FakePlatform(), truth, tmp_path)
    stage.pace = replace(stage.pace, healthy_s=0)
    watch = FakeWatch("RetrainFailed")
    fired = alarms.run(stage, watch, [Fault("it dies", ("RetrainFailed",), broken)])  # type: ignore[arg-type]
    assert [f.alert for f in fired] == ["RetrainFailed"]
    assert stage.report.end(), stage.report.checks
    assert (stage.report.folder / "alerts.png").stat().st_size > 1000
    assert stage.report.tables[0][2][0][:2] == ["RetrainFailed", "warn"]


def test_one_alert_is_chosen_by_its_name() -> None:
    assert [f.alerts for f in alarms.chosen("PartGone")] == [("PartGone",)]
    assert len(alarms.chosen("")) == len(FAULTS)
    with pytest.raises(Misconfigured, match="there are: AlertsNotTold"):
        alarms.chosen("Nonsense")


def test_what_was_planted_is_gone_afterwards_and_what_was_there_is_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics" / "drift.prom"
    with faults._planted(path, b"one"):
        assert path.read_bytes() == b"one"
    assert not path.exists()
    path.write_bytes(b"mine")
    with contextlib.suppress(RuntimeError), faults._planted(path, b"two"):
        raise RuntimeError
    assert path.read_bytes() == b"mine"
