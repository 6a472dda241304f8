"""A controller without a network: a store that a test owns, children that say what they are told, evidence by hand."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.errors import Unavailable
from adapters.kafka import MemoryPublisher
from models.rollout.events import DriftReported, JobEnded
from models.rollout.guardrails import Arms, GuardConfig, Shadow
from models.rollout.state import Config, Job
from services.controller.board import Board
from services.controller.control import Controller
from services.controller.metrics import Metrics

CONFIG = Config(step_s=10, shadow_s=5, least_requests=10, least_shadow=5, timeout_s=100, cooldown_s=50)
METRICS = Metrics()


@dataclass
class FakeStore:
    """Redis as the controller sees it; `expire` is the lease running out."""

    lease: tuple[int, str] | None = None
    token: int = 0
    state: bytes | None = None
    down: bool = False

    def acquire(self, owner: str, ttl_ms: int, floor: int) -> int | None:
        self._check()
        if self.lease is None:
            self.token = max(self.token + 1, floor + 1)
            self.lease = (self.token, owner)
        return self.lease[0] if self.lease[1] == owner else None

    def save(self, owner: str, token: int, state: bytes) -> bool:
        self._check()
        if self.lease != (token, owner):
            return False
        self.state = state
        return True

    def load(self) -> bytes | None:
        self._check()
        return self.state

    def release(self, owner: str, token: int) -> None:
        if self.lease == (token, owner):
            self.lease = None

    def expire(self) -> None:
        self.lease = None

    def _check(self) -> None:
        if self.down:
            raise Unavailable("Redis is away")


@dataclass
class FakeChildren:
    running: Job | None = None
    job: JobEnded | None = None
    report: DriftReported | None = None
    checks: list[bool] = field(default_factory=list)
    contracts: int = 0

    def ensure(self, job: Job) -> None:
        self.running = job

    def stop_job(self) -> None:
        self.running = None

    def job_ended(self, at_ms: int) -> JobEnded | None:
        found, self.job = self.job, None
        return found

    def check_drift(self, *, report: bool) -> bool:
        self.checks.append(report)
        return True

    def check_contracts(self) -> bool:
        self.contracts += 1
        return True

    def drift_reported(self, at_ms: int) -> DriftReported | None:
        found, self.report = self.report, None
        return found

    def close(self) -> None:
        """Nothing to end."""


@dataclass
class FakeEvidence:
    requests: int = 50
    gross: dict[str, float] = field(default_factory=dict)
    down: bool = False

    def arms(self, rollout: str, **span: Any) -> Arms:
        if self.down:
            raise Unavailable("the store is away")
        return Arms(step_requests=self.requests, step_gross=self.gross, step_control_requests=self.requests)

    def shadow(self, rollout: str, *, since_ms: int) -> Shadow:
        if self.down:
            raise Unavailable("the store is away")
        return Shadow(self.requests, median_ms=10, champion_median_ms=10)


@dataclass
class FakeAliases:
    down: bool = False
    aliases: dict[tuple[str, str], str | None] = field(default_factory=dict)

    def up(self) -> bool:
        return not self.down

    def set(self, model: str, alias: str, version: str | None) -> None:
        if self.down:
            raise Unavailable("MLflow is away")
        self.aliases[model, alias] = version

    def tag(self, model: str, version: str, tags: dict[str, str]) -> None:
        if self.down:
            raise Unavailable("MLflow is away")


class Inline(Executor):
    """Does at once what is submitted."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 the caller sees it in the future
            future.set_exception(error)
        return future


@dataclass
class World:
    """Everything around one controller; `new` starts another one on the same world, as after a kill."""

    home: Path
    store: FakeStore = field(default_factory=FakeStore)
    children: FakeChildren = field(default_factory=FakeChildren)
    evidence: FakeEvidence = field(default_factory=FakeEvidence)
    aliases: FakeAliases = field(default_factory=FakeAliases)
    sink: MemoryPublisher = field(default_factory=MemoryPublisher)
    loaded: dict[str, Any] | None = None
    calls: list[str] = field(default_factory=list)
    now_ms: int = 1_000_000
    contracts_every_s: float = 1e9

    @property
    def published(self) -> Path:
        return self.home / "published"

    def new(self, owner: str = "a") -> Controller:
        board = Board(self.published, self.home / "rollout", self.sink, self.aliases)
        return Controller(
            owner, self.store, board, self.evidence, self.children, lambda: self.loaded, CONFIG,  # type: ignore[arg-type]
            GuardConfig(), clock=lambda: self.now_ms, drift_every_s=1e9, contracts_every_s=self.contracts_every_s,
            look_every_s=0.0, metrics=METRICS, call=self.calls.append, pool=Inline(),
        )  # fmt: skip

    def pass_s(self, controller: Controller, seconds: float) -> None:
        """Let time go by: a round to look, and a round to decide on what was seen."""
        controller.tick()
        self.now_ms += int(1000 * seconds)
        controller.tick()
