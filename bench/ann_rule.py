"""Which index for how many items: every kind at every size, and the choice of the rule in models/ann_index.py.

    python -m bench.ann_rule --save bench/results/ann_rule.json                (about 6 minutes)
    python -m bench.ann_rule --sizes 1000,4000 --queries 30                    (seconds)

For each size and kind: CPU milliseconds a query on one thread (500 results, as serving asks), recall against exact, CPU
seconds to build, bytes an item. The best kind is the quickest whose recall keeps the goal and whose build does not take
longer than MOST_BUILD_S; the rule should choose it, and `regret` says what it loses where it does not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from adapters.provenance import stamp
from bench.clusters import clustered
from models.ann_index import AnnConfig, AnnIndex, Kind
from models.retrieval import SIZES

SIZES_MEASURED: Final = (2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 400_000)
KINDS: Final[dict[Kind, AnnConfig]] = {
    "exact": AnnConfig(exact_below=10**12, hnsw_below=10**12),
    "hnsw": AnnConfig(exact_below=0, hnsw_below=10**12),
    "ivf": AnnConfig(exact_below=0, hnsw_below=0),
}
LEAST_RECALL: Final = 0.95
MOST_BUILD_S: Final = 300.0
DIM: Final = 64
K: Final = SIZES["two_tower"]


def measured(
    kind: Kind, vectors: NDArray[np.float32], queries: NDArray[np.float32], truth: NDArray[np.int64], folder: Path
) -> dict[str, Any]:
    """One kind at one size. Queries run one by one, as requests do."""
    begun = time.process_time()
    index = AnnIndex.build(vectors, KINDS[kind], threads=2)
    build_s = time.process_time() - begun
    index.save(folder / kind)
    size = (folder / kind).stat().st_size
    index = AnnIndex.load(folder / kind, threads=1)
    k = min(K, len(vectors))
    index.search(queries[:1], k)
    begun = time.process_time()
    found = np.concatenate([index.search(query[None], k)[1] for query in queries])
    query_ms = 1000 * (time.process_time() - begun) / len(queries)
    share = float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(found, truth, strict=True)]))
    return {
        "kind": kind, "described": KINDS[kind].describe(len(vectors)), "query_ms": round(query_ms, 4),
        "recall": round(share, 4), "build_s": round(build_s, 2), "bytes_per_item": round(size / len(vectors), 1),
    }  # fmt: skip


def at_size(n: int, queries: int, say: Any = lambda _: None) -> dict[str, Any]:
    """All kinds at one size, which of them is best and which the rule takes."""
    points = clustered(n + queries, DIM, max(8, int(n**0.5)), seed=n)
    vectors, asked = points[:n], points[n:]
    k = min(K, n)
    truth = np.argpartition(-(asked @ vectors.T), k - 1, axis=1)[:, :k]
    rows = []
    with TemporaryDirectory() as folder:
        for kind in KINDS:
            rows.append(measured(kind, vectors, asked, truth, Path(folder)))
            say(f"{n:,} {kind}: {rows[-1]['query_ms']} ms, recall {rows[-1]['recall']}, build {rows[-1]['build_s']} s")
    fit = [row for row in rows if row["recall"] >= LEAST_RECALL and row["build_s"] <= MOST_BUILD_S]
    best = min(fit or rows, key=lambda row: row["query_ms"])
    taken = next(row for row in rows if row["kind"] == AnnConfig().kind(n))
    regret = round(taken["query_ms"] - best["query_ms"], 4)
    return {"items": n, "kinds": rows, "best": best["kind"], "rule": taken["kind"], "regret_ms": regret}


def show(result: dict[str, Any], console: Console) -> None:
    """The table of all sizes."""
    table = Table(title=f"index by size, {DIM} dimensions, {K} results")
    for heading in ("items", "kind", "ms a query", "recall", "build CPU s", "bytes an item", ""):
        table.add_column(heading, justify="right")
    for size in result["sizes"]:
        for row in size["kinds"]:
            marks = [word for word in ("best", "rule") if size[word] == row["kind"]]
            figures = (row["described"], row["query_ms"], row["recall"], row["build_s"], row["bytes_per_item"])
            table.add_row(f"{size['items']:,}", *map(str, figures), " ".join(marks))
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ann_rule", description=__doc__)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES_MEASURED)), help="items, comma separated")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    sizes = [at_size(int(n), options.queries, console.print) for n in options.sizes.split(",")]
    result = {
        "command": "python -m bench.ann_rule", "dim": DIM, "k": K, "least_recall": LEAST_RECALL,
        "most_build_s": MOST_BUILD_S, "rule": asdict(AnnConfig()), "sizes": sizes,
        **stamp(),
    }  # fmt: skip
    show(result, console)
    if options.save:
        options.save.parent.mkdir(parents=True, exist_ok=True)
        options.save.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
