"""Measure the whole funnel against each of its parts on the last window, with models that never saw it.

Every shopper who is active in the window asks once, at the first moment of the grid before the activity; relevant is
what the shopper touches from then to the end of the window. The catalogue is ranked in full, ties are pessimistic, and
the items that the shopper touched last (which serving moves to the end) neither compete nor count.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from adapters.provenance import stamp
from adapters.registry import open_registry
from models import onnx_export
from models.bootstrap import interval, paired
from models.metrics import Ranks, coverage, intra_list_diversity, per_shopper, ranks_from_list, ranks_from_scores
from models.rerank.base import brought_forward
from models.rerank.category_mix import CategoryMix, mixed
from models.rerank.mmr import Mmr, diversified
from models.retrieval import top_rows
from pipelines.candidates import Requests, Retrieval, grid, requests_in
from pipelines.history import Ints, Outcomes, load_feeds
from pipelines.oracle import Oracle, open_oracle
from pipelines.rankers import FORMS, RANKERS, SERVES
from pipelines.run_record import record
from pipelines.stages import Context, Stage

METRICS: Final = ("recall@100", "ndcg@10", "map@10", "mrr@10", "hit_rate@10")
SINGLE: Final = ("popularity", "trending", "co-occurrence", "two-tower")
PRERANKED: Final = 200
SHOWN: Final = 20
RULE: Final = Mmr()  # as serving applies them
MIX: Final = CategoryMix()


@dataclass
class Measured:
    """Per model: ranks of every shopper's relevant items; and what the audit needs."""

    ranks: dict[str, list[Ranks]] = field(default_factory=dict)
    lists: dict[str, list[Ints]] = field(default_factory=dict)
    unmasked: dict[str, list[Ranks]] = field(default_factory=dict)
    optimistic: dict[str, list[Ranks]] = field(default_factory=dict)
    known: list[bool] = field(default_factory=list)
    relevant: list[int] = field(default_factory=list)
    reached: list[float] = field(default_factory=list)
    """Share of the relevant items among the candidates: the ceiling of everything after retrieval."""

    def add(self, table: dict[str, list[Any]], name: str, value: Any) -> None:
        table.setdefault(name, []).append(value)


def run(context: Context, stage: Stage) -> dict[str, Any]:
    """Evaluate the backtest's models on the window after them; write `evaluation.json`."""
    started, history, until = time.monotonic(), context.history, stage.until_ms + stage.window_ms
    feeds = load_feeds(context.settings.lake, history, stage.until_ms, until)
    everybody = requests_in(history, feeds, grid(history, stage.until_ms, until), until)
    asked = first_of_each(everybody, context.settings.seed, context.most_shoppers)
    retrieval = Retrieval(context, stage, asked)
    measured = measure(context, stage, retrieval, Outcomes(history, until), open_oracle(context))
    report = summarise(context, stage, measured)
    report["seconds"] = round(time.monotonic() - started, 1)
    stage.path("evaluation.json").write_text(json.dumps(report, indent=2) + "\n")
    _show(report)
    _log(context, stage, report)
    return report


def first_of_each(requests: Requests, seed: int, most: int | None) -> Requests:
    """One request per shopper, the earliest, of at most `most` shoppers, chosen at random; None: of all."""
    shoppers, first = np.unique(requests.user, return_index=True)
    chosen = np.random.default_rng(seed).permutation(len(shoppers))[:most]
    return requests.take(np.sort(first[chosen]))


def measure(
    context: Context, stage: Stage, retrieval: Retrieval, outcomes: Outcomes, oracle: Oracle | None
) -> Measured:
    """Rank the catalogue for every request with every model."""
    measured, history = Measured(), context.history
    funnel = Funnel(stage, retrieval)
    n_users = history.counts_at(stage.until_ms)[0]
    for request in retrieval:
        user, when = int(retrieval.requests.user[request]), int(retrieval.requests.time_ms[request])
        seen = retrieval.recent[request][retrieval.recent[request] >= 0]
        touched = np.unique(outcomes.after(user, when)[0])
        relevant = np.setdiff1d(touched, seen)
        if not len(relevant):
            continue
        for name, scores in _single(retrieval, request).items():
            measured.add(measured.ranks, name, ranks_from_scores(scores, relevant, seen))
            measured.add(measured.unmasked, name, ranks_from_scores(scores, touched))
            measured.add(measured.optimistic, name, ranks_from_scores(_break_ties(scores, relevant), relevant, seen))
            measured.add(measured.lists, name, top_rows(_without(scores, seen), SHOWN))
        for name, ranked in funnel.rank(request).items():
            measured.add(measured.ranks, name, ranks_from_list(ranked.tolist(), relevant.tolist()))
            measured.add(measured.lists, name, ranked[:SHOWN])
        if oracle is not None:
            scores = _listed_only(retrieval, request, oracle.scores(user, when))
            measured.add(measured.ranks, "oracle", ranks_from_scores(scores, relevant, seen))
        measured.known.append(user < n_users)
        measured.relevant.append(len(relevant))
        measured.reached.append(float(np.isin(relevant, funnel.rows).mean()))
    return measured


class Funnel:
    """Retrieve, pre-rank, rank and diversify, as serving does."""

    def __init__(self, stage: Stage, retrieval: Retrieval) -> None:
        self._retrieval = retrieval
        self._preranker, self._ranker = (
            onnx_export.session(stage.path(f"{name}/{SERVES}").read_bytes()) for name in RANKERS
        )
        self.rows: Ints = np.zeros(0, dtype=np.int64)

    def rank(self, request: int) -> dict[str, Ints]:
        """Ranked rows by variant; `rows` keeps the request's candidates."""
        found = self._retrieval.candidates(request)
        features, self.rows = self._retrieval.features(request, found), found.rows
        first = _scored(self._preranker, features)
        kept = top_rows(first, PRERANKED)
        ranked = kept[top_rows(_scored(self._ranker, features[kept]), PRERANKED)]
        rows = found.rows[ranked]
        return {
            "funnel": rows,
            "pre-ranker": found.rows[kept],
            "funnel + diversity": rearranged(self._retrieval, request, rows),
        }


def _scored(model: Any, features: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(model.run(None, {"features": features})[0][:, 0], np.float64)


def rearranged(
    retrieval: Retrieval, request: int, ranked: Ints, *, balance: float = RULE.balance, weight: float = MIX.weight
) -> Ints:
    """The ranked rows in the order that serving's rules for variety and for the mix of categories give them."""
    vectors = retrieval.vectors(ranked[: RULE.breadth * SHOWN])
    diverse = ranked[brought_forward(len(ranked), diversified(vectors, SHOWN, balance))]
    head = retrieval.categories(request, diverse[: MIX.breadth * SHOWN])
    first = mixed(head, retrieval.liked(request), SHOWN, replace(MIX, weight=weight))
    return diverse if first is None else diverse[brought_forward(len(diverse), first)]


def summarise(context: Context, stage: Stage, measured: Measured) -> dict[str, Any]:
    """Means with bootstrap intervals, paired differences of the funnel, and the audit."""
    seed, known = context.settings.seed, np.array(measured.known, dtype=bool)
    tables = {name: per_shopper(ranks, METRICS) for name, ranks in measured.ranks.items()}
    slices = {"all": np.ones(len(known), dtype=bool), "known shoppers": known, "new shoppers": ~known}
    rows = [
        {
            "model": name, "slice": part, "shoppers": int(keep.sum()),
            "metrics": {m: interval(values[keep], seed=seed).as_dict() for m, values in table.items()},
        }
        for part, keep in slices.items() if keep.sum() >= 20
        for name, table in tables.items()
    ]  # fmt: skip
    against = {
        name: paired(tables["funnel"]["ndcg@10"], tables[name]["ndcg@10"], seed=seed).as_dict() for name in SINGLE
    }
    return {
        "title": f"Ranking quality on the last {stage.window_days:g} day(s) of {_source(context)}, "
                 f"{len(measured.relevant):,} shoppers, whole catalogue of {len(context.history.items):,} items",
        "command": "python -m pipelines.evaluate", **stamp(),
        "protocol": "temporal split, last window, full ranking, one request per shopper",
        "seed": seed, "data_version": context.meta.get("data_version"),
        "source": context.meta.get("source"), "audit": _audit(stage, measured),
        "rows": [row for row in rows if row["slice"] == "all"],
        "slices": [row for row in rows if row["slice"] != "all"],
        "funnel_minus": against, "lists": _lists(context, stage, measured),
    }  # fmt: skip


def _source(context: Context) -> str:
    return "simulated history" if context.meta.get("source") == "simulator" else "imported history"


def _audit(stage: Stage, measured: Measured) -> dict[str, Any]:
    def ndcg(ranks: dict[str, list[Ranks]]) -> dict[str, float]:
        return {name: round(float(per_shopper(r, ["ndcg@10"])["ndcg@10"].mean()), 5) for name, r in ranks.items()}

    def moment(ms: int) -> str:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")

    return {
        "split": {
            "trained_before": moment(stage.until_ms), "measured_until": moment(stage.until_ms + stage.window_ms),
            "window_days": stage.window_days, "ranker_rows_before": moment(stage.until_ms),
        },
        "shoppers": len(measured.relevant), "relevant_per_shopper": round(float(np.mean(measured.relevant)), 2),
        "ties": {
            "treatment": "pessimistic: behind every other item with the same score",
            "ndcg@10_if_optimistic": ndcg(measured.optimistic),
        },
        "seen_items": {
            "treatment": "the 20 items touched last before the request neither compete nor count",
            "ndcg@10_if_not_masked": ndcg(measured.unmasked),
        },
        "candidates_hold_of_relevant": round(float(np.mean(measured.reached)), 4),
        "beyond_the_list": "the funnel's list has 200 items; a relevant item outside of it has rank infinity",
        "forms": {
            "treatment": "which form of a ranker serves, its trees or their student, was chosen by this same window",
            **{name: one["form"] for name, one in json.loads(stage.path(FORMS).read_text()).items()},
        },
    }  # fmt: skip


def _lists(context: Context, stage: Stage, measured: Measured) -> dict[str, dict[str, float]]:
    embeddings = np.load(stage.path("two_tower/embeddings.npy"))
    out = {}
    for name, lists in measured.lists.items():
        spread = [intra_list_diversity(embeddings[rows[rows < len(embeddings)]]) for rows in lists]
        out[name] = {
            "coverage@20": round(coverage(lists, len(context.history.items)), 4),
            "intra_list_diversity@20": round(float(np.mean(spread)), 4),
        }
    return out


def _single(retrieval: Retrieval, request: int) -> dict[str, NDArray[np.float64]]:
    """Scores of the whole catalogue by each model alone; what was not listed yet is last."""
    everything = np.arange(len(retrieval.history.items))
    columns = retrieval.describe(request, everything, {})
    found = {
        "popularity": columns["popularity_score"], "trending": retrieval.heat(request),
        "co-occurrence": columns["cooccurrence_score"], "two-tower": columns["two_tower_score"],
    }  # fmt: skip
    return {name: _listed_only(retrieval, request, scores) for name, scores in found.items()}


def _listed_only(retrieval: Retrieval, request: int, scores: NDArray[Any]) -> NDArray[np.float64]:
    listed = retrieval.history.item_seen_ms < retrieval.requests.time_ms[request]
    return np.where(listed, np.nan_to_num(scores.astype(np.float64), nan=-1e9), -np.inf)


def _break_ties(scores: NDArray[np.float64], relevant: Ints) -> NDArray[np.float64]:
    better = scores.copy()
    better[relevant] = np.nextafter(better[relevant], np.inf)
    return better


def _without(scores: NDArray[np.float64], seen: Ints) -> NDArray[np.float64]:
    left = scores.copy()
    left[seen] = -np.inf
    return left


def _show(report: dict[str, Any]) -> None:
    table = Table(title=f"{report['audit']['shoppers']} shoppers, {report['protocol']}")
    for heading in ("model", "slice", *METRICS[:2], "funnel is ahead by (NDCG@10)"):
        table.add_column(heading)
    for row in report["rows"] + report["slices"]:
        cells = [f"{m['mean']:.4f} [{m['low']:.4f}, {m['high']:.4f}]" for m in (row["metrics"][n] for n in METRICS[:2])]
        ahead = report["funnel_minus"].get(row["model"]) if row["slice"] == "all" else None
        shown = f"{ahead['mean']:+.4f} [{ahead['low']:+.4f}, {ahead['high']:+.4f}]" if ahead else ""
        table.add_row(row["model"], row["slice"], *cells, shown)
    console = Console()
    console.print(table)
    console.print({"audit": report["audit"], "seconds": report["seconds"]})


def _log(context: Context, stage: Stage, report: dict[str, Any]) -> None:
    registry = open_registry(context.settings.mlflow_uri, context.settings.home)
    with record(registry, context, "evaluate", stage, {"shoppers": report["audit"]["shoppers"]}) as run_:
        for row in report["rows"]:
            model = row["model"].replace(" + ", "_with_")
            run_.metrics({f"{model}.{m.replace('@', '_at_')}": v["mean"] for m, v in row["metrics"].items()})
        run_.file("evaluation.json", stage.path("evaluation.json"))
