"""The three moments at which models are trained, and what every training pipeline is handed.

    past         before the last two windows   its candidates and scores are the ranker's first training rows
    backtest     before the last window        what evaluation measures; never sees the window it is measured on
    production   everything                    what is published

A window is one day, or longer where a day holds too little (`window_days`). Each stage goes on from the one before, so
the two-tower model is trained in full once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from rich.console import Console

from adapters.errors import Misconfigured
from models.popularity import DAY_MS
from pipelines.history import History, Ints, load_history
from settings import Settings, load_settings

StageName = Literal["past", "backtest", "production"]
STAGES: Final[tuple[StageName, ...]] = ("past", "backtest", "production")
_WINDOWS: Final = (1, 2, 7, 14, 28, 56, 112, 224, 448)
_LEAST_SHARE: Final = 0.02


@dataclass(frozen=True)
class Stage:
    """`folder` holds what this stage made; it learned from events before `until_ms` alone."""

    name: StageName
    until_ms: int
    window_ms: int
    folder: Path
    tail_ms: int | None = None
    """How far back the two-tower model's gentle pass reaches; None: three windows."""

    @property
    def window_days(self) -> float:
        return self.window_ms / DAY_MS

    def path(self, name: str) -> Path:
        """A file of this stage, its folder made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True)
class Context:
    """Settings, the history (read once, when first needed) and where to say what is going on.

    `most_shoppers`: how many the evaluation asks for at most; None: all who were active, for narrower intervals.
    """

    settings: Settings
    say: Callable[[str], None]
    most_shoppers: int | None = field(default=1500, kw_only=True)

    @cached_property
    def meta(self) -> dict[str, Any]:
        """lake/_meta.json. Raises Misconfigured if there is no history."""
        path = self.settings.lake / "_meta.json"
        if not path.exists():
            raise Misconfigured(f"{path} is missing: seed or import a history first (python -m pipelines.seed_history)")
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    @cached_property
    def history(self) -> History:
        history = load_history(self.settings.lake, int(self.meta["as_of_ms"]))
        counts = f"{len(history.users):,} shoppers, {len(history.items):,} items"
        self.say(f"history: {len(history.user):,} interactions, {counts}")
        return history

    @cached_property
    def window_ms(self) -> int:
        return choose_window(self.history.time_ms)

    def stage(self, name: StageName) -> Stage:
        """One of the three moments of this history."""
        back = len(STAGES) - 1 - STAGES.index(name)
        until = self.history.as_of_ms + 1 - back * self.window_ms
        return Stage(name, until, self.window_ms, self.settings.work / name)

    def rows_of(self, stage: Stage) -> list[Stage]:
        """The stages whose windows' rows the rankers of `stage` learn from, oldest first."""
        names: tuple[StageName, ...] = ("past",) if stage.name == "backtest" else ("past", "backtest")
        return [self.stage(name) for name in names]

    def before(self, stage: Stage) -> Stage | None:
        """The stage that `stage` goes on from."""
        place = STAGES.index(stage.name)
        return self.stage(STAGES[place - 1]) if place else None


def choose_window(time_ms: Ints) -> int:
    """The shortest window (from a day up) whose newest span holds at least 2 % of the interactions, in ms."""
    newest = int(np.max(time_ms))
    for days in _WINDOWS:
        if np.mean(time_ms > newest - days * DAY_MS) >= _LEAST_SHARE:
            return days * DAY_MS
    return _WINDOWS[-1] * DAY_MS


def open_context(settings: Settings | None = None) -> Context:
    """A context that prints to the terminal."""
    return Context(settings or load_settings(), Console(highlight=False, soft_wrap=True).print)
