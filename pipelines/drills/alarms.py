"""`make drill-alerts`: every alert rule is made to fire on the running platform, and all is put back.

PASS when each alert of deploy/prometheus/rules.yml fired while its fault lasted and not before, and when, after the
last fault, no alert fires that tells of a state.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rich.console import Console

from adapters.errors import Misconfigured
from pipelines.drills import pictures
from pipelines.drills.alarm_watch import Watch, rules_of, severities
from pipelines.drills.faults import FAULTS, Fault
from pipelines.drills.report import now_ms
from pipelines.drills.sabotage import PACE as SABOTAGE
from pipelines.drills.scene import Pace, Scene, scene
from pipelines.stack.supervisor import Supervisor
from settings import Settings

PACE: Final[Pace] = replace(SABOTAGE, shadow_s=4, asks=12, healthy_s=20)
FIRES_S: Final = 150.0
CLEARS_S: Final = 240.0
PARTS: Final = ("redis", "clickhouse", "simulator", "monitor", "alertmanager", "feature_server")
COUNTED: Final = (
    "DeadLetters", "AlertsNotTold", "IncidentOpenLong", "RolloutRolledBack", "CanaryGuardrailBreached", "RetrainFailed",
    "ModelRefused", "ModelUngated", "BundleRefused",
)  # fmt: skip
"""They tell of something that happened within the last minutes, and fire as long as that is so."""


@dataclass(frozen=True)
class Fired:
    """One alert: the fault that had to raise it, and after how many seconds it fired (None: never)."""

    alert: str
    fault: Fault
    after_s: float | None
    began_s: float


def chosen(only: str) -> list[Fault]:
    """The faults that raise this alert, or all. Raises Misconfigured where no alert has this name."""
    found = [fault for fault in FAULTS if only in ("", *fault.alerts)]
    if not found:
        known = ", ".join(sorted(alert for fault in FAULTS for alert in fault.alerts))
        raise Misconfigured(f"ALERT={only}: no such alert; there are: {known}")
    return found


def drill(settings: Settings, console: Console, *, only: str) -> bool:
    """Run it; whether it passed."""
    faults = chosen(only)
    missing = [part for part in PARTS if part not in Supervisor(settings.home).processes()]
    if missing:
        told = f"it does not see {', '.join(missing)}: make demo, and make doctor says what is not installed"
        raise Misconfigured(f"this drill ends and freezes parts of a platform that runs natively; {told}")
    title = f"alarm drill: {sum(len(f.alerts) for f in faults)} alerts"
    with scene(settings, "alerts", title, PACE, console, bypass=True) as stage:
        folder = settings.work / "drills" / stage.report.folder.name / "prometheus"
        with Watch(settings, folder).running() as watch:
            run(stage, watch, faults)
        return stage.report.end()


def run(stage: Scene, watch: Watch, faults: Sequence[Fault]) -> list[Fired]:
    """One fault after another, from a healthy platform to a healthy platform."""
    report, champion = stage.report, stage.champion()
    report.say(f"healthy traffic for {stage.pace.healthy_s:.0f} s", asked_a_second=stage.pace.asks)
    stage.stay(stage.pace.healthy_s)
    before = watch.firing()
    told = ", ".join(sorted(before)) or "none"
    if before & set(COUNTED):
        told += " (to a new Prometheus all that was ever counted is news: run this soon after make demo)"
    report.check("a healthy platform raises no alert", not before, told)
    fired: list[Fired] = []
    for fault in faults:
        fired += provoke(stage, watch, fault, before)
    _clear(stage, watch)
    stage.check_one_champion(champion)
    _conclude(stage, fired)
    return fired


def provoke(stage: Scene, watch: Watch, fault: Fault, before: set[str]) -> list[Fired]:
    """Break one thing and wait until every alert that must call it out has fired."""
    report, begun = stage.report, now_ms()
    report.say(f"{fault.what}" + (" (planted)" if fault.planted else ""), "bad")
    after: dict[str, float] = {}
    with fault.cause(stage, watch) as tick:
        deadline = time.monotonic() + FIRES_S
        while len(after) < len(fault.alerts) and time.monotonic() < deadline:
            tick()
            stage.follow()
            for alert in sorted(watch.firing() & set(fault.alerts) - after.keys()):
                after[alert] = (now_ms() - begun) / 1000
                report.say(f"{alert} fires", "good", after_s=round(after[alert], 1))
    for alert in fault.alerts:
        saw = f"{after[alert]:.0f} s after: {fault.what}" if alert in after else f"not within {FIRES_S:.0f} s"
        fresh = alert not in before
        report.check(f"{alert} fires", alert in after and fresh, saw if fresh else "fired before anything was broken")
    at_s = (begun - report.begun_ms) / 1000
    return [Fired(alert, fault, after.get(alert), at_s) for alert in fault.alerts]


def _clear(stage: Scene, watch: Watch) -> None:
    """Wait until nothing fires but what tells of things that happened."""
    stage.report.say("all is put back; the alerts must end", "note")
    deadline = time.monotonic() + CLEARS_S
    while left := watch.firing() - set(COUNTED):
        if time.monotonic() > deadline:
            break
        stage.follow()
    told = ", ".join(sorted(left)) or "none that tells of a state"
    stage.report.check("afterwards no alert goes on", not left, told)


def _conclude(stage: Scene, fired: Sequence[Fired]) -> None:
    report, level = stage.report, severities(rules_of())
    rows = [[f.alert, level[f.alert], f.fault.what, "planted" if f.fault.planted else "real",
             "never" if f.after_s is None else f"{f.after_s:.0f}"] for f in fired]  # fmt: skip
    report.table("Alerts", ["alert", "severity", "what was broken", "how", "fired after s"], rows)
    report.figures["fired"] = sum(f.after_s is not None for f in fired)
    spans: Mapping[str, tuple[float, float | None]] = {f.alert: (f.began_s, f.after_s) for f in fired}
    path = report.picture("alerts.png", "from each fault to its alert")
    pictures.spans(path, report.title, spans)
