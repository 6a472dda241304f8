"""The drills' judgement on made-up platforms: fakes at the HTTP edge and at the analytical store only."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from rich.console import Console

from adapters.errors import BadInput, Misconfigured, Unavailable
from models.marketplace.config import MINUTE, Scenario, WorldConfig
from models.marketplace.truth import best_feed
from models.marketplace.world import build_world, item_id
from pipelines.drills import drift, pictures, sabotage
from pipelines.drills.causes import Finding, Look, Served, judge
from pipelines.drills.follow import Follower, steps_in_order, told
from pipelines.drills.neighbours import Neighbours
from pipelines.drills.report import Report
from pipelines.drills.scene import SHORT, Pace, Scene
from pipelines.drills.shoppers import Answer, OpenLoop
from pipelines.drills.truth import Feeds, Truth
from settings import Settings

AS_OF = 1_795_000_020_000 // MINUTE * MINUTE
NOW = AS_OF + MINUTE
CHAMPION = {"ranker": "1", "two-tower": "1"}


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(build_world(WorldConfig(shoppers=200, items=300, days=7, seed=7, as_of_ms=AS_OF)))


def settings_of(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, _env_file=None)  # type: ignore[call-arg]


def transition(seq: int, was: str, now: str, at_ms: int = 0, challenger: str = "2", **more: Any) -> dict[str, Any]:
    given = {"ranker": challenger} if challenger else None
    base = {"seq": seq, "from": was, "to": now, "at_ms": at_ms or seq * 1000, "reason": "why", "challenger": given}
    return {**base, **more}


def ride(*states: str) -> list[dict[str, Any]]:
    """Transitions through these states, newest first, as the controller answers."""
    return [transition(n, a, b) for n, (a, b) in enumerate(itertools.pairwise(states), 1)][::-1]


WHOLE = ("healthy", "drift_suspected", "retraining", "gated", "shadow", "canary_5", "canary_25", "canary_50",
         "canary_100", "promoted", "healthy")  # fmt: skip


class FakePlatform:
    """Controller, recommender, simulator and collector behind one transport."""

    def __init__(self, history: Sequence[Mapping[str, Any]] = (), champion: Mapping[str, str] = CHAMPION) -> None:
        self.history, self.champion = list(history), dict(champion)
        self.serves = dict(champion)
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.away: set[int] = set()
        self.state = "healthy"

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.port in self.away:
            raise httpx.ConnectError("refused")
        path = request.url.path
        if request.method == "POST":
            self.said.append((path, json.loads(request.content)))
            if path == "/v1/challengers":
                return httpx.Response(409, json={"detail": "a rollout goes on"})
            return httpx.Response(202, json={"accepted": True})
        if path == "/v1/rollout":
            body = {"state": self.state, "history": self.history, "champion": self.champion}
            return httpx.Response(200, json={**body, "challenger": None, "holds": {}})
        if path == "/v1/lineups":
            return httpx.Response(200, json={"champion": self.serves})
        text = ('minimart_events_total{service="collector",topic="a",outcome="accepted"} 40.0\n'
                'minimart_events_total{service="collector",topic="b",outcome="accepted"} 2.0\n'
                'minimart_events_total{service="collector",topic="b",outcome="refused"} 9.0\n')  # fmt: skip
        return httpx.Response(200, text=text)


def neighbours_of(platform: FakePlatform, tmp_path: Path) -> Neighbours:
    return Neighbours(settings_of(tmp_path), httpx.Client(transport=httpx.MockTransport(platform)))


def scene_of(platform: FakePlatform, truth: Truth, tmp_path: Path) -> Scene:
    settings = settings_of(tmp_path)
    report = Report(tmp_path / "report", "a drill", Console(quiet=True))
    shoppers = OpenLoop(settings, truth, rate=1.0, seed=1)
    return Scene(settings, replace(Pace(), most_s=1), report, neighbours_of(platform, tmp_path), truth, shoppers)


def answer(at: int, user: int = 1, version: str = "1", items: Sequence[int] = (), **more: Any) -> Answer:
    return Answer(at, at + 20, 200, user, tuple(items) or tuple(range(20)), (("ranker", version),), **more)


# --- talking to the platform


def test_questions_to_who_is_away_give_none_and_commands_raise(tmp_path: Path) -> None:
    platform = FakePlatform()
    settings = settings_of(tmp_path)
    neighbours = neighbours_of(platform, tmp_path)
    assert neighbours.events_accepted() == 42
    with pytest.raises(BadInput, match="a rollout goes on"):
        neighbours.challenger(tmp_path, bypass=False, reason="x")
    platform.away = {settings.port(p) for p in ("controller", "collector", "recommender")}
    assert neighbours.rollout() is None
    assert neighbours.lineups() is None
    assert neighbours.events_accepted() == 0
    with pytest.raises(Unavailable, match="controller"):
        neighbours.command("hold", "x")
    with pytest.raises(Unavailable, match="make logs S=recommender"):
        neighbours.wait_ready("recommender", 0)


def test_a_drill_without_the_simulators_truth_says_so(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="make demo without DATA"):
        Truth.load(tmp_path)


# --- following the controller


def test_transitions_are_told_once_and_in_order_whatever_is_away() -> None:
    follower = Follower.from_now({"history": ride("healthy", "retraining")})
    assert follower.take(None) == []
    assert follower.take({"history": ride(*WHOLE[:4])}) != []
    assert follower.take({"history": ride(*WHOLE)})[-1]["to"] == "healthy"
    assert follower.take({"history": ride(*WHOLE)}) == []
    assert [t["seq"] for t in follower.seen] == list(range(2, 11))
    assert told(follower.seen[0]) == "drift_suspected -> retraining (ranker 2): why"


def test_steps_must_be_all_and_in_order() -> None:
    assert steps_in_order(list(WHOLE))
    assert not steps_in_order([s for s in WHOLE if s != "canary_25"])
    assert not steps_in_order(["shadow", "canary_25", "canary_5", "canary_50", "canary_100"])
    assert not steps_in_order(["shadow", "canary_5", "rolled_back", "shadow", "canary_5", "canary_25", "canary_50"])


def test_the_most_that_a_canary_was_given_is_seen() -> None:
    follower = Follower(0)
    follower.take({"history": ride("healthy", "shadow", "canary_5", "rolled_back")})
    assert follower.most_canary() == 5
    follower.take({"history": [transition(9, "canary_5", "canary_5", shares={"canary": 25})]})
    assert follower.most_canary() == 25


# --- quality under the truth


def test_quality_is_one_for_the_best_feed_and_falls_when_tastes_shift(truth: Truth) -> None:
    users = np.arange(0, 60)
    times = np.full(60, NOW)
    best = best_feed(truth.world, users, times, 20)
    feeds = Feeds(users, best, times)
    np.testing.assert_allclose(truth.quality(feeds, Scenario()), 1.0)
    assert truth.quality(feeds, Scenario(taste_shift=1.0)).mean() < 0.7
    assert truth.rows_of([item_id(3), "ghost", "i1", item_id(9999)], 5) == [3, -1, -1, -1, -1]


def test_each_answer_is_judged_by_the_truth_of_its_time(truth: Truth, tmp_path: Path) -> None:
    stage = scene_of(FakePlatform(), truth, tmp_path)
    user = 3
    best = best_feed(truth.world, np.array([user]), np.array([NOW]), 20)[0].tolist()
    stage.shoppers.answers += [answer(NOW, user, items=best), answer(NOW + 10_000, user, items=best)]
    shifted = Scenario(taste_shift=1.0)
    stage.scenarios.append((NOW + 5_000, shifted))
    assert stage.quality(NOW, NOW + 5_000)[0] == pytest.approx(1.0, abs=1e-3)
    assert stage.quality(NOW + 5_000)[0] < 0.9
    assert stage.expected_clicks(NOW + 5_000) < stage.expected_clicks(NOW, NOW + 5_000)


# --- the drift drill's judgement


def judged_drift(platform: FakePlatform, truth: Truth, tmp_path: Path, better: bool = True) -> Report:
    stage = scene_of(platform, truth, tmp_path)
    stage.follower.take({"history": platform.history})
    moments = {"begun": 0, "injected": 500, "detected": 1000, "over": 40_000}
    moments |= {t["to"]: t["at_ms"] for t in reversed(platform.history)}
    stage.report.figures |= {"detected_after_s": 0.5, "detected_after_events": 9}
    users = np.arange(50)
    good = best_feed(truth.world, users, np.full(50, NOW), 20)
    bad = np.tile(np.arange(20), (50, 1))
    for n, user in enumerate(users.tolist()):
        stage.shoppers.answers.append(answer(600 + n, user, "1", items=bad[n].tolist()))
        stage.shoppers.answers.append(answer(20_000 + n, user, "2", items=(good if better else bad)[n].tolist()))
    drift.judge(stage, moments, "taste_shift")
    drift.draw(stage, moments)
    return stage.report


def failed(report: Report) -> list[str]:
    return [check.name for check in report.checks if not check.ok]


def test_a_whole_ride_passes_and_leaves_report_and_picture(truth: Truth, tmp_path: Path) -> None:
    platform = FakePlatform(ride(*WHOLE), champion={"ranker": "2", "two-tower": "1"})
    report = judged_drift(platform, truth, tmp_path)
    assert failed(report) == []
    assert report.end()
    assert json.loads((report.folder / "report.json").read_text())["passed"] is True
    assert "PASS" in (report.folder / "report.md").read_text()
    assert (report.folder / "story.png").stat().st_size > 10_000


def test_a_rollback_a_skipped_step_or_feeds_that_are_no_better_fail(truth: Truth, tmp_path: Path) -> None:
    rolled = FakePlatform(ride("healthy", "retraining", "gated", "shadow", "canary_5", "rolled_back"))
    assert {"promoted"} <= set(failed(judged_drift(rolled, truth, tmp_path)))
    skipped = FakePlatform(ride(*(s for s in WHOLE if s != "canary_25")), champion={"ranker": "2", "two-tower": "1"})
    assert any("in order" in name for name in failed(judged_drift(skipped, truth, tmp_path)))
    no_better = FakePlatform(ride(*WHOLE), champion={"ranker": "2", "two-tower": "1"})
    assert any("better" in name for name in failed(judged_drift(no_better, truth, tmp_path, better=False)))


def test_two_champions_fail(truth: Truth, tmp_path: Path) -> None:
    platform = FakePlatform(ride(*WHOLE), champion={"ranker": "2", "two-tower": "1"})
    platform.serves = {"ranker": "1", "two-tower": "1"}
    assert any("one champion" in name for name in failed(judged_drift(platform, truth, tmp_path)))


def test_unanswered_requests_fail(truth: Truth, tmp_path: Path) -> None:
    stage = scene_of(FakePlatform(), truth, tmp_path)
    good = [answer(n) for n in range(190)]
    stage.check_always_answered([*good, *(Answer(1, 2, 429, 1) for _ in range(5))])
    stage.check_always_answered([*good, *(Answer(n, n, 0, 1) for n in range(10))])
    stage.check_always_answered([*good, *(Answer(1, 2, 429, 1) for _ in range(50))])
    assert [c.ok for c in stage.report.checks] == [True, False, False]


# --- the sabotage drill's judgement


def outcome(**more: Any) -> sabotage.Outcome:
    bad = next(b for b in sabotage.SIX if b.kind == "worse quality")
    base = sabotage.Outcome(bad, False, "gate", "the gate refused: quality (NDCG@10 0.2, champion 0.3)", 0, (), (), 0.0)
    return replace(base, **more)


def test_exposure_counts_only_what_the_bad_version_answered() -> None:
    answers = [answer(1000 * n, version="7" if 10 <= n <= 12 else "1") for n in range(40)]
    served, meanwhile = sabotage.exposure(answers, {"7"}, (8_000, 20_000))
    assert (len(served), len(meanwhile)) == (3, 13)
    served, meanwhile = sabotage.exposure(answers, {"7"}, (11_000, 11_500))
    assert (len(served), len(meanwhile)) == (3, 3), "before and after the canary counts too"
    assert sabotage.exposure(answers, {"9"}, None) == ((), ())


def test_five_percent_is_judged_with_its_sampling_error() -> None:
    each_once = [answer(n, user=n) for n in range(10_000)]
    assert 0.05 < sabotage.allowed(each_once) < 0.06
    assert 0.10 < sabotage.allowed(each_once[:100]) < 0.14
    few_busy = [answer(n, user=n % 20) for n in range(10_000)]
    assert sabotage.allowed(few_busy) > 0.15, "of twenty shoppers one may well be drawn twice"


def test_the_gate_must_stop_it_for_its_own_fault_and_before_anybody_sees_it(truth: Truth, tmp_path: Path) -> None:
    stage = scene_of(FakePlatform(), truth, tmp_path)
    sabotage.judge_gated(stage, outcome())
    sabotage.judge_gated(stage, outcome(reason="the machine was tired"))
    sabotage.judge_gated(stage, outcome(stopped_at="canary_5"))
    sabotage.judge_gated(stage, outcome(served=(answer(1),)))
    assert [c.ok for c in stage.report.checks] == [True, False, False, False]


def test_around_the_gate_share_duration_and_rollback_are_bounded(truth: Truth, tmp_path: Path) -> None:
    stage = scene_of(FakePlatform(), truth, tmp_path)
    all_ = tuple(answer(n, user=n) for n in range(1800))
    few = tuple(answer(n * 1000, version="9") for n in range(30))
    right = outcome(bypass=True, stopped_at="canary_5", served=few, meanwhile=all_[:600], ended_ms=29_500,
                    most_canary=5.0)  # fmt: skip
    sabotage.judge_bypassed(stage, right)
    sabotage.judge_bypassed(stage, replace(right, most_canary=25.0))
    sabotage.judge_bypassed(stage, replace(right, meanwhile=all_[:200]))
    sabotage.judge_bypassed(stage, replace(right, ended_ms=20_000))
    sabotage.judge_bypassed(stage, replace(right, stopped_at="not stopped"))
    long = tuple(answer(n * 1000, version="9") for n in range(90))
    sabotage.judge_bypassed(stage, replace(right, served=long, meanwhile=all_[:1800], ended_ms=89_500))
    sabotage.judge_bypassed(stage, replace(right, served=right.served[:6], meanwhile=all_[:15]))
    assert [c.ok for c in stage.report.checks] == [True, False, False, False, False, False, False]


# --- triage

USUAL = Look(
    40.0, {"impressions": 600, "clicks": 2400, "carts": 300, "orders": 120}, {"impressions.device": 0.0}, 0.01, 0,
    {"1": Served(600, 1300, 25.0, 0.0)},
    {"device=phone": (350, 760), "device=desktop": (250, 540), "country=DE": (300, 650), "country=FR": (300, 650)},
)  # fmt: skip
NOW_WELL = replace(
    USUAL, seconds=20.0, events={"impressions": 310, "clicks": 1150, "carts": 140, "orders": 55},
    versions={"1": Served(310, 640, 27.0, 0.0)},
    slices={"device=phone": (180, 370), "device=desktop": (130, 270),
            "country=DE": (155, 330), "country=FR": (155, 310)},
)  # fmt: skip
OLD = Served(300, 640, 27.0, 0.0)


def causes(findings: Sequence[Finding]) -> list[str]:
    return [f.cause for f in findings]


def test_a_healthy_platform_has_no_findings() -> None:
    assert judge(NOW_WELL, USUAL) == []
    assert judge(replace(NOW_WELL, events={}), Look(20.0)) == [], "nothing is known yet"


@pytest.mark.parametrize(
    ("broken", "cause", "says"),
    [
        (replace(NOW_WELL, events={"impressions": 300}), "silence", "clicks at 0%"),
        (replace(NOW_WELL, empty={"impressions.device": 0.7}), "nulls", "device 0% -> 70%"),
        (replace(NOW_WELL, cheap=0.4), "units", "40% of the clicks"),
        (replace(NOW_WELL, dead_letters=200), "schema", "dead letters"),
        (replace(NOW_WELL, versions={"1": OLD, "9": Served(30, 12, 26.0, 0.0)}), "deploy", "ranker 9"),
        (replace(NOW_WELL, versions={"1": OLD, "9": Served(30, 60, 90.0, 0.0)}), "deploy", "90 ms"),
        (replace(NOW_WELL, deployed=("canary_5 -> rolled_back: clicks",)), "deploy", "just rolled back"),
        (replace(NOW_WELL, slices={**NOW_WELL.slices, "device=phone": (180, 120)}), "slice", "only device=phone"),
    ],
)  # fmt: skip
def test_each_cause_is_named_first(broken: Look, cause: str, says: str) -> None:
    found = judge(broken, USUAL)
    assert causes(found)[:1] == [cause]
    assert says in found[0].what
    assert found[0].mitigation
    assert found[0].resolution


def test_a_quiet_platform_is_not_a_silent_upstream() -> None:
    night = {name: count // 10 for name, count in NOW_WELL.events.items()}
    assert judge(replace(NOW_WELL, events=night), USUAL) == [], "feeds are fewer too"


def test_silence_comes_before_what_it_causes() -> None:
    silent = replace(NOW_WELL, events={"impressions": 300}, cheap=0.3,
                     slices={**NOW_WELL.slices, "device=phone": (180, 100)})  # fmt: skip
    assert causes(judge(silent, USUAL))[0] == "silence"


# --- the pace


def test_the_knobs_are_settings_of_the_controller() -> None:
    for pace in (Pace(), SHORT, sabotage.PACE):
        for name in pace.knobs():
            assert name.removeprefix("MINIMART_").lower() in Settings.model_fields, name


@pytest.mark.parametrize("bad", [[], [(3.0, 1.0)]])
def test_a_story_is_drawn_whether_or_not_a_bad_model_ever_answered(tmp_path: Path, bad: list[Any]) -> None:
    good = [(1.0, 0.5), (2.0, 0.4)]
    pictures.story(tmp_path / "story.png", "t", good, {"champion": good, "bad challenger": bad}, [(2.0, "stopped")])
    assert (tmp_path / "story.png").stat().st_size > 1000


def test_a_story_of_nobody_is_drawn(tmp_path: Path) -> None:
    pictures.story(tmp_path / "story.png", "t", [], {"champion": [], "bad challenger": []}, [])
    assert (tmp_path / "story.png").exists()
