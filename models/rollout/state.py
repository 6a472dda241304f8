"""The nouns of a rollout: the state that is kept, what may happen to it, and the transitions that are announced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from models.rollout.shares import shares_of

Name = Literal[
    "healthy", "drift_suspected", "retraining", "gated", "shadow", "canary_5", "canary_25", "canary_50", "canary_100",
    "promoted", "rolled_back",
]  # fmt: skip
STATES: Final[tuple[Name, ...]] = (
    "healthy", "drift_suspected", "retraining", "gated", "shadow", "canary_5", "canary_25", "canary_50", "canary_100",
    "promoted", "rolled_back",
)  # fmt: skip
PERCENT: Final[Mapping[str, int]] = {"canary_5": 5, "canary_25": 25, "canary_50": 50, "canary_100": 100}
SERVING: Final = ("shadow", *PERCENT)
"""States in which the challenger must be loaded."""
EVERYTHING: Final = "recommender"
"""The name of a hold that holds every model."""


class Ref(msgspec.Struct, frozen=True):
    """One published bundle."""

    version: str
    manifest_sha256: str


Lineup = dict[str, Ref]


class Hold(msgspec.Struct, frozen=True):
    reason: str
    actor: str
    at_ms: int


class Job(msgspec.Struct, frozen=True):
    """What a child process is asked for while `retraining`: train anew, or gate the bundles in `folder`."""

    id: str
    folder: str = ""
    bypass: bool = False
    attempt: int = 1


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the audit log and one record of `models.rollouts`."""

    id: str
    seq: int
    epoch: int
    at_ms: int
    model: str = EVERYTHING
    rollout: str | None
    from_: Name = msgspec.field(name="from")
    to: Name
    trigger: str
    reason: str
    actor: str
    champion: dict[str, str]
    challenger: dict[str, str] | None
    previous: dict[str, str] | None
    shares: dict[str, float]
    canary_percent: int
    shadow: bool
    held: list[str]
    evidence: dict[str, Any] = {}


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a controller must know to go on after a kill. Times are Unix milliseconds."""

    name: Name = "healthy"
    since_ms: int = 0
    reason: str = ""
    epoch: int = 0
    seq: int = 0
    champion: Lineup = {}
    challenger: Lineup | None = None
    previous: Lineup | None = None
    rollout: str | None = None
    began_ms: int = 0
    """When the challenger first met shoppers: the experiment's start."""
    balanced_until_ms: int = 0
    """When the control ended; 0 while it goes on."""
    bypass: bool = False
    job: Job | None = None
    drifts: int = 0
    """Drift reports in a row."""
    drift_id: str = ""
    retrains_ms: tuple[int, ...] = ()
    cooldown_until_ms: int = 0
    holds: dict[str, Hold] = {}
    adopted: str = ""
    """`published_at` of the champion that was last published by hand."""
    paused: str = ""
    announce: tuple[Transition, ...] = ()
    """Transitions that are decided and not yet told to everyone: the outbox."""

    @property
    def percent(self) -> int:
        return PERCENT.get(self.name, 0)

    @property
    def shares(self) -> dict[str, float]:
        return shares_of(self.percent)

    @property
    def held(self) -> list[str]:
        return sorted(self.holds)

    def blocking(self) -> list[str]:
        """Holds that stand in the way of this rollout: of everything, or of a model that it changes."""
        changed = self.challenger
        return [name for name in self.held if name == EVERYTHING or changed is None
                or changed.get(name) != self.champion.get(name)]  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Timing of the rollout; seconds. Small in drills."""

    step_s: float = 60.0
    shadow_s: float = 30.0
    least_requests: int = 200
    least_shadow: int = 50
    timeout_s: float = 1800.0
    cooldown_s: float = 1800.0
    most_retrains_per_day: int = 4
    drift_confirmations: int = 2
    attempts: int = 2

    def __post_init__(self) -> None:
        if min(self.step_s, self.shadow_s, self.timeout_s) <= 0 or self.cooldown_s < 0:
            raise ValueError(f"seconds must be above 0: {self}")
        if min(self.least_requests, self.least_shadow, self.drift_confirmations, self.attempts) < 1:
            raise ValueError(f"counts must be at least 1: {self}")


def versions(lineup: Lineup | None) -> dict[str, str] | None:
    """Name -> version, for people."""
    return None if lineup is None else {name: ref.version for name, ref in sorted(lineup.items())}
