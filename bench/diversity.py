"""What variety costs: relevance by the strength of two rules, and which strength to take: `python -m bench.diversity`.

On what `make demo` trained: the backtest's funnel ranks for every shopper of the window after it, and the first 20 are
chosen anew with every strength, exactly as serving's rules do: MMR's balance without the mix of categories, then the
mix's weight after MMR as served. NDCG@20 of what the shopper touched, intra-list diversity, categories in the list, how
far their mix is from that of the shopper's last clicks, and how much of the catalogue anybody is shown. Of each sweep
the strongest is taken that, with every weaker one, surely costs less than `--lose` of the NDCG@20 of none (paired
bootstrap over shoppers).
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
from models.diversity import miscalibration
from models.metrics import coverage, intra_list_diversity, ndcg, ranks_from_list
from pipelines.candidates import Requests, Retrieval, grid, requests_in
from pipelines.evaluate.funnel import MIX, RULE, SHOWN, Funnel, first_of_each, rearranged
from pipelines.history import Outcomes, load_feeds
from pipelines.stages import Context, open_context
from settings import ROOT

OUT: Final = ROOT / "bench" / "results" / "diversity.json"
MEASURES: Final = ("ndcg@20", "diversity", "categories", "miscalibration")
SWEEPS: Final[Mapping[str, tuple[float, ...]]] = {
    "mmr": (1.0, 0.98, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5),
    "category_mix": (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4),
}
"""By rule: its strengths, none first."""
SERVING: Final = {"mmr": RULE.balance, "category_mix": MIX.weight}

Values = dict[str, dict[float, dict[str, NDArray[np.float64]]]]
Shares = dict[str, dict[float, float]]


def requests_of(context: Context) -> Requests:
    """One request of every shopper who is active in the window after the backtest."""
    stage, history = context.stage("backtest"), context.history
    until = stage.until_ms + stage.window_ms
    feeds = load_feeds(context.settings.lake, history, stage.until_ms, until)
    everybody = requests_in(history, feeds, grid(history, stage.until_ms, until), until)
    return first_of_each(everybody, context.settings.seed, context.most_shoppers)


def measure(context: Context) -> tuple[Values, Shares]:
    """By rule and strength: a value per shopper for each measure, and the share of the catalogue that is shown."""
    stage = context.stage("backtest")
    retrieval = Retrieval(context, stage, requests_of(context))
    funnel, outcomes = Funnel(stage, retrieval), Outcomes(context.history, stage.until_ms + stage.window_ms)
    found = {rule: {s: {m: list[float]() for m in MEASURES} for s in strengths} for rule, strengths in SWEEPS.items()}
    lists = {rule: {s: list[NDArray[np.int64]]() for s in strengths} for rule, strengths in SWEEPS.items()}
    for request in retrieval:
        user, when = int(retrieval.requests.user[request]), int(retrieval.requests.time_ms[request])
        seen = retrieval.recent[request][retrieval.recent[request] >= 0]
        relevant = np.setdiff1d(np.unique(outcomes.after(user, when)[0]), seen)
        if not len(relevant):
            continue
        ranked = funnel.rank(request)["funnel"]
        for rule, strengths in SWEEPS.items():
            for strength in strengths:
                shown = slate(retrieval, request, ranked, rule, strength)
                values = found[rule][strength]
                values["ndcg@20"].append(ndcg(ranks_from_list(shown.tolist(), relevant.tolist()), SHOWN))
                values["diversity"].append(intra_list_diversity(retrieval.vectors(shown)))
                codes = retrieval.categories(request, shown)
                values["categories"].append(float(len(np.unique(codes))))
                values["miscalibration"].append(away(codes, retrieval.liked(request)))
                lists[rule][strength].append(shown)
    items = len(context.history.items)
    arrays = {rule: {s: {m: np.array(v) for m, v in of.items()} for s, of in sweep.items()}
              for rule, sweep in found.items()}  # fmt: skip
    shares = {rule: {s: round(coverage(of, items), 4) for s, of in sweep.items()} for rule, sweep in lists.items()}
    return arrays, shares


def slate(
    retrieval: Retrieval, request: int, ranked: NDArray[np.int64], rule: str, strength: float
) -> NDArray[np.int64]:
    """The first 20 of `ranked` with one rule's strength: MMR's without the mix, the mix's after MMR as served."""
    alone = {"balance": strength, "weight": 0.0} if rule == "mmr" else {"weight": strength}
    return rearranged(retrieval, request, ranked, **alone)[:SHOWN]


def away(shown: NDArray[np.int64], liked: NDArray[np.int64]) -> float:
    """KL divergence of the shown categories from the liked ones; NaN where too little is known to have a mix."""
    if len(liked) < MIX.least:
        return float("nan")
    codes, place = np.unique(np.concatenate([shown, liked]), return_inverse=True)
    mixes = [np.bincount(part, minlength=len(codes)) / len(part) for part in np.split(place, [len(shown)])]
    return float(miscalibration(mixes[1], mixes[0]))


def sweep_of(values: Mapping[float, Mapping[str, NDArray[np.float64]]], shown: Mapping[float, float], lose: float,
             seed: int) -> dict[str, Any]:  # fmt: skip
    """A row per strength, with what it surely cost at most of the relevance of none; and the one to take."""
    first = next(iter(values.values()))["ndcg@20"]
    rows = []
    for strength, of in values.items():
        cost = paired(of["ndcg@20"], first, seed=seed).as_dict()
        known = {m: v[np.isfinite(v)] for m, v in of.items()}
        rows.append({"strength": strength, "metrics": {m: interval(v, seed=seed).as_dict() for m, v in known.items()},
                     "difference": cost, "kept": bool(cost["low"] >= -lose * float(first.mean())),
                     "coverage": shown[strength]})  # fmt: skip
    return {"rows": rows, "taken": choose(rows)}


def choose(rows: Sequence[Mapping[str, Any]]) -> float:
    """The strongest that kept its relevance, with every weaker one; rows come weakest first."""
    taken = rows[0]["strength"]
    for row in rows:
        if not row["kept"]:
            break
        taken = row["strength"]
    return float(taken)


def picture(sweeps: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """NDCG@20 against what each rule is for; the one that the rule takes is bold."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    wants = {"mmr": ("diversity", "intra-list diversity of the first 20", "MMR's balance"),
             "category_mix": ("miscalibration", "KL of the shown categories from the liked", "the mix's weight")}
    for axis, (rule, sweep) in zip(panels, sweeps.items(), strict=True):
        measure_, label, title = wants[rule]
        rows = sweep["rows"]
        x, y = ([row["metrics"][m]["mean"] for row in rows] for m in (measure_, "ndcg@20"))
        ends = [[abs(row["metrics"]["ndcg@20"][end] - row["metrics"]["ndcg@20"]["mean"]) for row in rows]
                for end in ("low", "high")]  # fmt: skip
        axis.errorbar(x, y, yerr=ends, fmt="-o", color="#1f6f8b", ecolor="#bbbbbb")
        for row, at, height in zip(rows, x, y, strict=True):
            axis.annotate(f"{row['strength']:g}", (at, height), textcoords="offset points", xytext=(4, 6),
                          weight="bold" if row["strength"] == sweep["taken"] else "normal")  # fmt: skip
        axis.set(xlabel=label, title=f"relevance by {title}")
    panels[0].set_ylabel("NDCG@20")
    figure.savefig(path, dpi=110)


def show(sweeps: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    for rule, sweep in sweeps.items():
        table = Table(title=f"relevance against variety, by the strength of {rule}")
        for head in ("strength", *MEASURES, "difference of NDCG@20", "catalogue shown"):
            table.add_column(head, justify="right")
        for row in sweep["rows"]:
            table.add_row(f"{row['strength']:g}" + ("*" if row["strength"] == sweep["taken"] else ""),
                          *(f"{row['metrics'][m]['mean']:.4f}" for m in MEASURES),
                          difference(row["difference"]), f"{row['coverage']:.1%}")  # fmt: skip
        console.print(table)
        console.print(f"* taken; serving uses {SERVING[rule]:g}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.diversity", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--lose", type=float, default=0.05, help="share of NDCG@20 that variety may cost")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--save", type=Path, help=f"where to write the result, e.g. {OUT.relative_to(ROOT)}")
    asked = parser.parse_args(arguments)
    console = Console(stderr=True)
    values, shown = measure(open_context())
    sweeps = {rule: sweep_of(of, shown[rule], asked.lose, asked.seed) for rule, of in values.items()}
    show(sweeps, console)
    if asked.save:
        shoppers = len(next(iter(values["mmr"].values()))["ndcg@20"])
        result = {"command": "python -m bench.diversity", "seed": asked.seed, "lose": asked.lose, "sweeps": sweeps,
                  "serving": SERVING, "shoppers": shoppers, **provenance.stamp()}  # fmt: skip
        samples = {f"{rule}|{s:g}|{m}": v.astype(np.float32) for rule, sweep in values.items()
                   for s, of in sweep.items() for m, v in of.items()}  # fmt: skip
        keep(result, samples, asked.save)
        picture(sweeps, asked.save.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
