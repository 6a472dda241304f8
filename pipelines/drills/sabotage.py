"""`make drill-sabotage`: six bad rankers, given to the controller by hand; none may do harm.

First through the front door: each must be stopped by the gate, for its own reason, and never answer anybody. Then
around the gate (a switch that only a drill has): each may reach the shadow and 5 % of the traffic, not more, and must
be gone within a minute. The proof is read out of the answers of an open-loop client.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from rich.console import Console
from scipy.stats import binom

from adapters.bundles import Bundle, load_bundle
from adapters.errors import BadInput, MinimartError
from pipelines.drills import pictures
from pipelines.drills.challengers import SIX, Bad, write
from pipelines.drills.follow import Follower
from pipelines.drills.report import now_ms
from pipelines.drills.scene import MOST_DRAWN, SHORT, Pace, Scene, scene, thinned
from pipelines.drills.shoppers import Answer
from settings import Settings

PACE: Final = Pace(step_s=90, shadow_s=6, least_requests=40, drift_every_s=3600, asks=20, feeds=1, searches=0,
                   healthy_s=30, most_s=180)  # fmt: skip
MOST_EXPOSED: Final = 0.05
MOST_EXPOSED_S: Final = 60.0
GONE_S: Final = 5.0
CHANCE: Final = 0.001  # that a canary which is meant to have its share is called too large
HARMLESS_S: Final = 15.0  # of canary for one that nobody can notice, before the drill takes it back
SHORT_KINDS: Final = ("NaN scores", "wrong schema", "slow")
SHORT_AROUND: Final = ("slow",)


@dataclass(frozen=True)
class Outcome:
    """How one bad challenger fared. Times in ms; versions are those that its answers carried."""

    bad: Bad
    bypass: bool
    stopped_at: str
    reason: str
    ended_ms: int
    served: tuple[Answer, ...]
    meanwhile: tuple[Answer, ...]
    """All answers while it was a canary, the bad version's among them."""
    most_canary: float

    @property
    def share(self) -> float:
        return len(self.served) / len(self.meanwhile) if self.meanwhile else 0.0

    @property
    def exposed_s(self) -> float:
        return (self.served[-1].answered_ms - self.served[0].sent_ms) / 1000 if self.served else 0.0

    @property
    def late_s(self) -> float:
        """From the decision to the moment at which the last answer with the bad version was asked for."""
        return max(0.0, (self.served[-1].answered_ms - self.ended_ms) / 1000) if self.served else 0.0


def pace_of(*, short: bool) -> Pace:
    return replace(PACE, shadow_s=SHORT.shadow_s, asks=12, healthy_s=10) if short else PACE


def drill(settings: Settings, console: Console, *, short: bool, kill: str) -> bool:
    """Run it; whether it passed."""
    title = "sabotage drill: " + ("three" if short else "six") + " bad challengers"
    with scene(settings, "sabotage", title, pace_of(short=short), console, bypass=True, kill=kill) as stage:
        kinds = [bad for bad in SIX if not short or bad.kind in SHORT_KINDS]
        run(stage, kinds, [bad for bad in kinds if not short or bad.kind in SHORT_AROUND])
        return stage.report.end()


def run(stage: Scene, kinds: Sequence[Bad], around: Sequence[Bad]) -> list[Outcome]:
    """Bad challengers through the front door, then some of them around the gate."""
    report, begun = stage.report, now_ms()
    champion = stage.champion()
    bundle = load_bundle(stage.settings.published / "ranker" / champion["ranker"])
    report.say(f"the champion is ranker {champion['ranker']}; healthy traffic", asked_a_second=stage.pace.asks)
    stage.stay(stage.pace.healthy_s)
    outcomes = []
    for number, bad in enumerate(kinds):
        outcomes.append(send(stage, bad, bundle, f"bad-{number}-{now_ms() % 10**6}", bypass=False))
        judge_gated(stage, outcomes[-1])
    for number, bad in enumerate(around):
        outcomes.append(send(stage, bad, bundle, f"around-{number}-{now_ms() % 10**6}", bypass=True))
        judge_bypassed(stage, outcomes[-1])
    _conclude(stage, outcomes, champion, begun)
    return outcomes


def send(stage: Scene, bad: Bad, champion: Bundle, version: str, *, bypass: bool) -> Outcome:
    """Make the challenger, hand it over, and watch until it is stopped or its time is over."""
    report, begun = stage.report, now_ms()
    stage.settle()
    folder = write(bad, champion, stage.challenger_folder(version), version, seed=stage.settings.seed)
    way = "around the gate" if bypass else "through the gate"
    report.say(f"{bad.kind} ({bad.mistake}), {way}", "bad")
    follower = Follower.from_now(stage.neighbours.rollout() or {"history": []})
    try:
        stage.neighbours.challenger(folder, bypass=bypass, reason=f"drill: {bad.kind}")
    except BadInput as error:
        report.say(f"refused at the door: {error.detail}", "good")
        return Outcome(bad, bypass, "the door", error.detail, now_ms(), (), (), 0.0)
    end = _watch(stage, follower, stage.pace.most_s, MOST_EXPOSED_S if bad.harms else HARMLESS_S)
    stopped_at, reason, ended_ms = "not stopped", "", now_ms()
    if end is not None:
        stopped_at, reason, ended_ms = _stage_of(follower, end), str(end["reason"]), int(end["at_ms"])
    else:
        _take_back(stage)
    stage.stay(GONE_S)
    canary = follower.first("canary_5")
    span = (int(canary["at_ms"]), ended_ms) if canary else None
    served, meanwhile = exposure(stage.shoppers.since(begun), _versions(follower) - {champion.version}, span)
    return Outcome(bad, bypass, stopped_at, reason, ended_ms, served, meanwhile, follower.most_canary())


def exposure(
    answers: Sequence[Answer], bad: set[str], canary: tuple[int, int] | None
) -> tuple[tuple[Answer, ...], tuple[Answer, ...]]:
    """The answers that a bad ranker made, and all that there were while it was a canary (from, to: ms).

    An answer of the bad ranker before or after counts too, with all those between it and the canary.
    """
    good = [a for a in answers if a.status == 200]
    served = tuple(a for a in good if a.version("ranker") in bad)
    moments = [*(canary or ()), *(a.sent_ms for a in served)]
    return served, tuple(a for a in good if moments and min(moments) <= a.sent_ms <= max(moments))


def allowed(answers: Sequence[Answer], share: float = MOST_EXPOSED) -> float:
    """The share of these answers seen at most where `share` of the shoppers are meant; by chance 1 in 1,000 has more.

    Whole shoppers are drawn, and some ask far more often than others: so many answers tell as much as fewer shoppers
    that ask once each, by Kish's effective sample size, and the binomial distribution of that many.
    """
    asked = np.array(list(Counter(a.user for a in answers).values()) or [1], np.float64)
    shoppers = max(1, round(float(asked.sum() ** 2 / (asked**2).sum())))
    return float(binom.ppf(1 - CHANCE, shoppers, share)) / shoppers


def judge_gated(stage: Scene, outcome: Outcome) -> None:
    """Stopped by the gate or before it, for a reason that names its fault, without a single answer."""
    bad = outcome.bad
    at_gate = outcome.stopped_at in ("the door", "gate")
    named = any(word in outcome.reason.lower() for word in bad.stopped_by.split())
    saw = f"stopped at {outcome.stopped_at}: {outcome.reason[:160]}; {len(outcome.served)} answers"
    stage.report.check(f"{bad.kind}: the gate stops it, for its fault", at_gate and named and not outcome.served, saw)


def judge_bypassed(stage: Scene, outcome: Outcome) -> None:
    """Never more than the canary's share; gone within a minute where shoppers could notice it."""
    bad, report = outcome.bad, stage.report
    answers = f"{len(outcome.served)} of {len(outcome.meanwhile)} answers"
    exposed = f"{answers} ({outcome.share:.1%}) in {outcome.exposed_s:.0f} s"
    exposed += f", the last {outcome.late_s:.1f} s after the decision"
    saw = f"stopped at {outcome.stopped_at}: {outcome.reason[:110]}; {exposed}"
    within = outcome.most_canary <= 100 * MOST_EXPOSED and outcome.share <= allowed(outcome.meanwhile)
    stopped = outcome.stopped_at != "not stopped" or not bad.harms
    quick = outcome.exposed_s <= MOST_EXPOSED_S + GONE_S and outcome.late_s <= GONE_S
    name = "rolled back in time" if bad.harms else "taken back before more than the first step"
    report.check(f"{bad.kind}, gate bypassed: at most 5 % of traffic, {name}", within and stopped and quick, saw)


def _watch(stage: Scene, follower: Follower, within_s: float, patience_s: float) -> dict[str, Any] | None:
    """Follow until it is rolled back; None when it was a canary for `patience_s` and nobody had stopped it."""
    deadline = time.monotonic() + within_s
    canary_since: float | None = None
    while time.monotonic() < deadline:
        stage.follow()
        follower.take(stage.neighbours.rollout())
        if (end := follower.last("rolled_back")) is not None:
            return end
        if canary_since is None and follower.first("canary_5") is not None:
            canary_since = time.monotonic()
            if stage.breaker is not None:
                stage.breaker.kill(stage.report)
        if canary_since is not None and time.monotonic() - canary_since > patience_s:
            return None
    return None


def _take_back(stage: Scene) -> None:
    stage.report.say("nobody has stopped it: the drill takes it back", "note")
    try:
        stage.neighbours.command("rollback", "the drill's minute is over")
    except MinimartError as error:
        stage.report.say(f"rollback: {error.detail}", "bad")


def _stage_of(follower: Follower, end: Mapping[str, Any]) -> str:
    """Where the challenger was when it was stopped."""
    was = str(end["from"])
    return "gate" if was in ("healthy", "drift_suspected", "retraining", "rolled_back", "promoted") else was


def _versions(follower: Follower) -> set[str]:
    """Every ranker version that these transitions name as challenger."""
    return {str((t.get("challenger") or {}).get("ranker", "")) for t in follower.seen} - {""}


def _conclude(stage: Scene, outcomes: Sequence[Outcome], champion: Mapping[str, str], begun: int) -> None:
    report = stage.report
    rows = [[o.bad.kind, "around" if o.bypass else "through", o.stopped_at, o.reason[:90], f"{o.share:.1%}",
             f"{o.exposed_s:.0f}", f"{o.late_s:.1f}"] for o in outcomes]  # fmt: skip
    heads = ["challenger", "gate", "stopped at", "reason", "of the answers", "exposed s", "s after the decision"]
    report.table("Bad challengers", heads, rows)
    answers = stage.shoppers.since(begun)
    stage.check_always_answered(answers)
    stage.check_one_champion(champion)
    bad = sum(len(o.served) for o in outcomes)
    good = [a for a in answers if a.status == 200]
    report.check("over the whole drill at most 5 % of the answers are a bad model's",
                 bad <= allowed(good) * len(good), f"{bad} of {len(good)}")  # fmt: skip
    invalid = [a for a in good if len(a.items) != len(set(a.items))]
    report.check("every feed holds distinct products", not invalid, f"{len(invalid)} of {len(good)} do not")
    _draw(stage, outcomes, answers)


def _draw(stage: Scene, outcomes: Sequence[Outcome], answers: Sequence[Answer]) -> None:
    zero = stage.report.begun_ms
    bad = {id(a) for o in outcomes for a in o.served}
    good = [a for a in answers if a.items]
    drawn = thinned(good, MOST_DRAWN)
    qualities = stage.truth.quality(stage.shoppers.feeds(drawn), stage.shoppers.scenario)
    points = [((a.sent_ms - zero) / 1000, float(q)) for a, q in zip(drawn, qualities, strict=True)]
    who: dict[str, list[tuple[float, float]]] = {"champion": [], "bad challenger": []}
    for a in good:
        who["bad challenger" if id(a) in bad else "champion"].append(((a.sent_ms - zero) / 1000, 1.0))
    marks = [((o.ended_ms - zero) / 1000, f"{o.bad.kind}: {o.stopped_at}") for o in outcomes]
    path = stage.report.picture("story.png", "quality under the planted truth, and who answered")
    pictures.story(path, stage.report.title, points, dict(who), marks)
