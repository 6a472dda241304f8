"""What every drill stands on: a quiet healthy platform with live traffic, put back as it was at the end.

Before: no scenario, no challenger, the controller under the drill with short steps, our own open-loop shoppers.
After: scenario off, rates as the settings say, a challenger that is left taken back, the drill's holds lifted.
A drill that was killed leaves at most a scenario and a challenger behind; the next one begins by clearing both.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from adapters.errors import MinimartError, Unavailable
from models.marketplace.config import Scenario
from pipelines.drills.follow import Follower, told
from pipelines.drills.neighbours import Neighbours
from pipelines.drills.report import Report, now_ms
from pipelines.drills.shoppers import Answer, OpenLoop
from pipelines.drills.standin import Breaker, StandIn, folder_of, stand_in
from pipelines.drills.truth import Truth, mean_and_error
from settings import Settings

POLL_S: Final = 0.5
SETTLED: Final = ("healthy", "drift_suspected", "rolled_back", "promoted")
SETTLE_S: Final = 60.0
INSIST_S: Final = 45.0
WHILE_TRAINING: Final = 0.4  # of the pace's traffic
MOST_JUDGED: Final = 400
MOST_DRAWN: Final = 1500
BYPASS: Final = {"MINIMART_ROLLOUT_GATE_BYPASS": "true"}


@dataclass(frozen=True)
class Pace:
    """How long a drill takes its time. Rates are a second; *_s are seconds."""

    step_s: float = 12
    shadow_s: float = 8
    least_requests: int = 20
    least_shadow: int = 30
    drift_every_s: float = 12
    drift_settle_s: float = 15
    drift_window_s: int = 25
    confirmations: int = 2
    healthy_s: float = 85
    after_s: float = 25
    asks: float = 10  # of our own shoppers
    feeds: float = 2  # of the simulator
    searches: float = 16
    away_s: float = 10  # how long a part that is killed stays away
    most_s: float = 480

    def parts(self, *, bypass: bool) -> dict[str, dict[str, str]]:
        """The parts that a drill runs with settings of its own, in the order in which they start; with `bypass` also
        the recommender, and both take models that failed the gate."""
        return {"recommender": BYPASS, "controller": self.knobs() | BYPASS} if bypass else {"controller": self.knobs()}

    def knobs(self) -> dict[str, str]:
        """The controller's settings for this pace."""
        values = {
            "ROLLOUT_STEP_S": self.step_s, "ROLLOUT_SHADOW_S": self.shadow_s,
            "ROLLOUT_LEAST_REQUESTS": self.least_requests, "ROLLOUT_LEAST_SHADOW": self.least_shadow,
            "ROLLOUT_COOLDOWN_S": 0, "ROLLOUT_MAX_RETRAINS_PER_DAY": 100,
            "DRIFT_EVERY_S": self.drift_every_s, "DRIFT_SETTLE_S": self.drift_settle_s,
            "DRIFT_CONFIRMATIONS": self.confirmations,
        }  # fmt: skip
        knobs = {f"MINIMART_{name}": f"{value:g}" for name, value in values.items()}
        return knobs | {"MINIMART_DRIFT_WINDOW": f"{self.drift_window_s}s"}


SHORT: Final = Pace(
    step_s=5, shadow_s=4, least_requests=12, least_shadow=12, drift_every_s=5, drift_settle_s=6,
    drift_window_s=15, confirmations=1, healthy_s=30, after_s=15, asks=15, feeds=3, searches=30, away_s=5, most_s=420,
)  # fmt: skip


@dataclass
class Scene:
    """The running drill: whom it talks to, what it saw so far."""

    settings: Settings
    pace: Pace
    report: Report
    neighbours: Neighbours
    truth: Truth
    shoppers: OpenLoop
    breaker: Breaker | None = None
    share: float = 0.0
    """How much of the pace's traffic there is now."""
    follower: Follower = field(default_factory=lambda: Follower(0))
    scenarios: list[tuple[int, Scenario]] = field(default_factory=lambda: [(0, Scenario())])

    def inject(self, shares: Mapping[str, float]) -> int:
        """This scenario holds from now on; gives the moment (ms)."""
        self.neighbours.set_scenario(shares)
        self.shoppers.scenario = Scenario(**shares)
        at = now_ms()
        self.scenarios.append((at, self.shoppers.scenario))
        return at

    def busy(self, share: float) -> None:
        """Let the traffic be this share of the pace's, while the simulator is there to be told."""
        if share != self.share:
            with contextlib.suppress(Unavailable):
                self.neighbours.set_rate(share * self.pace.feeds, share * self.pace.searches)
                self.shoppers.rate, self.share = share * self.pace.asks, share

    def follow(self) -> list[dict[str, Any]]:
        """Wait a moment, tell what the controller did meanwhile and keep the breaker going; the new transitions."""
        time.sleep(POLL_S)
        if self.breaker is not None:
            self.breaker.tick(self.report)
        rollout = self.neighbours.rollout()
        if rollout is not None:  # training, gating and traffic share the cores of one machine
            self.busy(WHILE_TRAINING if rollout["state"] == "retraining" else 1.0)
        new = self.follower.take(rollout)
        for transition in new:
            mood = {"rolled_back": "bad", "promoted": "good"}.get(transition["to"], "plain")
            self.report.say(told(transition), mood, at_ms=int(transition["at_ms"]))  # type: ignore[arg-type]
        return new

    def stay(self, seconds: float) -> None:
        """Follow for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.follow()

    def follow_until(self, *states: str, within_s: float, since_ms: int = 0) -> dict[str, Any] | None:
        """Follow until one of these states is entered; its transition, None when it takes too long."""
        deadline = time.monotonic() + within_s
        while True:
            for transition in self.follower.seen:
                moved = transition["from"] != transition["to"] and transition["at_ms"] >= since_ms
                if moved and transition["to"] in states:
                    return transition
            if time.monotonic() > deadline:
                return None
            self.follow()

    def quality(self, since_ms: int, until_ms: int | None = None, *, arm: str = "") -> tuple[float, float, int]:
        """Quality of the feeds served in this time under the truth of their time: mean, its error, how many."""
        answers = [a for a in self.shoppers.since(since_ms, until_ms) if a.items and (not arm or a.arm == arm)]
        values: list[float] = []
        for scenario, part in self.by_scenario(thinned(answers, MOST_JUDGED)):
            values += self.truth.quality(self.shoppers.feeds(part), scenario).tolist()
        return (*mean_and_error(values), len(values))

    def expected_clicks(self, since_ms: int, until_ms: int | None = None) -> float:
        """Expected clicks a feed of those served in this time."""
        values: list[float] = []
        for scenario, part in self.by_scenario([a for a in self.shoppers.since(since_ms, until_ms) if a.items]):
            values += self.truth.clicks(self.shoppers.feeds(part), scenario).tolist()
        return mean_and_error(values)[0]

    def by_scenario(self, answers: list[Answer]) -> Iterator[tuple[Scenario, list[Answer]]]:
        """The answers, apart by the scenario that held when they were asked for."""
        for n, (begun, scenario) in enumerate(self.scenarios):
            end = self.scenarios[n + 1][0] if n + 1 < len(self.scenarios) else float("inf")
            part = [a for a in answers if begun <= a.sent_ms < end]
            if part:
                yield scenario, part

    def insist(self, verb: str, reason: str, **more: Any) -> None:
        """A command to the controller, also while it is away for a while. Raises BadInput and Unavailable."""
        deadline = time.monotonic() + INSIST_S
        while True:
            try:
                self.neighbours.command(verb, reason, **more)
                return
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            self.follow()

    def challenger_folder(self, version: str) -> Path:
        """Where a challenger that the drill makes is written: the controller must be able to read it."""
        return self.settings.work / "drills" / self.report.folder.name / version

    def champion(self) -> dict[str, str]:
        """The champion as the recommender has it. Raises Unavailable."""
        lineups = self.neighbours.lineups()
        if lineups is None:
            raise Unavailable("the recommender does not say which models it serves: make status")
        return dict(lineups["champion"])

    def check_one_champion(self, expected: Mapping[str, str] | None = None) -> None:
        """The invariant of every drill: one champion, the same for the controller and the recommender."""
        rollout, lineups = self.neighbours.rollout() or {}, self.neighbours.lineups() or {}
        said, serves = rollout.get("champion") or {}, lineups.get("champion") or {}
        same = bool(said) and dict(said) == dict(serves)
        saw = f"{_short(said)}; {_short(serves)}"
        self.report.check("one champion, the same for controller and recommender", same, saw)
        if expected is not None:
            self.report.check("never another champion", dict(serves) == dict(expected), _short(serves))

    def check_always_answered(self, answers: list[Answer]) -> None:
        """Every request of our shoppers got a feed. One in 200 may be lost, one in 20 shed for load (429)."""
        shed = [a for a in answers if a.status == 429]
        failed = [a for a in answers if a.status not in (200, 429)]
        kinds = sorted({a.status for a in failed})
        saw = f"{len(answers)} asked, {len(failed)} lost {kinds or ''}, {len(shed)} shed for load"
        ok = len(failed) <= max(1, len(answers) // 200) and len(shed) <= len(answers) // 20
        self.report.check("always an answer", ok, saw)

    def settle(self) -> None:
        """Take back a challenger that is left and wait until no rollout goes on. Raises Unavailable."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            rollout = self.neighbours.rollout()
            if rollout is not None and rollout["state"] in SETTLED:
                return
            if rollout is not None:
                with contextlib.suppress(MinimartError):
                    self.neighbours.command("rollback", "a drill clears the stage")
            if time.monotonic() > deadline:
                state = "does not answer" if rollout is None else f"is in state {rollout['state']}"
                raise Unavailable(f"the controller {state} after {SETTLE_S:.0f} s; see make logs S=controller")
            time.sleep(POLL_S)


def thinned(answers: list[Answer], most: int) -> list[Answer]:
    """At most so many of the answers, evenly over time: judging a feed ranks the whole catalogue for its shopper."""
    return answers[:: -(-len(answers) // most)] if len(answers) > most else answers


@contextlib.contextmanager
def scene(
    settings: Settings, name: str, title: str, pace: Pace, console: Console, *,
    bypass: bool = False, kill: str = "", clicks: bool = True,
) -> Iterator[Scene]:  # fmt: skip
    """Set the stage, and clear it whatever happens. Raises MinimartError where there is no platform to drill on."""
    truth = Truth.load(settings.truth)
    neighbours = Neighbours(settings)
    for part in ("recommender", "collector", "simulator"):
        neighbours.wait_ready(part, 20)
    report = Report(folder_of(settings, name), title, console)
    with contextlib.ExitStack() as stack:
        children: dict[str, StandIn | None] = {
            part: stack.enter_context(stand_in(part, neighbours, environment, report))
            for part, environment in pace.parts(bypass=bypass).items()
        }
        seed = int(time.time())
        shoppers = OpenLoop(settings, truth, rate=pace.asks, seed=seed, clicks=clicks)
        breaker = Breaker(kill, settings, children, pace.away_s) if kill else None
        stage = Scene(settings, pace, report, neighbours, truth, shoppers, breaker)
        stage.settle()
        stage.follower = Follower.from_now(neighbours.rollout() or {"history": []})
        stack.callback(_clear, stage)
        neighbours.set_scenario({})
        stage.busy(1.0)
        shoppers.start()
        yield stage


def _clear(stage: Scene) -> None:
    """Put everything back; what cannot be put back is said."""
    stage.shoppers.stop()
    if stage.breaker is not None and stage.breaker.killed_at is not None and not stage.breaker.back:
        stage.breaker.killed_at -= stage.breaker.away_s
        stage.breaker.tick(stage.report)
    steps = (
        lambda: stage.neighbours.set_scenario({}),
        lambda: stage.neighbours.set_rate(None, None),
        lambda: _lift_holds(stage),
        stage.settle,
    )
    for step in steps:
        try:
            step()
        except MinimartError as error:
            stage.report.say(f"not put back: {error.detail}", "bad")


def _lift_holds(stage: Scene) -> None:
    for model, hold in ((stage.neighbours.rollout() or {}).get("holds") or {}).items():
        if hold.get("actor") == "drill":
            stage.neighbours.command("resume", "the drill is over", model=model)


def _short(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{model} {version}" for model, version in sorted(versions.items())) or "none"
