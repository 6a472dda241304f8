"""`make drill-drift`: the marketplace changes; the platform sees it, trains again, tries the new models, promotes them.

PASS when it was detected, retrained, gated, shadowed, tried at 5, 25, 50 and 100 percent in this order and promoted,
and when the feeds are then better under the changed truth than they were before the new models came.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from rich.console import Console

from adapters.errors import Unavailable
from pipelines.drills import pictures
from pipelines.drills.follow import STEPS, steps_in_order
from pipelines.drills.report import now_ms
from pipelines.drills.scene import MOST_DRAWN, SHORT, Pace, Scene, scene, thinned
from pipelines.drills.shoppers import by_version
from pipelines.drills.standin import child_environment
from pipelines.stack.launch import python_of
from settings import ROOT, Settings

SHARES: Final[Mapping[str, float]] = {"taste_shift": 0.8, "traffic_mix": 0.6, "seasonal": 0.8, "price_level": 0.9}
DETECT_S: Final = 180.0
ATTEMPTS: Final = 3
CALM_S: Final = 45.0
ARRIVES_MS: Final = 3000  # within so long a promotion has reached every answer
CONCEPT: Final = ("taste_shift", "seasonal")  # what was liked is liked no more: feeds must get better


def pace_of(*, short: bool) -> Pace:
    return SHORT if short else Pace()


def drill(
    settings: Settings, console: Console, *, scenario: str, share: float | None, short: bool, kill: str, kill_in: str
) -> bool:
    """Run it; whether it passed."""
    share = (1.0 if short else SHARES[scenario]) if share is None else share  # short windows see only what is large
    title = f"drift drill: {scenario} {share:g}" + (f", {kill} killed in {kill_in}" if kill else "")
    with scene(settings, "drift", title, pace_of(short=short), console, kill=kill) as stage:
        moments = run(stage, {scenario: share}, kill_in)
        judge(stage, moments, scenario)
        draw(stage, moments)
        return stage.report.end()


def run(stage: Scene, shares: Mapping[str, float], kill_in: str) -> dict[str, int]:
    """The drill's moments by name (ms); those that never came are missing."""
    report, pace = stage.report, stage.pace
    moments = {"begun": now_ms()}
    report.say(f"healthy traffic for {pace.healthy_s:.0f} s", asked_a_second=pace.asks,
               feeds=pace.feeds, searches=pace.searches)  # fmt: skip
    stage.insist("hold", "the drill first learns what healthy traffic looks like", model="recommender")
    stage.stay(pace.healthy_s)
    mark_healthy(stage)
    moments["injected"] = stage.inject(shares)
    events = stage.neighbours.events_accepted()
    mean, error, n = stage.quality(moments["begun"], moments["injected"])
    report.say("healthy", "good", quality=mean, plus_minus=error, feeds=n)
    report.say(f"injected: {', '.join(f'{k} {v:g}' for k, v in shares.items())}", "bad")
    report.figures["quality_before"] = round(mean, 4)
    seen = stage.follow_until("drift_suspected", "retraining", within_s=DETECT_S, since_ms=moments["injected"])
    if seen is None:
        report.say(f"no drift was seen within {DETECT_S:.0f} s", "bad")
        return moments
    moments["detected"] = int(seen["at_ms"])
    after_events = stage.neighbours.events_accepted() - events
    report.figures |= {"detected_after_s": round((moments["detected"] - moments["injected"]) / 1000, 1),
                       "detected_after_events": after_events}  # fmt: skip
    report.say("drift detected", "good", after_s=report.figures["detected_after_s"], after_events=after_events)
    _to_the_end(stage, moments, kill_in)
    return moments


def _to_the_end(stage: Scene, moments: dict[str, int], kill_in: str) -> None:
    deadline = time.monotonic() + stage.pace.most_s
    told_at = time.monotonic()
    while "ended" not in moments and time.monotonic() < deadline:
        stage.follow()
        for transition in stage.follower.seen:
            state, at_ms = transition["to"], int(transition["at_ms"])
            if transition["from"] == state or at_ms < moments["injected"]:
                continue
            moments.setdefault(state, at_ms)
            if state in ("promoted", "rolled_back"):
                moments["ended"] = at_ms
        if stage.breaker is not None and kill_in in moments:
            stage.breaker.kill(stage.report)
        if time.monotonic() - told_at > 15:
            told_at = time.monotonic()
            mean, error, n = stage.quality(now_ms() - 15_000)
            stage.report.say("last 15 s", "note", quality=mean, plus_minus=error, feeds=n)
    if "promoted" in moments:
        stage.report.say(f"promoted; {stage.pace.after_s:.0f} s of what shoppers get now", "good")
        stage.stay(stage.pace.after_s)
    moments["over"] = now_ms()


def mark_healthy(stage: Scene) -> None:
    """Take the traffic so far as healthy, until the controller's own check agrees; then let the controller act."""
    verdict, attempts = "", 0
    while attempts < ATTEMPTS and verdict in ("", "drift"):
        attempts += 1
        _take_as_healthy(stage)
        verdict = _next_verdict(stage, now_ms())
        stage.report.say(f"the controller's next check says {verdict or 'nothing'}", "note")
    saw = f"{verdict or 'no report'} in the controller's check, attempt {attempts}"
    stage.report.check("healthy traffic raises no alarm", verdict in ("healthy", "warn"), saw)
    stage.insist("resume", "healthy traffic is known", model="recommender")
    deadline = time.monotonic() + CALM_S
    while (stage.neighbours.rollout() or {}).get("state") != "healthy" and time.monotonic() < deadline:
        stage.follow()


def _next_verdict(stage: Scene, after_ms: int) -> str:
    """What the controller's first drift check that began after this moment says; "" if none comes."""
    deadline = time.monotonic() + CALM_S
    first = f"drift-{datetime.fromtimestamp(after_ms / 1000, UTC):%Y%m%dT%H%M%S}"  # ids begin with the check's moment
    while time.monotonic() < deadline:
        stage.follow()
        report = (stage.neighbours.rollout() or {}).get("drift") or {}
        if str(report.get("id") or "") > first:
            return str(report.get("verdict"))
    return ""


def _take_as_healthy(stage: Scene) -> None:
    job = [python_of("training"), "-m", "pipelines.check_drift", "--window", f"{stage.pace.drift_window_s}s"]
    command = [*job, "--mark-healthy", "--no-html", "--no-mlflow", "--quiet"]
    environment = child_environment({"MINIMART_DRIFT_SETTLE_S": f"{stage.pace.drift_settle_s:g}"}, stage.settings)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip
    if done.returncode > 2:
        raise Unavailable(f"the drift job ended with {done.returncode}: {(done.stderr or done.stdout)[-300:]}")
    stage.report.say("this traffic is now the healthy baseline of the drift job")


def judge(stage: Scene, moments: Mapping[str, int], scenario: str) -> None:
    """What has to hold at the end."""
    report, follower = stage.report, stage.follower
    figures = report.figures
    saw = f"{figures.get('detected_after_s')} s, {figures.get('detected_after_events')} events after the injection"
    report.check("the drift was detected", "detected" in moments, saw)
    for state, name in (("retraining", "retrained"), ("gated", "through the gate"), ("promoted", "promoted")):
        seen = follower.first(state, moments["injected"])
        report.check(name, seen is not None, str(seen["reason"]) if seen else "never")
    entered = follower.entered()
    report.check(f"shadow, then {', '.join(s.removeprefix('canary_') for s in STEPS)} percent in order",
                 steps_in_order(entered), " -> ".join(entered))  # fmt: skip
    if "promoted" in moments:
        _judge_quality(stage, moments, scenario)
    stage.check_always_answered(stage.shoppers.since(moments["begun"]))
    stage.check_one_champion()
    if "detected" in moments and "over" in moments:
        report.figures["minutes"] = round((moments["over"] - moments["begun"]) / 60_000, 2)


def _judge_quality(stage: Scene, moments: Mapping[str, int], scenario: str) -> None:
    """Before, during (from the injection to the first canary) and after (from the promotion), under the truth."""
    report, arrived = stage.report, moments["promoted"] + ARRIVES_MS
    spans: dict[str, tuple[int, int | None]] = {
        "before": (moments["begun"], moments["injected"]),
        "during": (moments["injected"], moments.get("canary_5", moments["promoted"])),
        "after": (arrived, None),
    }
    found = {name: stage.quality(*span) for name, span in spans.items()}
    clicks = {name: stage.expected_clicks(*span) for name, span in spans.items()}
    report.figures |= {f"quality_{name}": round(mean, 4) for name, (mean, _, _) in found.items()}
    report.figures |= {f"expected_clicks_{name}": round(value, 3) for name, value in clicks.items()}
    report.table(
        "Quality under the planted truth", ["when", "of the best possible clicks", "expected clicks a feed", "feeds"],
        [[name, f"{m:.4f} ± {1.96 * e:.4f}", f"{clicks[name]:.3f}", str(n)] for name, (m, e, n) in found.items()],
    )  # fmt: skip
    during, after = found["during"], found["after"]
    saw = f"before {found['before'][0]:.3f}, during {during[0]:.3f}, after {after[0]:.3f}"
    slack = 1.96 * float(np.hypot(during[1], after[1]))
    if scenario in CONCEPT:
        report.check("feeds are better under the changed truth than before the new models", after[0] > during[0], saw)
    else:
        report.check("feeds are not worse than before the new models", after[0] > during[0] - slack, saw)
    new = (stage.neighbours.rollout() or {}).get("champion", {}).get("ranker", "")
    versions = by_version(stage.shoppers.since(arrived), "ranker")
    ok = set(versions) <= {new, ""}
    report.check("3 s after the promotion every answer is the new champion's", ok, str(versions))


def draw(stage: Scene, moments: Mapping[str, int]) -> None:
    """The story in one picture."""
    zero = stage.report.begun_ms
    answers = [a for a in stage.shoppers.since(moments["begun"]) if a.items]
    quality: list[tuple[float, float]] = []
    for scenario, part in stage.by_scenario(thinned(answers, MOST_DRAWN)):
        found = stage.truth.quality(stage.shoppers.feeds(part), scenario)
        quality += [((a.sent_ms - zero) / 1000, float(q)) for a, q in zip(part, found, strict=True)]
    versions: dict[str, list[tuple[float, float]]] = {}
    for a in answers:
        versions.setdefault(f"ranker {a.version('ranker') or 'none'}", []).append(((a.sent_ms - zero) / 1000, 1.0))
    named = {"injected": "injected", "drift_suspected": "drift suspected", "retraining": "retraining", "gated": "gated",
             "shadow": "shadow", "canary_5": "5 %", "canary_25": "25 %", "canary_50": "50 %", "canary_100": "100 %",
             "promoted": "promoted", "rolled_back": "rolled back"}  # fmt: skip
    marks: list[tuple[float, str]] = [((moments[m] - zero) / 1000, text) for m, text in named.items() if m in moments]
    path = stage.report.picture("story.png", "quality under the planted truth, and who answered")
    any_versions: dict[str, Any] = dict(versions)
    pictures.story(path, stage.report.title, quality, any_versions, marks)
