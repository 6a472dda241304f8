"""Count which items are touched near one another, and how popular each is now: two sources that need no training."""

from __future__ import annotations

import time

import numpy as np

from models.cooccurrence import CooccurrenceConfig, build
from models.popularity import PopularityConfig, popularity
from pipelines.stages import Context, Stage, open_context

WEIGHTS = np.array([0.0, 1.0, 3.0, 5.0])
"""What a click, a cart and an order count for popularity, by kind."""


def run(context: Context, stage: Stage) -> None:
    """Write `cooccurrence/neighbours.npz` and `popularity/popularity.npz` of the stage, aligned with its items."""
    started, history = time.monotonic(), context.history
    n_items, before = history.counts_at(stage.until_ms)[1], history.time_ms < stage.until_ms
    touched = before & history.positives
    config = CooccurrenceConfig(half_life_days=30 * stage.window_days)
    neighbours = build(
        history.user[touched], history.item[touched], history.time_ms[touched], n_items, stage.until_ms, config
    )
    neighbours.save(stage.path("cooccurrence/neighbours.npz"))
    scores = popularity(
        history.item[before], history.time_ms[before], WEIGHTS[history.kind[before]], n_items, stage.until_ms,
        PopularityConfig(half_life_days=3 * stage.window_days),
    )  # fmt: skip
    np.savez_compressed(stage.path("popularity/popularity.npz"), scores=scores)
    reached = float(np.mean(neighbours.ids[:, 0] >= 0))
    context.say(f"co-occurrence ({stage.name}): {reached:.0%} of {n_items:,} items have neighbours, "
                f"{time.monotonic() - started:.1f} s")  # fmt: skip


def main() -> None:
    context = open_context()
    run(context, context.stage("production"))


if __name__ == "__main__":
    main()
