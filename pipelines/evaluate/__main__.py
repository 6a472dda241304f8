"""Measure quality: of the funnel on the platform's own history, or with --data of retrieval models on any data.

python -m pipelines.evaluate [--out FILE.json] python -m pipelines.evaluate --data FOLDER_OR_FILE --protocol
leave_one_out --k 10,20 --models all --budget 600 --out FILE.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from adapters.errors import MinimartError
from pipelines.evaluate.compare import BLEND, Options, compare, names_of, numbers_of
from pipelines.evaluate.dataset import load
from pipelines.evaluate.progress import Progress
from pipelines.evaluate.protocols import PROTOCOLS
from pipelines.evaluate.report import report
from pipelines.evaluate.tracking import has_store, log
from pipelines.run_all import bring
from pipelines.stages import open_context
from settings import Settings, load_settings

_OWN: Final = ("out", "shoppers")


def main() -> None:
    parser = _parser()
    chosen = parser.parse_args()
    try:
        if chosen.data is None:
            given = [name for name, value in vars(chosen).items() if value is not None and name not in _OWN]
            if given:
                parser.error(f"--{given[0]} needs --data; without it the platform's own funnel is measured")
            _funnel(chosen.out, chosen.shoppers)
        elif chosen.shoppers is not None:
            parser.error("--shoppers is for the platform's own funnel; with --data all are measured")
        else:
            _protocol(chosen, load_settings())
    except MinimartError as error:
        raise SystemExit(f"evaluate: {error.detail}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, help="folder as in docs/data.md, or a text file with `user item item ...` a line")
    add("--protocol", choices=tuple(PROTOCOLS), help="default: leave_one_out")
    add("--k", help="cut-offs, the first is what tuning maximises NDCG at (default: 10,20)")
    add("--models", help="all (default), or names separated by commas; `blend` blends those named")
    add("--budget", type=float, help="seconds for tuning, learning and ranking together (default: 600)")
    add("--seen", choices=("auto", "mask", "keep"), help="may touched items be recommended? (default: auto)")
    add("--refit", action=argparse.BooleanOptionalAction, help="learn the validation items for the test (default)")
    add("--memory", type=float, help="GiB that it may use; decides which models fit (default: 6)")
    add("--seed", type=int, help="default: MINIMART_SEED")
    add("--shoppers", type=int, help="without --data: measure so many active shoppers, chosen at random (default: all)")
    add("--out", type=Path, help="write the report there, e.g. bench/results/leave_one_out_grocery.json")
    return parser


def _funnel(out: Path | None, shoppers: int | None) -> None:
    context = replace(open_context(), most_shoppers=shoppers)
    bring(context, last="evaluate", again=True)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(context.stage("backtest").path("evaluation.json"), out)


def _protocol(chosen: argparse.Namespace, settings: Settings) -> None:
    began, progress = time.monotonic(), Progress()
    options = Options(
        protocol=chosen.protocol or "leave_one_out", ks=numbers_of(chosen.k or "10,20"),
        models=names_of(chosen.models or "all"), budget=600.0 if chosen.budget is None else chosen.budget,
        seen=chosen.seen or "auto", refit=chosen.refit is not False,
        seed=settings.seed if chosen.seed is None else chosen.seed, threads=settings.threads,
        memory_gib=6.0 if chosen.memory is None else chosen.memory,
    )  # fmt: skip
    data = load(chosen.data)
    users, items, interactions = len(data.sequences), data.catalogue.n_items, len(data.sequences.items)
    progress.say(f"{users:,} users, {items:,} items, {interactions:,} interactions")
    found = compare(data, options, progress)
    made = report(found, _command(options), time.monotonic() - began)
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps(made, indent=1) + "\n")
    _show(made)
    if has_store(settings):
        log(settings, found, made)
        progress.say("kept in MLflow, experiment `evaluate`")


def _command(options: Options) -> str:
    """What was asked, without the paths of this machine."""
    return (
        f"python -m pipelines.evaluate --data FOLDER_OR_FILE --protocol {options.protocol} "
        f"--k {','.join(map(str, options.ks))} --models {','.join(options.models)} --budget {options.budget:g}"
        + ("" if options.refit else " --no-refit")
    )


def _show(made: dict[str, Any]) -> None:
    shown = list(made["rows"][0]["metrics"])[:5]
    table = Table(title=made["title"])
    for heading in ("model", "slice", *shown, f"minus {BLEND} ({shown[1]})", "fit s"):
        table.add_column(heading)
    for row in made["rows"]:
        cells = [f"{m['mean']:.4f} [{m['low']:.4f}, {m['high']:.4f}]" for m in (row["metrics"][name] for name in shown)]
        ahead = made["minus_blend"].get(row["model"]) if row["slice"] == "all" else None
        told = f"{ahead['mean']:+.4f} [{ahead['low']:+.4f}, {ahead['high']:+.4f}]" if ahead else ""
        table.add_row(row["model"], row["slice"], *cells, told, f"{row['fit_seconds']:.1f}")
    console = Console(width=None if Console().is_terminal else 200)
    console.print(table)
    audit = made["audit"]
    told = f"{made['seconds']:.0f} s, peak memory {audit['peak_memory_gib']} GiB; ties {audit['ties']['treatment']}"
    console.print(f"{told}; {audit['seen_items']['treatment']}", markup=False)


if __name__ == "__main__":
    main()
