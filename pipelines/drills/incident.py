"""`make drill-incident`: three in the morning. Something breaks; triage finds out what, mitigates, and writes it down.

Broken units, a surge of nulls, an upstream that falls silent, a bad deploy. For each: the cause is found from the
analytical store alone (the drill does not tell triage what it did), the harm is limited (retraining held, or the deploy
rolled back), the upstream is repaired, the platform is seen to be well again, and an incident report lies ready.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rich.console import Console

from adapters.analytics import Store, open_store
from adapters.bundles import load_bundle
from adapters.errors import MinimartError, Unavailable
from adapters.incidents import Incidents
from pipelines.drills import pictures
from pipelines.drills.causes import Finding, Look, judge
from pipelines.drills.challengers import SIX, write
from pipelines.drills.report import now_ms
from pipelines.drills.sabotage import exposure
from pipelines.drills.scene import Pace, Scene, scene
from pipelines.drills.triage import figures, look
from settings import Settings

PACE: Final = Pace(step_s=600, shadow_s=5, least_requests=10_000, drift_every_s=3600, asks=12, feeds=3, searches=15,
                   healthy_s=40)  # fmt: skip
SHORT_PACE: Final = replace(PACE, healthy_s=25)
WINDOW_S: Final = 20.0
LAG_S: Final = 4.0  # until events stand in the store
LOOK_EVERY_S: Final = 3.0
FIND_S: Final = 90.0
WELL_S: Final = 75.0


@dataclass(frozen=True)
class Case:
    """One thing that breaks. Without `shares` it is a bad deploy."""

    name: str
    title: str
    cause: str
    shares: Mapping[str, float]


CASES: Final[tuple[Case, ...]] = (
    Case("broken-units", "prices arrive in euros instead of cents", "units", {"broken_units": 0.6}),
    Case("null-surge", "device and country go missing", "nulls", {"nulls": 0.7}),
    Case("silence", "clicks, carts and orders stop coming", "silence", {"silence": 1.0}),
    Case("bad-deploy", "a ranker that orders by chance goes out around the gate", "deploy", {}),
)
SHORT_CASES: Final = ("null-surge", "silence")


@dataclass
class Watch:
    """Looks at the store again and again, and keeps the figures for the picture."""

    stage: Scene
    store: Store
    usual: tuple[int, int]
    before: Look
    seen: list[tuple[int, Look]]

    def again(self, versions_since_ms: int | None = None) -> list[Finding]:
        """The findings of the newest window; none while the store is away.

        What each version served counts from `versions_since_ms` on, else in the window alone.
        """
        until = now_ms() - int(1000 * LAG_S)
        try:
            since = until - int(1000 * WINDOW_S)
            now = look(self.store, since, until, self.usual, versions_since_ms=versions_since_ms)
        except Unavailable as error:
            self.stage.report.say(f"the store does not answer: {error.detail}", "note")
            return []
        self.seen.append((until, now))
        return judge(now, self.before)


def pace_of(*, short: bool) -> Pace:
    return SHORT_PACE if short else PACE


def cases_of(only: str, *, short: bool) -> list[Case]:
    """The one that `only` names, or all of this form."""
    return [c for c in CASES if (c.name == only if only else not short or c.name in SHORT_CASES)]


def deploys(cases: Sequence[Case]) -> bool:
    """Whether a case sends a model around the gate."""
    return any(not case.shares for case in cases)


def drill(settings: Settings, console: Console, *, only: str, short: bool, kill: str) -> bool:
    """Run it; whether it passed. `only` names one case, "" all."""
    pace, cases = pace_of(short=short), cases_of(only, short=short)
    title = f"incident drill: {', '.join(case.name for case in cases)}"
    with scene(settings, "incident", title, pace, console, bypass=deploys(cases), kill=kill) as stage:
        begun, champion = now_ms(), stage.champion()
        for case in cases:
            run(stage, case)
        stage.check_always_answered(stage.shoppers.since(begun))
        stage.check_one_champion(champion)
        return stage.report.end()


def run(stage: Scene, case: Case) -> None:
    """One incident from a healthy platform to a healthy platform."""
    report, incidents = stage.report, Incidents(stage.settings.incidents)
    report.say(f"{case.name}: healthy traffic first", "note")
    stage.stay(stage.pace.healthy_s)
    watch = _usual(stage)
    quiet = [f for f in watch.again() if f.cause != "deploy"]
    report.check(f"{case.name}: nothing is found while all is well", not quiet, _told(quiet))
    begun = now_ms()
    refused = _break(stage, case)
    if refused:
        report.check(f"{case.name}: it could be injected", False, refused)
        return
    report.say(f"injected: {case.title}", "bad")
    if stage.breaker is not None:
        stage.breaker.kill(report)
    finding = _find(stage, watch, case, begun)
    incident = incidents.open(
        f"Drill: {finding.what if finding else case.title}", kind=f"drill-{case.name}", at_ms=begun,
        summary=finding.what if finding else "triage found nothing", labels={"drill": case.name},
        look="make triage", key=f"drill-{case.name}-{begun}",
    )  # fmt: skip
    incidents.note(incident.id, f"injected: {case.title}", at_ms=begun, by="drill")
    if finding is not None:
        incidents.note(incident.id, f"cause found: {finding.what}", at_ms=now_ms(), by="triage")
        mitigated = _mitigate(stage, finding)
        incidents.note(incident.id, f"mitigated: {finding.mitigation}; {mitigated}", at_ms=now_ms(), by="triage")
        report.say(f"mitigated: {mitigated}", "good")
    _repair(stage, case, begun)
    incidents.note(incident.id, "the upstream is repaired", at_ms=now_ms(), by="drill")
    well = _well_again(stage, watch, case)
    _write_down(stage, watch, incidents, incident.id, case, finding, begun, well)


def _usual(stage: Scene) -> Watch:
    until = now_ms() - int(1000 * LAG_S)
    usual = (until - int(1000 * (stage.pace.healthy_s - LAG_S)), until)
    store = open_store(stage.settings)
    before = look(store, *usual, usual)
    return Watch(stage, store, usual, before, [(until, before)])


def _break(stage: Scene, case: Case) -> str:
    """Break it; why that was not possible, "" when it was."""
    if case.shares:
        stage.inject(case.shares)
        return ""
    bundle = load_bundle(stage.settings.published / "ranker" / stage.champion()["ranker"])
    bad = next(b for b in SIX if b.kind == "worse quality")
    version = f"deploy-{now_ms() % 10**6}"
    folder = write(bad, bundle, stage.challenger_folder(version), version, seed=stage.settings.seed)
    try:
        stage.neighbours.challenger(folder, bypass=True, reason="drill: a bad deploy")
    except MinimartError as error:
        return error.detail
    seen = stage.follow_until("canary_5", "rolled_back", within_s=150, since_ms=stage.scenarios[-1][0])
    return "" if seen is not None else "it did not reach the canary"


def _pause(stage: Scene) -> None:
    """Between two looks: the store's cores are the shop's cores."""
    stage.stay(LOOK_EVERY_S)


def _find(stage: Scene, watch: Watch, case: Case, begun: int) -> Finding | None:
    """Ask triage until it names a cause; checks that it is the right one."""
    deadline = time.monotonic() + FIND_S
    found: list[Finding] = []
    while time.monotonic() < deadline and not found:
        _pause(stage)
        found = watch.again(begun)
    took = (now_ms() - begun) / 1000
    first = found[0] if found else None
    saw = f"{first.cause} after {took:.0f} s: {first.what}" if first else f"nothing within {FIND_S:.0f} s"
    stage.report.say(f"triage: {saw}", "good" if first and first.cause == case.cause else "bad")
    stage.report.check(f"{case.name}: triage finds the cause", first is not None and first.cause == case.cause, saw)
    stage.report.figures[f"{case.name}_found_after_s"] = round(took, 1)
    return first


def _mitigate(stage: Scene, finding: Finding) -> str:
    """Do what limits the harm; what was done, in words."""
    rollout = stage.neighbours.rollout() or {}
    if finding.cause == "deploy":
        if not rollout.get("challenger"):
            return "a guardrail had rolled it back already"
        stage.insist("rollback", f"triage: {finding.what}")
        return "rolled back to the champion"
    stage.insist("hold", f"triage: {finding.what}", model="recommender")
    return "retraining and promotions are held; the champion serves on"


def _repair(stage: Scene, case: Case, begun: int) -> None:
    """Whoever broke it repairs it; checks that the mitigation held until then."""
    rollout = stage.neighbours.rollout() or {}
    if case.shares:
        held = bool(rollout.get("holds"))
        stage.report.check(f"{case.name}: retraining is held", held, str(list(rollout.get("holds") or {})))
        stage.inject({})
    else:
        stage.stay(6)
        bad = {str((t.get("challenger") or {}).get("ranker", "")) for t in stage.follower.seen}
        last = stage.follower.last("rolled_back")
        served, _ = exposure(stage.shoppers.since(begun), bad - {"", stage.champion()["ranker"]}, None)
        late = (served[-1].answered_ms - last["at_ms"]) / 1000 if served and last else 0.0
        saw = f"{len(served)} answers of it in all, the last {max(0.0, late):.1f} s after the decision"
        stage.report.check(f"{case.name}: it is gone within 5 s of the rollback", last is not None and late <= 5, saw)


def _well_again(stage: Scene, watch: Watch, case: Case) -> bool:
    """Whether triage has nothing to say of a window that began after the repair."""
    stage.stay(WINDOW_S + LAG_S)
    deadline = time.monotonic() + WELL_S
    left: list[Finding] = []
    while time.monotonic() < deadline:
        _pause(stage)
        left = watch.again()
        if not left:
            break
    with contextlib.suppress(MinimartError):
        if case.shares:
            stage.neighbours.command("resume", f"{case.name} is over", model="recommender")
    stage.report.check(f"{case.name}: well again after the repair", not left, _told(left))
    return not left


def _told(findings: list[Finding]) -> str:
    return "; ".join(f.what for f in findings) or "nothing is wrong"


def _write_down(
    stage: Scene, watch: Watch, incidents: Incidents, id_: str, case: Case, finding: Finding | None, begun: int,
    well: bool,
) -> None:  # fmt: skip
    """The incident's evidence: both windows side by side, and a picture; closed when all is well."""
    during = next((w for at, w in reversed(watch.seen) if begun < at and judge(w, watch.before)), watch.seen[-1][1])
    rows = figures(during, watch.before)
    text = "| | before | during |\n| --- | --- | --- |\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)
    picture = f"{id_}.png"
    marks: list[tuple[float, str]] = [((begun - stage.report.begun_ms) / 1000, "injected")]
    pictures.lines(stage.settings.incidents / picture, case.title, _series(stage, watch), marks, "of the usual")
    incidents.evidence(id_, "What triage compared", text, picture=picture)
    if well:
        resolution = finding.resolution if finding else "repaired by whoever broke it"
        incidents.close(id_, f"{resolution}.", at_ms=now_ms())
    report = stage.settings.incidents / f"{id_}.md"
    stage.report.check(f"{case.name}: the incident report is written", report.exists(), str(report))


def _series(stage: Scene, watch: Watch) -> dict[str, Any]:
    """Rates relative to the healthy ones, and shares, over the seconds of the drill."""
    zero, usual = stage.report.begun_ms, watch.before
    series: dict[str, list[tuple[float, float]]] = {}
    for at, now in watch.seen:
        second = (at - zero) / 1000
        for table in ("impressions", "clicks", "orders"):
            was = usual.events.get(table, 0) / usual.seconds
            if was:
                rate = now.events.get(table, 0) / now.seconds / was
                series.setdefault(f"{table} a second", []).append((second, rate))
        series.setdefault("clicks far too cheap (share)", []).append((second, now.cheap))
        series.setdefault("device empty (share)", []).append((second, now.empty.get("impressions.device", 0.0)))
    return series
