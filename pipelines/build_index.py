"""Build the FAISS index over a stage's item embeddings, and measure its recall against exact search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np

from models.ann_index import AnnConfig, AnnIndex
from pipelines.stages import Context, Stage, open_context

LEAST_RECALL: Final = 0.9
_QUERIES, _AT = 200, 100


def run(context: Context, stage: Stage) -> None:
    """Write `index/items.faiss` and `index/report.json` of the stage."""
    embeddings = np.load(stage.path("two_tower/embeddings.npy"))
    config, threads = AnnConfig(), context.settings.threads
    index = AnnIndex.build(embeddings, config, threads=threads, seed=context.settings.seed)
    index.save(stage.path("index/items.faiss"))
    recall = _recall(index, embeddings)
    kind = config.describe(len(embeddings))
    report = {"kind": kind, "items": len(embeddings), f"recall_at_{_AT}": recall, "config": vars(config)}
    stage.path("index/report.json").write_text(json.dumps(report, indent=2))
    context.say(f"index ({stage.name}): {kind}, {len(embeddings):,} items, recall@{_AT} of exact {recall:.3f}")


def items_of(stage: Stage) -> list[str]:
    """The ids that the stage's index, neighbours and popularity are rows of."""
    return Path(stage.path("two_tower/items.txt")).read_text().splitlines()


def _recall(index: AnnIndex, embeddings: np.ndarray) -> float:
    rng = np.random.default_rng(0)
    queries = embeddings[rng.choice(len(embeddings), min(_QUERIES, len(embeddings)), replace=False)]
    k = min(_AT, len(embeddings))
    found = index.search(queries, k)[1]
    exact = np.argpartition(-(queries @ embeddings.T), k - 1, axis=1)[:, :k]
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(found, exact, strict=True)]))


def main() -> None:
    context = open_context()
    run(context, context.stage("production"))


if __name__ == "__main__":
    main()
