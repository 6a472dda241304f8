"""Count which items are touched near one another, and how popular each is now: two sources that need no training.

How far apart two items of a shopper may be to count, and how fast recent items lose their say, is no constant: a shop
where people follow one thread wants little of both, one with lasting tastes much. The newest window of what the stage
knows chooses: what was counted before it is asked what the shoppers who were active in it touched.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from models.cooccurrence import Cooccurrence, CooccurrenceConfig, build, most_pairs
from models.metrics import per_shopper, ranks_from_list
from models.popularity import PopularityConfig, popularity
from pipelines.history import History, Ints, Outcomes
from pipelines.stages import Context, Stage, open_context

WEIGHTS = np.array([0.0, 1.0, 3.0, 5.0])
"""What a click, a cart and an order count for popularity, by kind."""
REACHES: Final = ((30, 0.95), (100, 1.0), (8, 0.8), (3, 0.8))
"""How far apart a pair may be and how the distance counts: `window`, `gap_decay`. First the default."""
RECENCIES: Final = (1.0, 0.5, 0.75, 1.5)
_MOST_ASKED: Final = 2000
_LEAST_ASKED: Final = 100
_LISTED: Final = 100
METRIC: Final = "ndcg@10"


@dataclass(frozen=True)
class Questions:
    """What shoppers had touched last ([Q, 20], newest first, -1 pads), and what each touched then."""

    recent: Ints
    relevant: list[list[int]]


def run(context: Context, stage: Stage) -> None:
    """Write `cooccurrence/neighbours.npz` and `popularity/popularity.npz` of the stage, aligned with its items."""
    started, history = time.monotonic(), context.history
    n_items, before = history.counts_at(stage.until_ms)[1], history.time_ms < stage.until_ms
    config, tried = choose(history, stage, context.settings.seed)
    neighbours = counted(history, stage.until_ms, config)
    neighbours.save(stage.path("cooccurrence/neighbours.npz"))
    report = {"options": asdict(config), "asked": METRIC, "tried": tried}
    stage.path("cooccurrence/report.json").write_text(json.dumps(report, indent=2) + "\n")
    scores = popularity(
        history.item[before], history.time_ms[before], WEIGHTS[history.kind[before]], n_items, stage.until_ms,
        PopularityConfig(half_life_days=3 * stage.window_days),
    )  # fmt: skip
    np.savez_compressed(stage.path("popularity/popularity.npz"), scores=scores)
    reached = float(np.mean(neighbours.ids[:, 0] >= 0))
    context.say(f"co-occurrence ({stage.name}): {reached:.0%} of {n_items:,} items have neighbours, "
                f"at most {config.window} places apart, say of the newest: place^-{config.recency:g}, "
                f"{time.monotonic() - started:.1f} s")  # fmt: skip


def counted(history: History, until_ms: int, config: CooccurrenceConfig) -> Cooccurrence:
    """The neighbours from what was touched before `until_ms`."""
    touched = (history.time_ms < until_ms) & history.positives
    items = history.counts_at(until_ms)[1]
    return build(history.user[touched], history.item[touched], history.time_ms[touched], items, until_ms, config)


def choose(history: History, stage: Stage, seed: int) -> tuple[CooccurrenceConfig, list[dict[str, Any]]]:
    """The options that foretell the newest window best, and what was tried; the defaults if few were active in it."""
    since = stage.until_ms - stage.window_ms
    events = int(np.count_nonzero(history.positives & (history.time_ms < stage.until_ms)))
    most = most_pairs(len(history.items))
    affordable = [reach for reach in REACHES if reach[0] * events <= most] or [min(REACHES)]
    configs = [
        CooccurrenceConfig(window=window, gap_decay=gap_decay, half_life_days=30 * stage.window_days)
        for window, gap_decay in affordable
    ]
    asked = questions(history, since, stage.until_ms, seed)
    if len(asked.relevant) < _LEAST_ASKED or history.time_ms[0] >= since:
        return configs[0], []
    tried: list[tuple[float, CooccurrenceConfig, Cooccurrence]] = []

    def attempt(config: CooccurrenceConfig, model: Cooccurrence) -> None:
        tried.append((worth(model, asked), config, model))

    for config in configs:
        attempt(config, counted(history, since, config))
    _, reach, model = max(tried, key=lambda one: one[0])
    for recency in RECENCIES[1:]:
        other = replace(reach, recency=recency)
        attempt(other, replace(model, say=other.say))
    told = [{"window": c.window, "recency": c.recency, METRIC: round(found, 5)} for found, c, _ in tried]
    return max(tried, key=lambda one: one[0])[1], told


def questions(history: History, since_ms: int, until_ms: int, seed: int) -> Questions:
    """Shoppers who were active in the window, each asked just before a touch; who, and which touch, drawn at random."""
    rng = np.random.default_rng(seed)
    inside = np.flatnonzero((history.time_ms >= since_ms) & (history.time_ms < until_ms))
    drawn = rng.permutation(inside)
    shoppers, first = np.unique(history.user[drawn], return_index=True)
    chosen = np.sort(rng.permutation(len(shoppers))[:_MOST_ASKED])
    user, when = shoppers[chosen], history.time_ms[drawn[first[chosen]]]
    recent, outcomes = history.recent.before(user, when), Outcomes(history, until_ms)
    touched = (outcomes.after(int(u), int(t))[0] for u, t in zip(user, when, strict=True))
    relevant = [np.setdiff1d(later, seen).tolist() for later, seen in zip(touched, recent, strict=True)]
    kept = [number for number, items in enumerate(relevant) if items]
    return Questions(recent[kept], [relevant[number] for number in kept])


def worth(model: Cooccurrence, asked: Questions) -> float:
    """Mean NDCG@10 of the model's lists, without what the shopper touched last."""
    ranks = []
    for recent, relevant in zip(asked.recent, asked.relevant, strict=True):
        rows = model.retrieve(recent, _LISTED)[0]
        ranks.append(ranks_from_list(rows[~np.isin(rows, recent)].tolist(), relevant))
    return float(per_shopper(ranks, [METRIC])[METRIC].mean())


def main() -> None:
    context = open_context()
    run(context, context.stage("production"))


if __name__ == "__main__":
    main()
