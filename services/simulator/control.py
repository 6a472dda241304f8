"""What the simulator is told while it runs: what is wrong, and how busy it is. A file keeps it over a restart.

Does not know HTTP or the clock: every change is told `now` (Unix milliseconds).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from adapters.errors import BadInput, Misconfigured
from models.marketplace.config import Scenario

MOST_FEEDS, MOST_SEARCHES = 1000.0, 2000.0


@dataclass(frozen=True, slots=True)
class Rate:
    """Mean rates: feed requests a second, and searches without a feed a second (about three clicks each)."""

    feeds_per_second: float
    searches_per_second: float = 0.0

    def __post_init__(self) -> None:
        for name, most in (("feeds_per_second", MOST_FEEDS), ("searches_per_second", MOST_SEARCHES)):
            if not 0.0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} = {getattr(self, name)}: must be between 0 and {most:g}")


class Control:
    """The scenario and the rates in force. `usual` is the rate that the settings ask for."""

    def __init__(self, path: Path, scenario: Scenario, usual: Rate) -> None:
        """Raises Misconfigured where the file is there and cannot be read."""
        self._path, self._usual = path, usual
        self.scenario, self.rate, self.since_ms = scenario, usual, 0
        if path.exists():
            self._load()

    def _load(self) -> None:
        try:
            kept = json.loads(self._path.read_text())
            self.scenario = Scenario().changed(kept["scenario"])
            self.rate, self.since_ms = Rate(**kept["rate"]), int(kept["since_ms"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Misconfigured(f"{self._path}: not a scenario file ({error}); delete it to begin anew") from None

    def set_scenario(self, shares: Mapping[str, float], *, reset: bool, now_ms: int) -> Scenario:
        """Set these switches; the others stay, or go off with `reset`. Raises BadInput."""
        try:
            self.scenario = (Scenario() if reset else self.scenario).changed(shares)
        except (ValueError, TypeError) as error:
            raise BadInput(str(error), field="scenario") from None
        self.since_ms = now_ms
        self._save()
        return self.scenario

    def set_rate(self, rates: Mapping[str, float | None]) -> Rate:
        """Set these rates; None is the usual one. Raises BadInput."""
        try:
            wanted = {name: getattr(self._usual, name) if v is None else float(v) for name, v in rates.items()}
            self.rate = replace(self.rate, **wanted)
        except ValueError as error:
            raise BadInput(str(error), field="rate") from None
        self._save()
        return self.rate

    def told(self) -> dict[str, Any]:
        """The scenario as the API says it."""
        return {"scenario": self.scenario.shares(), "since_ms": self.since_ms, "meaning": dict(Scenario.MEANING)}

    def _save(self) -> None:
        kept = {"scenario": self.scenario.shares(), "since_ms": self.since_ms, "rate": asdict(self.rate)}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(kept, indent=2) + "\n")
        new.replace(self._path)
