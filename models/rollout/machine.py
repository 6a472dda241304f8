"""The state machine: (state, event) -> state. Pure: what it decides is carried out by whoever keeps the state.

    healthy -> drift_suspected -> retraining -> gated -> shadow -> canary_5 -> 25 -> 50 -> 100 -> promoted -> healthy
    any of them with a challenger -> rolled_back -> healthy

Who serves follows from the state alone (`state.champion`, `state.challenger`, `state.percent`), so there is always one
champion and the shares add to 100. Promotion moves the champion to `previous`; rolling back a promotion moves it back.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from models.rollout import events as e
from models.rollout.state import EVERYTHING, PERCENT, SERVING, Config, Hold, Job, Name, State, Transition, versions

DAY_MS: Final = 86_400_000
NEXT: Final[dict[str, Name]] = {
    "gated": "shadow", "shadow": "canary_5", "canary_5": "canary_25", "canary_25": "canary_50",
    "canary_50": "canary_100", "canary_100": "promoted", "promoted": "healthy",
}  # fmt: skip
_IDLE: Final = ("healthy", "drift_suspected", "rolled_back", "promoted")


class Refused(Exception):
    """The state does not allow what was asked; the message says why."""


def step(state: State, event: e.Event, config: Config) -> State:
    """What follows. Raises Refused for a command that the state does not allow; no other event can fail."""
    match event:
        case e.Ticked():
            return _ticked(state, event, config)
        case e.DriftReported():
            return _drift(state, event, config)
        case e.JobEnded():
            return _job_ended(state, event, config)
        case e.ChampionFound():
            return _champion_found(state, event)
        case e.ChallengerRefused():
            if state.name not in SERVING:
                return state
            return _roll_back(state, event, config, "load", f"the recommender refused the challenger: {event.why}")
        case e.HoldAsked():
            hold = Hold(event.reason, event.actor, event.at_ms)
            return _told(replace(state, holds={**state.holds, event.model: hold}), event, "hold", f"hold {event.model}")
        case e.ResumeAsked():
            return _resumed(state, event)
        case e.RetrainAsked():
            return _start(state, event, Job(_job_id(event.at_ms, state.seq)), "command", event.reason)
        case e.ChallengerGiven():
            job = Job(_job_id(event.at_ms, state.seq), event.folder, event.bypass)
            return _start(state, event, job, "hand", f"challenger given by hand, to be gated: {event.reason}")
        case e.PromoteAsked():
            return _promote_asked(state, event, config)
        case e.RollbackAsked():
            return _rollback_asked(state, event, config)
    raise TypeError(f"unknown event {event!r}")


def allowed_model(state: State, model: str) -> bool:
    """Whether a hold may name this model."""
    return model == EVERYTHING or model in state.champion


def _ticked(state: State, event: e.Ticked, config: Config) -> State:
    elapsed_s = (event.at_ms - state.since_ms) / 1000
    match state.name:
        case "rolled_back":
            if event.at_ms >= state.cooldown_until_ms:
                return _go(state, event, "healthy", "timer", "the cool-down is over", rollout=None, drifts=0)
            return state
        case "retraining":
            if elapsed_s > config.timeout_s:
                return _roll_back(state, event, config, "timeout", f"no challenger within {config.timeout_s:.0f} s")
            return state
        case "gated" | "shadow" | "canary_5" | "canary_25" | "canary_50" | "canary_100" | "promoted":
            return _advance(state, event, config, elapsed_s)
    return state


def _advance(state: State, event: e.Ticked, config: Config, elapsed_s: float) -> State:
    """A rollout under way: back if a guard is broken, on if time and evidence suffice and nothing stands in the way."""
    judged = event.judged
    if judged is not None and judged.breach and state.name != "gated":
        return _roll_back(state, event, config, "guardrail", f"guardrail {judged.why}", judged.figures)
    pause = _pause(state, event)
    if pause:
        return state if state.paused == pause else replace(state, paused=pause)
    if state.name == "promoted":
        if elapsed_s < config.step_s:
            return _unpaused(state)
        return _go(state, event, "healthy", "timer", "watched after the promotion, nothing broke",
                   rollout=None, cooldown_until_ms=event.at_ms + int(1000 * config.cooldown_s), drifts=0)  # fmt: skip
    needed, least = _needed(state.name, config)
    have = judged.requests if judged is not None else 0
    if elapsed_s >= needed and have >= least:
        if state.name == "canary_50" and state.bypass:
            return _roll_back(state, event, config, "gate", "a challenger that bypassed the gate is never promoted")
        reason = f"{have} answers in {elapsed_s:.0f} s, no harm" if least else "the gate is passed"
        return _onwards(state, event, judged.figures if judged else {}, reason)
    if elapsed_s > config.timeout_s:
        return _roll_back(
            state, event, config, "timeout", f"only {have} of {least} answers within {config.timeout_s:.0f} s"
        )
    return _unpaused(state)


def _needed(name: str, config: Config) -> tuple[float, int]:
    """Seconds and answers that a state asks for before the next one."""
    match name:
        case "gated":
            return 0.0, 0
        case "shadow":
            return config.shadow_s, config.least_shadow
    return config.step_s, config.least_requests


def _pause(state: State, event: e.Ticked) -> str:
    """Why the rollout may not go on just now."""
    if state.name == "promoted":
        return ""
    if blocking := state.blocking():
        return f"held by hand: {', '.join(f'{name} ({state.holds[name].reason})' for name in blocking)}"
    if state.name == "canary_100" and not event.registry_up:
        return "the model registry does not answer: promotion waits for it"
    return ""


def _unpaused(state: State) -> State:
    return replace(state, paused="") if state.paused else state


def _onwards(state: State, event: e.Event, figures: Any, reason: str) -> State:
    to = NEXT[state.name]
    if to == "promoted":
        return _promote(state, event, "timer", reason, "controller", figures)
    changes: dict[str, Any] = {}
    if to == "canary_5":
        changes = {"began_ms": event.at_ms, "balanced_until_ms": 0}
    elif to == "canary_100":
        changes = {"balanced_until_ms": event.at_ms}
    return _go(state, event, to, "timer", reason, evidence=figures, **changes)


def _promote(state: State, event: e.Event, trigger: str, reason: str, actor: str, figures: Any) -> State:
    assert state.challenger is not None
    return _go(state, event, "promoted", trigger, reason, actor=actor, evidence=figures,
               champion=state.challenger, previous=state.champion, challenger=None)  # fmt: skip


def _roll_back(
    state: State, event: e.Event, config: Config, trigger: str, reason: str, figures: Any = None,
    actor: str = "controller",
) -> State:  # fmt: skip
    """Drop the challenger; after a promotion, the champion before it serves again."""
    changes: dict[str, Any] = {"challenger": None, "job": None, "bypass": False}
    if state.name == "promoted" and state.previous is not None:
        changes |= {"champion": state.previous, "previous": None}
    return _go(state, event, "rolled_back", trigger, reason, actor=actor, evidence=figures or {},
               cooldown_until_ms=event.at_ms + int(1000 * config.cooldown_s), drifts=0, **changes)  # fmt: skip


def _drift(state: State, event: e.DriftReported, config: Config) -> State:
    if state.name not in ("healthy", "drift_suspected") or event.verdict in ("warn", "insufficient_data"):
        return state
    if event.verdict != "drift":
        if state.name == "drift_suspected":
            return _go(state, event, "healthy", "drift", "the drift is gone", drifts=0, drift_id=event.id)
        return state
    state = replace(state, drifts=state.drifts + 1, drift_id=event.id)
    why = "; ".join(event.reasons[:3]) or event.id
    if state.drifts < config.drift_confirmations:
        return state if state.name == "drift_suspected" else _go(state, event, "drift_suspected", "drift", why)
    obstacle = _no_retrain(state, event.at_ms, config)
    if obstacle:
        if state.name == "drift_suspected" and state.paused == obstacle:
            return state
        return _go(replace(state, paused=obstacle), event, "drift_suspected", "drift", f"{why}; {obstacle}",
                   keep_pause=True)  # fmt: skip
    recent = (*(t for t in state.retrains_ms if event.at_ms - t < DAY_MS), event.at_ms)
    job = Job(_job_id(event.at_ms, state.seq))
    return _start(replace(state, retrains_ms=recent), event, job, "drift", f"drift in {state.drifts} reports: {why}")


def _no_retrain(state: State, at_ms: int, config: Config) -> str:
    if state.holds:
        return f"no retraining while held by hand: {', '.join(state.held)}"
    if at_ms < state.cooldown_until_ms:
        return "no retraining before the cool-down is over"
    today = sum(at_ms - t < DAY_MS for t in state.retrains_ms)
    if today >= config.most_retrains_per_day:
        return f"{today} retrains within a day, the most allowed: a person must look"
    return ""


def _job_ended(state: State, event: e.JobEnded, config: Config) -> State:
    job = state.job
    if state.name != "retraining" or job is None or event.id != job.id:
        return state
    if event.outcome == "failed":
        if job.attempt < config.attempts:
            again = replace(state, job=replace(job, attempt=job.attempt + 1))
            return _told(again, event, "retry", f"attempt {job.attempt} failed: {event.reason}")
        return _roll_back(state, event, config, "job", f"no challenger: {event.reason}", event.evidence)
    if event.outcome == "refused" or not event.challenger:
        return _roll_back(state, event, config, "gate", f"the gate refused: {event.reason}", event.evidence)
    return _go(state, event, "gated", "gate", event.reason, evidence=event.evidence, challenger=event.challenger,
               bypass=event.bypassed, rollout=job.id, job=None, began_ms=0, balanced_until_ms=0)  # fmt: skip


def _champion_found(state: State, event: e.ChampionFound) -> State:
    if not event.champion or (state.champion and (not event.by_hand or event.by_hand == state.adopted)):
        return state
    if event.champion == state.champion:
        return replace(state, adopted=event.by_hand)
    previous = state.champion or None
    found = replace(state, champion=event.champion, previous=previous, adopted=event.by_hand, challenger=None, job=None)
    if not state.champion:
        return _go(found, event, "healthy", "hand", "the first champion was published")
    if state.name in _IDLE:
        return _go(found, event, "healthy", "hand", "another champion was published by hand", rollout=None)
    return _go(found, event, "rolled_back", "hand", "another champion was published by hand: the challenger is dropped")


def _start(state: State, event: e.Event, job: Job, trigger: str, reason: str) -> State:
    if state.name not in _IDLE:
        raise Refused(f"a rollout is under way ({state.name}): roll it back or wait until it ends")
    if not state.champion:
        raise Refused("nothing is published yet: `make demo` trains and publishes the first models")
    if isinstance(event, e.Command) and state.holds:
        raise Refused(f"held by hand: {', '.join(state.held)}; resume first")
    actor = event.actor if isinstance(event, e.Command) else "controller"
    return _go(state, event, "retraining", trigger, reason, actor=actor, job=job, rollout=job.id, challenger=None,
               began_ms=0, balanced_until_ms=0, bypass=job.bypass)  # fmt: skip


def _resumed(state: State, event: e.ResumeAsked) -> State:
    if event.model not in state.holds:
        raise Refused(f"{event.model} is not held; held: {', '.join(state.held) or 'nothing'}")
    left = {name: hold for name, hold in state.holds.items() if name != event.model}
    return _told(replace(state, holds=left, paused=""), event, "resume", f"resume {event.model}")


def _promote_asked(state: State, event: e.PromoteAsked, config: Config) -> State:
    if state.challenger is None or state.name not in ("gated", *SERVING):
        raise Refused(f"there is no challenger to promote ({state.name})")
    if state.bypass:
        raise Refused("this challenger bypassed the gate and is never promoted")
    if blocking := state.blocking():
        raise Refused(f"held by hand: {', '.join(blocking)}; resume first")
    if not event.registry_up:
        raise Refused("the model registry does not answer: promotion waits for it")
    return _promote(state, event, "command", event.reason, event.actor, {})


def _rollback_asked(state: State, event: e.RollbackAsked, config: Config) -> State:
    if state.name in ("retraining", "gated", *SERVING) or (state.name == "promoted" and state.previous is not None):
        return _roll_back(state, event, config, "command", event.reason, actor=event.actor)
    if state.previous is None:
        raise Refused(f"there is neither a challenger nor a previous champion to go back to ({state.name})")
    undone = replace(state, name="promoted")
    back = _roll_back(undone, event, config, "command", event.reason, actor=event.actor)
    return replace(back, announce=(*back.announce[:-1], replace(back.announce[-1], from_=state.name)))


def _go(
    state: State, event: e.Event, to: Name, trigger: str, reason: str, *, actor: str = "controller",
    evidence: Any = None, keep_pause: bool = False, **changes: Any,
) -> State:  # fmt: skip
    """The state after a transition, which is put into the outbox."""
    paused = state.paused if keep_pause else ""
    after = replace(state, name=to, since_ms=event.at_ms, reason=reason, paused=paused, **changes)
    return _announced(state, after, event, trigger, reason, actor, evidence)


def _told(state: State, event: e.Event, trigger: str, what: str) -> State:
    """A transition from the state to itself: something that people should read later."""
    asked = isinstance(event, e.Command)
    reason = f"{what}: {event.reason}" if asked else what  # type: ignore[attr-defined]
    actor = event.actor if asked else "controller"  # type: ignore[attr-defined]
    return _announced(state, state, event, trigger, reason, actor, None)


def _announced(
    before: State, after: State, event: e.Event, trigger: str, reason: str, actor: str, evidence: Any
) -> State:
    seq = before.seq + 1
    transition = Transition(
        id=f"{after.epoch}-{seq}", seq=seq, epoch=after.epoch, at_ms=event.at_ms, rollout=after.rollout,
        from_=before.name, to=after.name, trigger=trigger, reason=reason, actor=actor,
        champion=versions(after.champion) or {}, challenger=versions(after.challenger),
        previous=versions(after.previous), shares=after.shares, canary_percent=after.percent,
        shadow=after.name == "shadow", held=after.held,
        evidence=dict(evidence or {}),
    )  # fmt: skip
    return replace(after, seq=seq, announce=(*after.announce, transition))


def _job_id(at_ms: int, seq: int) -> str:
    return f"r-{at_ms}-{seq}"


__all__ = ["NEXT", "PERCENT", "Refused", "allowed_model", "step"]
