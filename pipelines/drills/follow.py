"""Following a rollout: the controller's transitions as they come, each told once. Knows no clock and no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

STEPS: Final = ("canary_5", "canary_25", "canary_50", "canary_100")
ENDS: Final = ("promoted", "rolled_back")
SHARE: Final = {"canary_5": 5, "canary_25": 25, "canary_50": 50, "canary_100": 100}


@dataclass
class Follower:
    """Transitions after the sequence number `after`, oldest first."""

    after: int
    seen: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def from_now(cls, rollout: Mapping[str, Any]) -> Follower:
        """Follow what comes after this answer of GET /v1/rollout."""
        return cls(max((int(t["seq"]) for t in rollout["history"]), default=0))

    def take(self, rollout: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """The transitions that are new in this answer, in order; none while the controller is away."""
        if rollout is None:
            return []
        new = sorted((t for t in rollout["history"] if int(t["seq"]) > self.after), key=lambda t: int(t["seq"]))
        if new:
            self.after = int(new[-1]["seq"])
            self.seen += new
        return new

    def first(self, state: str, since_ms: int = 0) -> dict[str, Any] | None:
        """The first transition into this state, from another one."""
        found = (t for t in self.seen if t["to"] == state and t["from"] != state and t["at_ms"] >= since_ms)
        return next(found, None)

    def last(self, *states: str) -> dict[str, Any] | None:
        return next((t for t in reversed(self.seen) if t["to"] in states and t["from"] != t["to"]), None)

    def entered(self) -> list[str]:
        """The states entered, in order."""
        return [t["to"] for t in self.seen if t["from"] != t["to"]]

    def most_canary(self) -> float:
        """The largest share of traffic, in percent, that a canary was ever given."""
        given = ((t.get("shares") or {}).get("canary", SHARE.get(t["to"], 0)) for t in self.seen)
        return max((float(share) for share in given), default=0.0)


def told(transition: Mapping[str, Any]) -> str:
    """A transition as a sentence."""
    challenger = transition.get("challenger") or {}
    of = f" ({', '.join(f'{m} {v}' for m, v in challenger.items())})" if challenger else ""
    was, now = transition["from"], transition["to"]
    arrow = f"{was} -> {now}" if was != now else now
    return f"{arrow}{of}: {transition['reason']}"


def steps_in_order(entered: list[str]) -> bool:
    """Whether shadow and every canary step were entered, in this order."""
    wanted = ("shadow", *STEPS)
    return tuple(s for s in entered if s in wanted) == wanted


def until(look: Callable[[], bool], tick: Callable[[], None], deadline_s: float, clock: Callable[[], float]) -> bool:
    """Call `tick` until `look` holds; whether it did before the clock says `deadline_s`."""
    while not look():
        if clock() > deadline_s:
            return False
        tick()
    return True
