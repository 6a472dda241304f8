"""The controller's metrics. Every label exists from the start, so that a first increment is seen."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

from models.rollout.events import JobEnded
from models.rollout.guardrails import METRICS, Judged
from models.rollout.state import STATES, State, Transition

TRIGGERS: Final = ("guardrail", "gate", "timeout", "load", "job", "command", "hand")
GUARDS: Final = (*(m.name for m in METRICS), "errors")

_STATE: Final = Gauge("minimart_rollout_state", "1 for the state that the rollout is in", ["state"])
_PERCENT: Final = Gauge("minimart_rollout_canary_percent", "Share of the shoppers in the canary, in percent")
_HELD: Final = Gauge("minimart_rollout_held", "Models that a person holds")
_LEADS: Final = Gauge("minimart_rollout_leader", "1 where this controller holds the lease")
_SINCE: Final = Gauge("minimart_rollout_state_since_seconds", "Unix time at which the state began")
_TO: Final = Counter("minimart_rollout_transitions_total", "Transitions by where they led", ["to"])
_BACK: Final = Counter("minimart_rollout_rollbacks_total", "Rollbacks by what asked for them", ["reason"])
_JOBS: Final = Counter("minimart_rollout_retrains_total", "Trainings that ended, by what came of them", ["outcome"])
_GATE: Final = Counter("minimart_rollout_gate_total", "Challengers by the gate's verdict", ["outcome"])
_BREACH: Final = Counter("minimart_rollout_guardrail_breaches_total", "Guardrails that were broken", ["guardrail"])


class Metrics:
    """One per process."""

    def __init__(self) -> None:
        for counter, labels in (
            (_TO, STATES), (_BACK, TRIGGERS), (_JOBS, ("ok", "failed")), (_GATE, ("passed", "refused", "bypassed")),
            (_BREACH, GUARDS),
        ):  # fmt: skip
            for label in labels:
                counter.labels(label)
        self.state(State())
        self.leads(False)

    def state(self, state: State) -> None:
        for name in STATES:
            _STATE.labels(name).set(name == state.name)
        _PERCENT.set(state.percent)
        _HELD.set(len(state.holds))
        _SINCE.set(state.since_ms / 1000)

    def leads(self, leads: bool) -> None:
        _LEADS.set(leads)

    def transition(self, transition: Transition) -> None:
        if transition.from_ == transition.to:
            return
        _TO.labels(transition.to).inc()
        if transition.to == "rolled_back":
            _BACK.labels(transition.trigger).inc()

    def job(self, ended: JobEnded) -> None:
        _JOBS.labels("failed" if ended.outcome == "failed" else "ok").inc()
        if ended.outcome != "failed":
            _GATE.labels("bypassed" if ended.bypassed else ended.outcome).inc()

    def judged(self, judged: Judged) -> None:
        if judged.breach in GUARDS:
            _BREACH.labels(judged.breach).inc()
