"""The newest moment: a history that goes to now, and the window of live traffic that nobody has learned from yet.

The champion's own stage (its weights, its vocabularies) is where a challenger goes on from. Its window starts with the
first event after the champion's data ended; the last quarter of its requests is kept to judge by.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from adapters.bundles import load_bundle
from adapters.errors import BadInput, Misconfigured
from adapters.pointers import read_current
from models.popularity import DAY_MS
from pipelines.build_dataset import build, save_rows
from pipelines.stages import Context, Stage, StageName
from settings import Settings

MOST_WINDOW_MS: Final = DAY_MS
LEAST_REQUESTS: Final = 100
"""Requests with an outcome that a challenger is trained and judged by, at least."""
HELD_OUT: Final = 0.25
NEWEST_EXAMPLES: Final = 25_000
"""Clicks that the two-tower model goes over once more."""


@dataclass(frozen=True)
class Newest(Context):
    """As the history was at `now_ms`. `production` is the challenger in `folder`; its rows are the newest window's."""

    now_ms: int
    folder: Path

    @cached_property
    def meta(self) -> dict[str, Any]:
        base = Context(self.settings, self.say).meta
        return {**base, "as_of_ms": self.now_ms, "data_version": f"{base.get('data_version')}+{self.now_ms}"}

    def stage(self, name: StageName) -> Stage:
        if name != "production":
            return super().stage(name)
        return Stage(name, self.now_ms + 1, self.window_ms, self.folder, self.tail_ms)

    def before(self, stage: Stage) -> Stage | None:
        return self.champion if stage.name == "production" else super().before(stage)

    def rows_of(self, stage: Stage) -> list[Stage]:
        return [super().stage("backtest"), self.stage("production")]

    @cached_property
    def champion(self) -> Stage:
        """The stage that made the two-tower model that serves. Raises Misconfigured where it is not on this machine."""
        return champion_stage(self.settings)

    @cached_property
    def tail_ms(self) -> int:
        """How far back the newest examples reach."""
        clicks = self.history.time_ms[self.history.positives]
        return int(self.now_ms - clicks[-min(NEWEST_EXAMPLES, len(clicks))]) + 1

    @cached_property
    def since_ms(self) -> int:
        """Start of the newest window. Raises BadInput where nothing has happened since the champion's data ended."""
        new = self.history.time_ms[self.history.time_ms >= self.champion.until_ms]
        if not len(new):
            raise BadInput("nothing has happened since the champion was trained: there is nothing to learn from")
        return max(int(new[0]), self.now_ms - MOST_WINDOW_MS)


def champion_stage(settings: Settings) -> Stage:
    """Where the champion's two-tower model was trained, with the end of its data."""
    current = read_current(settings.published)
    if current is None:
        raise Misconfigured("nothing is published yet: make demo trains the first models")
    version = current.bundles["two-tower"].version
    for folder in (settings.work / "production", *sorted((settings.work / "retrain").glob("*"), reverse=True)):
        path = folder / "two_tower" / "version.txt"
        if path.exists() and path.read_text().strip() == version and (folder / "two_tower" / "weights.pt").exists():
            return Stage("production", _until(settings, version), DAY_MS, folder)
    raise Misconfigured(f"the training files of two-tower {version} are not under {settings.work}: run make demo")


def _until(settings: Settings, version: str) -> int:
    return int(load_bundle(settings.published / "two-tower" / version).manifest.meta["until_ms"])


def check_vocabulary(context: Newest) -> None:
    """Raises BadInput where the history no longer begins with the shoppers and items that the champion knew."""
    stage, history = context.champion, context.history
    for name, ids in (("users", history.users), ("items", history.items)):
        known = stage.path(f"two_tower/{name}.txt").read_text().splitlines()
        if list(ids[: len(known)]) != known:
            raise BadInput(f"the history's first {name} are not the champion's: late events came; train in full")


def newest_rows(context: Newest) -> None:
    """Write the newest window's rows: `dataset/` to learn from, `judge/dataset/` to judge by. Kept for the next call.

    Raises BadInput where too few requests had an outcome.
    """
    learn, judge = context.stage("production"), judged(context)
    if judge.path("dataset/rows.npz").exists():
        return
    rows, times = build(context, context.champion, context.since_ms, context.now_ms + 1)
    for joined in context.champion.path("joined").parent.glob("joined/items-*.npz"):
        joined.unlink()
    if len(times) < LEAST_REQUESTS:
        raise BadInput(f"{len(times)} requests with an outcome since the champion was trained, {LEAST_REQUESTS} needed")
    later = times >= np.quantile(times, 1 - HELD_OUT)
    if later.all():  # all requests lie in one moment: every fourth is kept
        later = np.arange(len(times)) % 4 == 0
    for stage, keep in ((learn, ~later), (judge, later)):
        save_rows(stage, rows.requests(keep), times[keep])
    context.say(f"newest window: {len(times):,} requests with an outcome, {int(later.sum()):,} of them to judge by")


def judged(context: Newest) -> Stage:
    """A stage that holds the rows to judge by."""
    return Stage("backtest", context.now_ms + 1, DAY_MS, context.folder / "judge")
