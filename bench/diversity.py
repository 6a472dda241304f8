"""What variety costs: relevance against diversity by MMR's balance, and which to take: `python -m bench.diversity`.

On what `make demo` trained: the backtest's funnel ranks for every shopper of the window after it, and the first 20 are
chosen anew with every balance, exactly as serving's rule does. NDCG@20 of what the shopper touched, intra-list
diversity, categories in the list, and how much of the catalogue anybody is shown. The rule takes the smallest balance,
the most variety, that surely cost less than `--lose` of the NDCG@20 (paired bootstrap over shoppers).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from adapters import provenance
from bench.numbers import difference
from bench.samples import keep
from models.bootstrap import interval, paired
from models.metrics import coverage, intra_list_diversity, ndcg, ranks_from_list
from models.rerank.mmr import diversified
from pipelines.build_dataset import Outcomes
from pipelines.candidates import Requests, Retrieval, grid, requests_in
from pipelines.evaluate.funnel import RULE, SHOWN, Funnel, first_of_each
from pipelines.history import load_feeds
from pipelines.stages import Context, open_context
from settings import ROOT

OUT: Final = ROOT / "bench" / "results" / "diversity.json"
BALANCES: Final = (1.0, 0.98, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
MEASURES: Final = ("ndcg@20", "diversity", "categories")

Values = dict[float, dict[str, NDArray[np.float64]]]


def requests_of(context: Context) -> Requests:
    """One request of every shopper who is active in the window after the backtest."""
    stage, history = context.stage("backtest"), context.history
    until = stage.until_ms + stage.window_ms
    feeds = load_feeds(context.settings.lake, history, stage.until_ms, until)
    everybody = requests_in(history, feeds, grid(history, stage.until_ms, until), until)
    return first_of_each(everybody, context.settings.seed)


def measure(context: Context) -> tuple[Values, dict[float, float]]:
    """By balance: a value per shopper for each measure, and the share of the catalogue that is shown."""
    stage = context.stage("backtest")
    retrieval = Retrieval(context, stage, requests_of(context))
    funnel, outcomes = Funnel(stage, retrieval), Outcomes(context.history, stage.until_ms + stage.window_ms)
    category, _ = context.history.content_at(stage.until_ms)
    found: dict[float, dict[str, list[float]]] = {b: {m: [] for m in MEASURES} for b in BALANCES}
    lists: dict[float, list[NDArray[np.int64]]] = {b: [] for b in BALANCES}
    for request in retrieval:
        user, when = int(retrieval.requests.user[request]), int(retrieval.requests.time_ms[request])
        seen = retrieval.recent[request][retrieval.recent[request] >= 0]
        relevant = np.setdiff1d(np.unique(outcomes.after(user, when)[0]), seen)
        if not len(relevant):
            continue
        ranked = funnel.rank(request)["funnel"]
        for balance, shown in slates(ranked, retrieval.vectors(ranked[: RULE.breadth * SHOWN])).items():
            values = found[balance]
            values["ndcg@20"].append(ndcg(ranks_from_list(shown.tolist(), relevant.tolist()), SHOWN))
            values["diversity"].append(intra_list_diversity(retrieval.vectors(shown)))
            values["categories"].append(float(len(np.unique(category[shown]))))
            lists[balance].append(shown)
    items = len(context.history.items)
    arrays = {b: {m: np.array(v) for m, v in of.items()} for b, of in found.items()}
    return arrays, {b: round(coverage(of, items), 4) for b, of in lists.items()}


def slates(ranked: NDArray[np.int64], head: NDArray[np.floating[Any]]) -> dict[float, NDArray[np.int64]]:
    """The first 20 by balance; `head` are the embeddings of the first of `ranked`."""
    return {balance: ranked[diversified(head, SHOWN, balance)] for balance in BALANCES}


def rows_of(values: Values, shown: Mapping[float, float], lose: float, seed: int) -> list[dict[str, Any]]:
    """A row per balance, with what it surely cost at most of the relevance of balance 1."""
    first = values[1.0]["ndcg@20"]
    out = []
    for balance, of in values.items():
        cost = paired(of["ndcg@20"], first, seed=seed).as_dict()
        out.append({"balance": balance, "metrics": {m: interval(v, seed=seed).as_dict() for m, v in of.items()},
                    "difference": cost, "kept": bool(cost["low"] >= -lose * float(first.mean())),
                    "coverage": shown[balance]})  # fmt: skip
    return out


def choose(rows: Sequence[Mapping[str, Any]]) -> float:
    """The smallest balance that kept its relevance, with every larger one."""
    taken = 1.0
    for row in sorted(rows, key=lambda one: -one["balance"]):
        if not row["kept"]:
            break
        taken = row["balance"]
    return float(taken)


def picture(rows: Sequence[Mapping[str, Any]], taken: float, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    x, y = ([row["metrics"][m]["mean"] for row in rows] for m in ("diversity", "ndcg@20"))
    error = [[row["metrics"]["ndcg@20"]["mean"] - row["metrics"]["ndcg@20"]["low"] for row in rows],
             [row["metrics"]["ndcg@20"]["high"] - row["metrics"]["ndcg@20"]["mean"] for row in rows]]  # fmt: skip
    axis.errorbar(x, y, yerr=error, fmt="-o", color="#1f6f8b", ecolor="#bbbbbb")
    for row, at, height in zip(rows, x, y, strict=True):
        axis.annotate(f"{row['balance']:g}", (at, height), textcoords="offset points", xytext=(4, 6),
                      weight="bold" if row["balance"] == taken else "normal")  # fmt: skip
    axis.set(xlabel="intra-list diversity of the first 20", ylabel="NDCG@20",
             title="relevance against variety, by MMR's balance; bold is the rule's")
    figure.savefig(path, dpi=110)


def show(rows: Sequence[Mapping[str, Any]], taken: float, console: Console) -> None:
    table = Table(title="relevance against variety, by MMR's balance")
    for head in ("balance", *MEASURES, "difference of NDCG@20", "catalogue shown"):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(f"{row['balance']:g}" + ("*" if row["balance"] == taken else ""),
                      *(f"{row['metrics'][m]['mean']:.4f}" for m in MEASURES),
                      difference(row["difference"]), f"{row['coverage']:.1%}")  # fmt: skip
    console.print(table)
    console.print(f"* taken by the rule; serving uses {RULE.balance:g}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.diversity", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--lose", type=float, default=0.02, help="share of NDCG@20 that variety may cost")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--save", type=Path, help=f"where to write the result, e.g. {OUT.relative_to(ROOT)}")
    asked = parser.parse_args(arguments)
    console = Console(stderr=True)
    values, shown = measure(open_context())
    rows = rows_of(values, shown, asked.lose, asked.seed)
    taken = choose(rows)
    show(rows, taken, console)
    if asked.save:
        result = {"command": "python -m bench.diversity", "seed": asked.seed, "lose": asked.lose, "rows": rows,
                  "taken": taken, "serving": RULE.balance, "shoppers": len(values[1.0]["ndcg@20"]),
                  **provenance.stamp()}  # fmt: skip
        samples = {f"{b:g}|{m}": v.astype(np.float32) for b, of in values.items() for m, v in of.items()}
        keep(result, samples, asked.save)
        picture(rows, taken, asked.save.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
