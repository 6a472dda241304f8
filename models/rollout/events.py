"""What can happen to a rollout. Each event carries the moment at which it happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from models.rollout.guardrails import Judged
from models.rollout.state import EVERYTHING, Lineup


@dataclass(frozen=True)
class Event:
    at_ms: int


@dataclass(frozen=True)
class Ticked(Event):
    """Time went by. `judged` is None where the evidence could not be read."""

    judged: Judged | None = None
    registry_up: bool = True


@dataclass(frozen=True)
class DriftReported(Event):
    """A report of `pipelines.check_drift`; verdict healthy, warn, drift or insufficient_data."""

    id: str
    verdict: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobEnded(Event):
    """The child of job `id` ended: the gate passed or refused its challenger, or it failed before."""

    id: str
    outcome: Literal["passed", "refused", "failed"]
    reason: str
    challenger: Lineup | None = None
    bypassed: bool = False
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ChampionFound(Event):
    """What CURRENT.json says; `by_hand` is its time of publishing where a person published it, else ""."""

    champion: Lineup
    by_hand: str = ""


@dataclass(frozen=True)
class ChallengerRefused(Event):
    """The recommender could not load the challenger."""

    why: str


@dataclass(frozen=True)
class Command(Event):
    """What a person asks for."""

    reason: str
    actor: str


@dataclass(frozen=True)
class HoldAsked(Command):
    model: str = EVERYTHING


@dataclass(frozen=True)
class ResumeAsked(Command):
    model: str = EVERYTHING


@dataclass(frozen=True)
class PromoteAsked(Command):
    registry_up: bool = True


@dataclass(frozen=True)
class RollbackAsked(Command):
    """Drop the challenger; where there is none, go back to the previous champion."""


@dataclass(frozen=True)
class RetrainAsked(Command):
    """Train a challenger now, whatever the drift; neither cool-down nor cap hold a person back."""


@dataclass(frozen=True)
class ChallengerGiven(Command):
    folder: str = ""
    bypass: bool = False
