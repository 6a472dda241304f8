"""The loop: hold the lease, gather what happened, ask the state machine, keep the state, then make the world follow it.

The state is kept before anything is done, and everything that is done may be done twice: after a kill -9 at any point
the next controller (or this one) reads the state and makes the world follow it again. Without the lease nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Final

import msgspec
import structlog
from msgspec.structs import replace

from adapters.errors import Conflict, MinimartError, Unavailable
from adapters.rollout_state import RolloutStore
from models.rollout import events as e
from models.rollout.guardrails import GuardConfig, Judged, judge, judge_alone, judge_shadow
from models.rollout.machine import Refused, allowed_model, step
from models.rollout.state import SERVING, Config, State, versions
from services.controller.board import Board
from services.controller.children import Children
from services.controller.evidence import Evidence
from services.controller.metrics import Metrics

LEASE_MS: Final = 6000
TICK_S: Final = 0.5
MARK_S: Final = 5.0
HISTORY: Final = 50
_log = structlog.get_logger()


class Controller:
    """`tick` does one round; `command` is a person's wish. Both hold one lock, so they never act at once."""

    def __init__(
        self, owner: str, store: RolloutStore, board: Board, evidence: Evidence, children: Children,
        loaded: Callable[[], Mapping[str, Any] | None], config: Config, guards: GuardConfig, *,
        clock: Callable[[], int], drift_every_s: float, contracts_every_s: float, look_every_s: float,
        metrics: Metrics, call: Callable[[str], None] = lambda why: None, pool: Executor | None = None,
    ) -> None:  # fmt: skip
        """`loaded()` is what the recommender has loaded, None when it does not say; `call(why)` fetches a person."""
        self._owner, self._store, self._board, self._evidence = owner, store, board, evidence
        self._children, self._loaded, self._config, self._guards = children, loaded, config, guards
        self._clock, self._drift_every_s, self._look_every_s = clock, drift_every_s, look_every_s
        self._contracts_every_s = contracts_every_s
        self._metrics, self._call = metrics, call
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="controller", daemon=True)
        self._token: int | None = None
        self._state = State()
        self._figures: Mapping[str, Any] = {}
        self._drift: dict[str, Any] = {}
        self._looked = self._marked = 0.0
        self._checked = self._contracted = time.monotonic()
        self._called = ""
        self._pool = pool or ThreadPoolExecutor(1, thread_name_prefix="evidence")
        self._looking: tuple[int, Future[Judged]] | None = None
        self.away = "the lease was not asked for yet"

    @property
    def state(self) -> State:
        return self._state

    @property
    def leads(self) -> bool:
        return self._token is not None

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10.0)
        self._children.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._token is not None:
            try:
                self._store.release(self._owner, self._token)
            except Unavailable:
                _log.warning("lease_not_released")

    def tick(self) -> None:
        """One round. Raises nothing that a neighbour's absence could cause."""
        with self._lock:
            try:
                if not self._lead():
                    return
                for event in self._happened():
                    self._apply(event)
                self._follow()
                self.away = ""
            except Conflict as error:
                self._lost(error.detail)
            except MinimartError as error:
                self.away = error.detail
                _log.warning("round_cut_short", why=error.detail)

    def command(self, event: e.Command) -> State:
        """Carry out a wish. Raises Conflict where the state does not allow it, Unavailable where we do not lead."""
        with self._lock:
            if not self._lead():
                raise Unavailable(f"another controller leads, or the lease cannot be had: {self.away or 'standby'}")
            model = getattr(event, "model", None)
            if model is not None and not allowed_model(self._state, model):
                known = ", ".join(["recommender", *sorted(self._state.champion)])
                raise Conflict(f"unknown model {model!r}; known: {known}", field="model")
            if isinstance(event, e.PromoteAsked):
                event = e.PromoteAsked(event.at_ms, event.reason, event.actor, self._board.registry_up())
            try:
                self._apply(event)
            except Refused as refusal:
                raise Conflict(str(refusal)) from None
            self._follow()
            return self._state

    def check(self) -> bool:
        """Start a drift check now; false where one runs."""
        with self._lock:
            return self._children.check_drift(report=True)

    def describe(self) -> dict[str, Any]:
        """What GET /v1/rollout answers."""
        state = self._state
        return {
            "state": state.name, "since_ms": state.since_ms, "rollout": state.rollout, "reason": state.reason,
            "epoch": state.epoch, "seq": state.seq, "champion": versions(state.champion),
            "challenger": versions(state.challenger), "previous": versions(state.previous), "shares": state.shares,
            "canary_percent": state.percent, "shadow": state.name == "shadow", "bypass": state.bypass,
            "holds": msgspec.to_builtins(state.holds), "paused": state.paused, "leader": self.leads,
            "retrains_today": len(state.retrains_ms), "cooldown_until_ms": state.cooldown_until_ms,
            "evidence": dict(self._figures), "drift": self._drift,
            "history": msgspec.to_builtins(self._board.history(HISTORY)),
        }  # fmt: skip

    def versions(self) -> dict[str, Any]:
        """What GET /v1/versions answers."""
        state = self._state
        roles = {role: versions(getattr(state, role)) for role in ("champion", "challenger", "previous")}
        return {**roles, "published": self._board.versions()}

    def _lead(self) -> bool:
        """Whether we hold the lease; a new lease reads the state that its holder before us left."""
        try:
            token = self._store.acquire(self._owner, LEASE_MS, self._board.newest_epoch())
        except Unavailable as error:
            self._lost(error.detail)
            return False
        if token is None:
            if self._token is not None:
                self._lost("another controller holds the lease")
            self.away = "standby: another controller leads"
            self._metrics.leads(False)
            kept = self._store.load()  # to be told to whoever asks; nothing is done with it
            self._state = msgspec.json.decode(kept, type=State) if kept else self._state
            return False
        if token != self._token:
            kept = self._store.load()
            state = msgspec.json.decode(kept, type=State) if kept else self._board.copy() or State()
            seq = max(state.seq, self._board.last_announced())
            self._state, self._token = replace(state, epoch=token, seq=seq), token
            _log.info("leads", token=token, state=state.name)
            self._metrics.leads(True)
        return True

    def _lost(self, why: str) -> None:
        if self._token is not None:
            _log.warning("lease_lost", why=why)
        self._token, self.away = None, why
        self._children.stop_job()
        self._metrics.leads(False)

    def _happened(self) -> list[e.Event]:
        """What happened since the last round."""
        now, state = self._clock(), self._state
        happened: list[e.Event] = [e.ChampionFound(now, *self._board.found())]
        if (ended := self._children.job_ended(now)) is not None:
            self._metrics.job(ended)
            happened.append(ended)
        if (report := self._children.drift_reported(now)) is not None:
            self._drift = {
                "id": report.id, "verdict": report.verdict, "at_ms": report.at_ms, "reasons": list(report.reasons)
            }
            happened.append(report)
        if state.name in SERVING and (refused := self._refused()):
            happened.append(e.ChallengerRefused(now, refused))
        happened.append(self._ticked(now))
        if state.name in ("healthy", "drift_suspected") and self._due("_checked", self._drift_every_s):
            self._children.check_drift(report=state.name == "drift_suspected")
        if state.name == "healthy" and self._due("_contracted", self._contracts_every_s):
            self._children.check_contracts()
        return happened

    def _refused(self) -> str:
        """Why the recommender does not serve the challenger, "" if it does."""
        loaded = self._loaded()
        if loaded is None or loaded.get("rollout") != self._state.rollout:
            return ""
        return str(loaded.get("refused", {}).get("challenger", ""))

    def _ticked(self, now: int) -> e.Ticked:
        state = self._state
        judged = None
        if self._looking is not None and self._looking[1].done():
            (since_ms, looked), self._looking = self._looking, None
            try:
                judged = looked.result() if since_ms == state.since_ms else None
            except MinimartError as error:
                _log.warning("no_evidence", why=error.detail)
            if judged is not None:
                self._figures = judged.figures
                self._metrics.judged(judged)
        waits = state.name in SERVING or state.name == "promoted"
        if waits and self._looking is None and self._due("_looked", self._look_every_s):
            self._looking = (state.since_ms, self._pool.submit(self._judged, state))
        up = self._board.registry_up() if state.name == "canary_100" else True
        return e.Ticked(now, judged, up)

    def _judged(self, state: State) -> Judged:
        """What the evidence says of the present step; read beside the loop, so that a slow store delays nothing."""
        rollout = state.rollout or ""
        if state.name == "shadow":
            return judge_shadow(self._evidence.shadow(rollout, since_ms=state.since_ms), self._guards)
        alone = state.name in ("canary_100", "promoted")
        arms = self._evidence.arms(
            rollout, began_ms=state.began_ms or state.since_ms, balanced_until_ms=state.balanced_until_ms,
            step_ms=state.since_ms, step_arms=("canary", "champion") if alone else ("canary",),
        )  # fmt: skip
        return judge_alone(arms, self._guards) if alone else judge(arms, self._guards)

    def _apply(self, event: e.Event) -> None:
        """One event: the state after it is kept before anything else. Raises Refused, or Conflict without the lease."""
        after = step(self._state, event, self._config)
        if after is self._state:
            return
        if after.name != self._state.name:
            self._looked = 0.0
            if after.name in ("healthy", "retraining"):
                self._figures = {}
        self._keep(after)

    def _keep(self, state: State) -> None:
        assert self._token is not None
        if not self._store.save(self._owner, self._token, msgspec.json.encode(state)):
            raise Conflict(f"fencing token {self._token} is not the newest: another controller leads")
        self._state = state

    def _follow(self) -> None:
        """Make the world follow the state: who serves first, then who is told."""
        state = self._state
        self._board.point(state)
        if state.announce:
            last = self._board.last_announced()
            for transition in state.announce:
                if transition.seq > last:
                    self._board.announce(transition)
                    self._metrics.transition(transition)
            self._keep(replace(state, announce=()))
            self._board.keep_copy(self._state)
        if state.job is not None:
            self._children.ensure(state.job)
        else:
            self._children.stop_job()
        if self._due("_marked", MARK_S) or state.announce:
            self._board.mark(state)
        self._metrics.state(state)
        if state.paused and state.paused != self._called and "a person must look" in state.paused:
            self._call(state.paused)
        self._called = state.paused

    def _due(self, what: str, every_s: float) -> bool:
        now = time.monotonic()
        if now - float(getattr(self, what)) < every_s:
            return False
        setattr(self, what, now)
        return True

    def _run(self) -> None:
        while not self._stop.wait(TICK_S):
            try:
                self.tick()
            except Exception:  # noqa: BLE001 the next round tries again
                _log.exception("round_failed")
