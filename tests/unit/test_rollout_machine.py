"""The state machine: whatever happens in whatever order, one champion, shares that add to 100, and a way back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from models.rollout import events as e
from models.rollout.guardrails import Judged
from models.rollout.machine import Refused, step
from models.rollout.shares import arm_of, fraction, shares_of
from models.rollout.state import PERCENT, SERVING, Config, Lineup, Ref, State

CONFIG = Config(step_s=10, shadow_s=5, least_requests=10, least_shadow=5, timeout_s=100, cooldown_s=50,
                most_retrains_per_day=2, drift_confirmations=2)
GOOD = Judged(requests=50)
BAD = Judged(breach="clicks", why="clicks: canary 0.01, control 0.1", requests=50)


def lineup(version: str) -> Lineup:
    return {name: Ref(version, f"{name}-{version}") for name in ("ranker", "two-tower")}


def begun(**changes: Any) -> State:
    return replace(step(State(), e.ChampionFound(0, lineup("1"), "then"), CONFIG), announce=(), **changes)


def run(state: State, *events: e.Event) -> State:
    for event in events:
        state = step(state, event, CONFIG)
    return state


def drift(at_ms: int, n: int = 1) -> e.DriftReported:
    return e.DriftReported(at_ms, f"d{n}", "drift", ("PSI of item_ctr_24h 0.4",))


def gated(bypassed: bool = False) -> State:
    state = run(begun(), drift(1000), drift(2000, 2))
    assert state.job is not None
    return step(state, e.JobEnded(3000, state.job.id, "passed", "12 checks", lineup("2"), bypassed), CONFIG)


def at(name: str, bypassed: bool = False) -> State:
    """A rollout that has come to the state `name`, at 20 s a step."""
    state, now = gated(bypassed), 4000
    while state.name != name:
        now += 20_000
        state = step(state, e.Ticked(now, GOOD), CONFIG)
    return state


def test_from_drift_to_promotion_and_back_to_health() -> None:
    state = at("promoted")
    assert (state.champion, state.challenger, state.previous) == (lineup("2"), None, lineup("1"))
    path = [t.to for t in state.announce]
    assert path == ["drift_suspected", "retraining", "gated", "shadow", "canary_5", "canary_25", "canary_50",
                    "canary_100", "promoted"]
    assert all(t.reason for t in state.announce)
    assert step(state, e.Ticked(state.since_ms + 11_000, GOOD), CONFIG).name == "healthy"


@pytest.mark.parametrize("name", ["shadow", *PERCENT])
def test_a_broken_guardrail_ends_the_rollout_at_once(name: str) -> None:
    state = at(name)
    back = step(state, e.Ticked(state.since_ms + 1, BAD), CONFIG)
    assert (back.name, back.champion, back.challenger, back.percent) == ("rolled_back", lineup("1"), None, 0)
    assert "canary 0.01" in back.announce[-1].reason


def test_a_broken_guardrail_after_the_promotion_brings_the_champion_before_back() -> None:
    state = at("promoted")
    back = step(state, e.Ticked(state.since_ms + 1, BAD), CONFIG)
    assert (back.name, back.champion, back.previous) == ("rolled_back", lineup("1"), None)


@pytest.mark.parametrize("judged", [None, Judged(requests=3)])
def test_without_evidence_nothing_goes_on_and_in_the_end_it_goes_back(judged: Judged | None) -> None:
    state = at("canary_5")
    assert step(state, e.Ticked(state.since_ms + 99_000, judged), CONFIG).name == "canary_5"
    back = step(state, e.Ticked(state.since_ms + 101_000, judged), CONFIG)
    assert (back.name, back.announce[-1].trigger) == ("rolled_back", "timeout")


def test_the_registry_away_pauses_the_promotion_and_nothing_else() -> None:
    assert at("canary_100").name == "canary_100"  # every step before goes on without it
    state = at("canary_100")
    later = state.since_ms + 500_000
    waits = step(state, e.Ticked(later, GOOD, registry_up=False), CONFIG)
    assert (waits.name, "registry" in waits.paused) == ("canary_100", True)
    assert step(waits, e.Ticked(later, BAD, registry_up=False), CONFIG).name == "rolled_back"
    assert step(waits, e.Ticked(later, GOOD), CONFIG).name == "promoted"
    with pytest.raises(Refused, match="registry"):
        step(state, e.PromoteAsked(later, "now", "ann", registry_up=False), CONFIG)


def test_a_hold_stops_steps_but_not_a_rollback() -> None:
    state = step(at("canary_5"), e.HoldAsked(90_000, "let me look", "ann", "ranker"), CONFIG)
    later = state.since_ms + 500_000
    waits = step(state, e.Ticked(later, GOOD), CONFIG)
    assert (waits.name, "let me look" in waits.paused) == ("canary_5", True)
    assert step(waits, e.Ticked(later, BAD), CONFIG).name == "rolled_back"
    resumed = step(waits, e.ResumeAsked(later, "fine", "ann", "ranker"), CONFIG)
    assert step(resumed, e.Ticked(later, GOOD), CONFIG).name == "canary_25"


def test_a_hold_of_a_model_that_does_not_change_stands_in_nobodys_way() -> None:
    state = at("canary_5")
    challenger = {**lineup("2"), "two-tower": lineup("1")["two-tower"]}
    state = step(replace(state, challenger=challenger), e.HoldAsked(9, "why", "ann", "two-tower"), CONFIG)
    assert step(state, e.Ticked(state.since_ms + 20_000, GOOD), CONFIG).name == "canary_25"


def test_drift_must_be_confirmed_and_may_pass() -> None:
    suspected = step(begun(), drift(1000), CONFIG)
    assert suspected.name == "drift_suspected"
    assert step(suspected, e.DriftReported(2000, "d2", "healthy"), CONFIG).name == "healthy"
    assert step(suspected, e.DriftReported(2000, "d2", "insufficient_data"), CONFIG) == suspected


def test_a_drift_alarm_that_stays_on_ends_with_a_person() -> None:
    state, now = begun(), 0
    for _ in range(2):
        state = run(state, drift(now + 1), drift(now + 2))
        assert state.name == "retraining"
        assert state.job is not None
        state = step(state, e.JobEnded(now + 3, state.job.id, "refused", "no better"), CONFIG)
        now += 60_000
        state = step(state, e.Ticked(now), CONFIG)
        assert state.name == "healthy"
    state = run(state, drift(now + 1), drift(now + 2))
    assert (state.name, "a person must look" in state.paused) == ("drift_suspected", True)
    quiet = step(state, drift(now + 3), CONFIG)
    assert quiet.announce == state.announce, "it is said once"


def test_no_retraining_within_the_cooldown_or_while_held() -> None:
    cooling = run(begun(cooldown_until_ms=10_000), drift(1000), drift(2000))
    assert (cooling.name, "cool-down" in cooling.paused) == ("drift_suspected", True)
    held = run(begun(), e.HoldAsked(1, "audit", "ann"), drift(1000), drift(2000))
    assert (held.name, "held" in held.paused) == ("drift_suspected", True)


def test_a_job_that_fails_is_tried_again_once() -> None:
    state = run(begun(), drift(1000), drift(2000))
    assert state.job is not None
    again = step(state, e.JobEnded(3000, state.job.id, "failed", "killed"), CONFIG)
    assert (again.name, again.job and again.job.attempt) == ("retraining", 2)
    assert step(again, e.JobEnded(4000, state.job.id, "failed", "killed"), CONFIG).name == "rolled_back"
    assert step(again, e.JobEnded(4000, "another job", "passed", "", lineup("3")), CONFIG) == again


def test_a_challenger_that_bypassed_the_gate_is_never_promoted() -> None:
    state = at("canary_50", bypassed=True)
    back = step(state, e.Ticked(state.since_ms + 20_000, GOOD), CONFIG)
    assert (back.name, back.champion) == ("rolled_back", lineup("1"))
    with pytest.raises(Refused, match="bypassed"):
        step(state, e.PromoteAsked(state.since_ms, "now", "ann"), CONFIG)


def test_a_champion_published_by_hand_drops_the_challenger() -> None:
    state = step(at("canary_25"), e.ChampionFound(99_000, lineup("9"), "just now"), CONFIG)
    assert (state.name, state.champion, state.previous, state.challenger) == (
        "rolled_back", lineup("9"), lineup("1"), None)
    assert step(state, e.ChampionFound(99_001, lineup("9"), "just now"), CONFIG) == state


def test_what_the_controller_has_not_written_yet_is_no_champion_by_hand() -> None:
    state = at("promoted")
    assert step(state, e.ChampionFound(state.since_ms, lineup("1"), "then"), CONFIG) == state


def test_commands_that_the_state_does_not_allow_are_refused_with_the_reason() -> None:
    for command, why in (
        (e.PromoteAsked(1, "r", "a"), "no challenger"), (e.RollbackAsked(1, "r", "a"), "neither"),
        (e.ResumeAsked(1, "r", "a"), "not held"),
    ):
        with pytest.raises(Refused, match=why):
            step(begun(), command, CONFIG)
    with pytest.raises(Refused, match="under way"):
        step(at("canary_5"), e.RetrainAsked(1, "r", "a"), CONFIG)
    with pytest.raises(Refused, match="nothing is published"):
        step(State(), e.RetrainAsked(1, "r", "a"), CONFIG)


def test_a_promotion_can_be_undone_by_hand_long_after() -> None:
    state = at("promoted")
    healthy = step(state, e.Ticked(state.since_ms + 11_000, GOOD), CONFIG)
    back = step(healthy, e.RollbackAsked(healthy.since_ms + 1, "sales fell", "ann"), CONFIG)
    assert (back.name, back.champion, back.announce[-1].from_) == ("rolled_back", lineup("1"), "healthy")


EVENTS = st.one_of(
    st.builds(e.Ticked, st.just(0), st.sampled_from([None, GOOD, BAD, Judged(requests=1)]), st.booleans()),
    st.builds(e.DriftReported, st.just(0), st.just("d"), st.sampled_from(["drift", "healthy", "warn"])),
    st.builds(e.JobEnded, st.just(0), st.just("now"), st.sampled_from(["passed", "refused", "failed"]), st.just("r"),
              st.sampled_from([None, lineup("2"), lineup("3")]), st.booleans()),
    st.builds(e.ChampionFound, st.just(0), st.sampled_from([lineup("1"), lineup("9"), {}]),
              st.sampled_from(["", "then", "later"])),
    st.builds(e.ChallengerRefused, st.just(0), st.just("corrupt")),
    st.builds(e.HoldAsked, st.just(0), st.just("r"), st.just("a"), st.sampled_from(["recommender", "ranker"])),
    st.builds(e.ResumeAsked, st.just(0), st.just("r"), st.just("a"), st.sampled_from(["recommender", "ranker"])),
    st.builds(e.PromoteAsked, st.just(0), st.just("r"), st.just("a"), st.booleans()),
    st.builds(e.RollbackAsked, st.just(0), st.just("r"), st.just("a")),
    st.builds(e.RetrainAsked, st.just(0), st.just("r"), st.just("a")),
    st.builds(e.ChallengerGiven, st.just(0), st.just("r"), st.just("a"), st.just("/f"), st.booleans()),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(EVENTS, st.integers(0, 60_000)), max_size=60))
def test_whatever_happens_the_invariants_hold(happened: list[tuple[e.Event, int]]) -> None:
    state, now = begun(epoch=3), 0
    for event, wait in happened:
        now += wait
        fields = {**vars(event), "at_ms": now}
        if isinstance(event, e.JobEnded) and state.job is not None:
            fields["id"] = state.job.id
        try:
            after = step(state, type(event)(**fields), CONFIG)
        except Refused:
            continue
        assert after.champion, "always exactly one champion"
        assert sum(after.shares.values()) == 100
        assert after.epoch == state.epoch
        assert after.seq >= state.seq
        assert (after.challenger is not None) == (after.name in ("gated", *SERVING))
        assert (after.job is not None) == (after.name == "retraining")
        if after.champion != state.champion and after.name == "promoted":
            assert after.previous == state.champion, "the way back is kept"
            assert not state.bypass
        if after.name != state.name:
            assert after.announce[-1].to == after.name
            assert after.announce[-1].seq == state.seq + 1
        state = after


@given(st.text(min_size=1, max_size=20), st.text(max_size=20))
def test_a_shopper_in_the_canary_stays_in_it_as_it_grows(user: str, salt: str) -> None:
    assert 0 <= fraction(user, salt) < 1
    arms = [arm_of(user, salt, percent) for percent in (0, 5, 25, 50, 100)]
    assert arms[0] == "champion"
    assert arms[-1] == "canary"
    first = arms.index("canary")
    assert set(arms[first:]) == {"canary"}


def test_the_arms_have_their_sizes() -> None:
    users = [f"u{i}" for i in range(20_000)]
    for percent in (5, 25, 50):
        arms = [arm_of(user, "r-1", percent) for user in users]
        for arm, share in shares_of(percent).items():
            assert abs(100 * arms.count(arm) / len(users) - share) < 1.2
    assert {arm_of(user, "r-1", 50) for user in users} == {"canary", "control"}
    moved = sum(arm_of(u, "r-1", 5) != arm_of(u, "r-2", 5) for u in users)
    assert moved > 0, "another experiment, other shoppers"
