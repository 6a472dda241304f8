"""Point-in-time training rows for the rankers: requests of a past window, their candidates, and what happened next.

Candidates and scores come from the stage before the window, features from the point-in-time join, labels from what the
shopper touched between the moment and the end of the window (1 click, 2 cart, 3 order). Products that a feed showed in
the request's slot carry their position, so that the rankers can learn the position bias apart.
"""

from __future__ import annotations

import json
import time
from typing import Final

import numpy as np

from adapters.errors import BadInput
from models.ranker import RankingRows
from models.ranking_features import FEATURES_SHA
from pipelines.candidates import Requests, Retrieval, grid, requests_in
from pipelines.history import Feeds, Ints, Outcomes, load_feeds
from pipelines.stages import STAGES, Context, Stage, open_context

MOST_REQUESTS: Final = 3000
OTHERS: Final = 100


def run(context: Context, stage: Stage) -> None:
    """Write `dataset/rows.npz`: rows of the window that follows `stage`, made with `stage`'s models."""
    started, until = time.monotonic(), stage.until_ms + stage.window_ms
    rows, times = build(context, stage, stage.until_ms, until)
    save_rows(stage, rows, times)
    positions = np.zeros(0, np.int64) if rows.positions is None else rows.positions
    report = {
        "requests": len(rows.groups), "rows": len(rows.labels), "features_sha256": FEATURES_SHA,
        "labels": np.bincount(rows.labels, minlength=4).tolist(), "since_ms": stage.until_ms, "until_ms": until,
        "shown": int(np.sum(positions > 0)), "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
    stage.path("dataset/report.json").write_text(json.dumps(report, indent=2))
    context.say(f"dataset ({stage.name}): {report['requests']:,} requests, {report['rows']:,} rows, "
                f"labels {report['labels']}, {report['seconds']} s")  # fmt: skip


def build(
    context: Context, stage: Stage, since_ms: int, until_ms: int, share: float = 1.0
) -> tuple[RankingRows, Ints]:
    """Rows of [since, until) made with `stage`'s models, and the time of each request.

    `share` of the usual moments and requests are taken, where the window is a part of a whole. Raises BadInput where
    nobody touched anything.
    """
    history, seed = context.history, context.settings.seed
    moments = grid(history, since_ms, until_ms, share)
    feeds = load_feeds(context.settings.lake, history, since_ms, until_ms)
    asked = _sample(requests_in(history, feeds, moments, until_ms), seed, round(share * MOST_REQUESTS))
    return _rows(Retrieval(context, stage, asked), feeds, until_ms, seed)


def save_rows(stage: Stage, rows: RankingRows, times: Ints) -> None:
    """Write them as the stage's `dataset/rows.npz`, whole or not at all."""
    positions = np.zeros(0, np.int64) if rows.positions is None else rows.positions
    path = stage.path("dataset/rows.npz")
    staged = path.with_suffix(".part.npz")
    np.savez(
        staged, features=rows.features, labels=rows.labels, groups=rows.groups, positions=positions, time_ms=times
    )
    staged.replace(path)


def load_rows(stage: Stage) -> tuple[RankingRows, Ints]:
    """The rows that `run` wrote, and the time of each request."""
    with np.load(stage.path("dataset/rows.npz"), allow_pickle=False) as saved:
        positions = saved["positions"] if len(saved["positions"]) else None
        return RankingRows(saved["features"], saved["labels"], saved["groups"], positions), saved["time_ms"]


def _sample(requests: Requests, seed: int, most: int) -> Requests:
    total = len(requests.user)
    chosen = np.random.default_rng(seed).permutation(total)[:most]
    return requests.take(np.sort(chosen))


def _rows(retrieval: Retrieval, feeds: Feeds, until_ms: int, seed: int) -> tuple[RankingRows, Ints]:
    outcomes, shown = Outcomes(retrieval.history, until_ms), _shown(retrieval.requests, feeds)
    features, labels, positions, groups, times = [], [], [], [], []
    for request in retrieval:
        user, when = retrieval.requests.user[request], retrieval.requests.time_ms[request]
        found = retrieval.candidates(request)
        label = outcomes.labels(user, when, found.rows)
        if not label.any():
            continue
        position = np.zeros(len(found.rows), dtype=np.int64)
        for item, place in shown.get(request, {}).items():
            position[found.rows == item] = place
        keep = _chosen(label, np.random.default_rng([seed, request]))
        features.append(retrieval.features(request, found)[keep])
        labels.append(label[keep])
        positions.append(position[keep])
        groups.append(len(keep))
        times.append(when)
    if not groups:
        raise BadInput(f"no request of the window ending at {until_ms} was followed by anything: too little history")
    places = np.concatenate(positions)
    rows = RankingRows(
        np.concatenate(features), np.concatenate(labels), np.array(groups), places if places.any() else None
    )
    return rows, np.array(times)


def _shown(requests: Requests, feeds: Feeds) -> dict[int, dict[int, int]]:
    """Per request, the first position of each product that feeds showed before the next moment."""
    moment = np.searchsorted(requests.moments, feeds.time_ms, side="right") - 1
    place = {(u, m): i for i, (u, m) in enumerate(zip(requests.user.tolist(), requests.moment.tolist(), strict=True))}
    shown: dict[int, dict[int, int]] = {}
    for user, at, items in zip(feeds.user.tolist(), moment.tolist(), feeds.items.tolist(), strict=True):
        request = place.get((user, at))
        if request is not None:
            seen = shown.setdefault(request, {})
            for position, item in enumerate(items, start=1):
                if item >= 0:
                    seen.setdefault(item, position)
    return shown


def _chosen(label: Ints, rng: np.random.Generator) -> Ints:
    """All that was touched and a uniform sample of the rest.

    Uniform, because any preference (for the top of a source, say) would teach that those candidates fail more often.
    """
    keep = label > 0
    keep[rng.permutation(np.flatnonzero(~keep))[:OTHERS]] = True
    return np.flatnonzero(keep)


def main() -> None:
    context = open_context()
    for name in STAGES[:2]:
        run(context, context.stage(name))


if __name__ == "__main__":
    main()
