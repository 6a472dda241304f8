"""The newest moment: a history that goes to now, and the window of live traffic that nobody has learned from yet.

The champion's own stage (its weights, its vocabularies) is where a challenger goes on from. Its window starts with the
first event after the champion's data ended and is cut in three by time: the newest part judges, the one before it, in
which as much happened, gives the click rates that are promised, the rest and that one are learned from. What judges is
no longer than a window of the drift checks: a drift that several windows have seen is then older than what judges, and
can be learned. Each part is a window of its own, whose requests know no outcome after its end: else the oldest would be
followed by the most clicks, some of them in the part that judges, and no rate of one part would hold in the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from adapters.bundles import load_bundle
from adapters.errors import BadInput, Misconfigured
from adapters.pointers import read_current
from models.popularity import DAY_MS
from pipelines.build_dataset import build, save_rows
from pipelines.durations import seconds
from pipelines.history import Ints
from pipelines.stages import Context, Stage, StageName
from settings import Settings

MOST_WINDOW_MS: Final = DAY_MS
LEAST_REQUESTS: Final = 100
"""Requests with an outcome that a challenger is trained and judged by, at least."""
SHARES: Final = (0.5, 0.25, 0.25)
"""Of the moments and requests that are taken, by part."""
LEAST_JUDGED: Final = 1000
"""Interactions to judge by, where so many are a quarter of all at most; a quarter is the most in any case."""
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
        return [super().stage("backtest"), earlier(self), self.stage("production")]

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
    """Write the rows of the newest window's parts as `dataset/` of their stages. Kept for the next call.

    Raises BadInput where too few requests had an outcome.
    """
    stages = (earlier(context), context.stage("production"), judged(context))
    if stages[-1].path("dataset/rows.npz").exists():
        return
    most_ms = 1000 * seconds(context.settings.drift_window)
    ends = cuts(context.history.time_ms, context.since_ms, context.now_ms, most_ms)
    parts = [
        build(context, context.champion, begin, end, share)
        for (begin, end), share in zip(pairwise(ends), SHARES, strict=True)
    ]
    for joined in context.champion.path("joined").parent.glob("joined/items-*.npz"):
        joined.unlink()
    if (total := sum(len(times) for _, times in parts)) < LEAST_REQUESTS:
        raise BadInput(f"{total} requests with an outcome since the champion was trained, {LEAST_REQUESTS} needed")
    for stage, (rows, times) in zip(stages, parts, strict=True):
        save_rows(stage, rows, times)
    context.say(f"newest window: {total:,} requests with an outcome, {len(parts[-1][1]):,} of them to judge by")


def cuts(time_ms: Ints, since_ms: int, now_ms: int, most_ms: int) -> list[int]:
    """Begin of each part of [since, now] and the end of the last, which is the newest `most_ms` where that is enough.

    Raises BadInput where it all happened at so few moments that a part would be empty.
    """
    inside = np.sort(time_ms[(time_ms >= since_ms) & (time_ms <= now_ms)])
    newest = int((inside > now_ms - most_ms).sum())
    judged = min(max(newest, LEAST_JUDGED), len(inside) // 4)
    ends = [since_ms, *(int(inside[len(inside) - n * judged - 1]) + 1 for n in (2, 1)), now_ms + 1]
    if any(begin >= end for begin, end in pairwise(ends)):
        raise BadInput(f"what happened since the champion was trained lies in {now_ms - since_ms + 1} ms: "
                       "too few moments to learn from some and judge by others")  # fmt: skip
    return ends


def earlier(context: Newest) -> Stage:
    """A stage that holds the older rows to learn from; the newer ones are the production stage's."""
    return Stage("backtest", context.now_ms + 1, DAY_MS, context.folder / "earlier")


def judged(context: Newest) -> Stage:
    """A stage that holds the rows to judge by."""
    return Stage("backtest", context.now_ms + 1, DAY_MS, context.folder / "judge")
