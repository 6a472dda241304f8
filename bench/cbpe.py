"""How far the estimate without labels (CBPE) is from the planted truth, with and without truing up, world by world.

    python -m bench.cbpe                 # writes bench/results/cbpe.json and .png

Three forecasts of a window's click rate, each made before its labels are in: the rate of the healthy window
(`constant`), the estimate from the model's own calibrated probabilities (`cbpe`), and that estimate corrected by what
the window before turned out to be (`cbpe, trued up`). Truth is the mean planted chance of a click on what was shown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from adapters import provenance
from bench.drift_planted import SEEDS, WORLDS, Start, start
from bench.drift_world import QUIET, Size
from models.drift.traffic import join
from models.marketplace.config import Scenario
from models.performance_estimate import estimate, expected, realised, true_up

OUT: Final = Path(__file__).resolve().parent / "results" / "cbpe.json"
FORECASTS: Final = ("constant", "cbpe", "cbpe, trued up")
PLANTED: Final = ("none", "traffic_mix", "price_level", "seasonal", "taste_shift")
KIND: Final = {"none": "no drift", "traffic_mix": "inputs move", "price_level": "inputs move",
               "seasonal": "inputs and meaning move", "taste_shift": "meaning moves"}  # fmt: skip
WINDOWS: Final = 8


def samples(begin: Start, world: str, windows: int) -> Iterator[dict[str, Any]]:
    """One row per window: what was forecast, what came, and what was true."""
    reference = join(begin.healthy).baseline()
    model, before = reference.click_model, reference.label_shares[0]
    if model is None:
        raise ValueError("the healthy windows have too few clicks to be calibrated")
    scenario: Scenario = QUIET if world == "none" else WORLDS[world][1]
    factor = 1.0
    for i, (window, chance) in enumerate(begin.windows(scenario, windows)):
        promised = estimate(model, window.scores, window.positions, window.request)
        came = realised(model, window.scores, window.positions, window.request, window.clicked)
        truth = expected(chance, window.request, window.positions)
        rates = {"constant": before, "cbpe": promised.click_rate, "cbpe, trued up": promised.click_rate * factor}
        yield {
            "seed": begin.seed, "world": world, "window": i, "requests": window.requests,
            "truth": truth.as_dict(), "realised": came.as_dict(), "estimated": promised.as_dict(),
            "click_rate": {name: float(f"{rate:.6g}") for name, rate in rates.items()},
        }  # fmt: skip
        factor = true_up(promised, came, window.requests).factor


def figures(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per world: mean absolute relative error of each forecast against the planted truth, in percent."""
    found = []
    for world in PLANTED:
        mine = [row for row in rows if row["world"] == world]
        if not mine:
            continue
        truth = np.array([row["truth"]["click_rate"] for row in mine])
        errors = {
            name: 100 * np.abs(np.array([row["click_rate"][name] for row in mine]) / truth - 1) for name in FORECASTS
        }
        sampling = 100 * np.abs(np.array([row["realised"]["click_rate"] for row in mine]) / truth - 1)
        feeds = 100 * np.abs(np.array([row["estimated"]["feeds_with_click"] / row["truth"]["feeds_with_click"] - 1
                                       for row in mine]))  # fmt: skip
        found.append({
            "world": world, "kind": KIND[world], "windows": len(mine),
            "error_percent": {name: round(float(e.mean()), 2) for name, e in errors.items()},
            "labels_error_percent": round(float(sampling.mean()), 2),
            "feeds_with_click_error_percent": round(float(feeds.mean()), 2),
        })  # fmt: skip
    return found


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Markdown; `labels` is what the clicks themselves, once in, are off by."""
    lines = ["| world | what happens | constant | CBPE | CBPE, trued up | labels |", "| --- | --- |" + " ---: |" * 4]
    for row in found:
        errors = [f"{row['error_percent'][name]:.1f} %" for name in FORECASTS]
        labels = f"{row['labels_error_percent']:.1f} %"
        lines.append("| " + " | ".join([row["world"], row["kind"], *errors, labels]) + " |")
    return "\n".join(lines)


def picture(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Truth and forecasts over windows, one panel a world, the first seed."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(PLANTED), figsize=(14, 3.4), layout="constrained", sharey=True)
    seed = rows[0]["seed"]
    for axes, world in zip(panels, PLANTED, strict=True):
        mine = [row for row in rows if row["world"] == world and row["seed"] == seed]
        axes.plot([row["truth"]["click_rate"] for row in mine], color="black", label="planted truth")
        axes.plot([row["realised"]["click_rate"] for row in mine], ".", color="#999", label="labels")
        for name, colour in zip(FORECASTS, ("#bbb", "#2a6f97", "#e07a1f"), strict=True):
            axes.plot([row["click_rate"][name] for row in mine], color=colour, label=name, lw=1.3)
        axes.set(title=f"{world}: {KIND[world]}", xlabel="window")
        axes.title.set_fontsize(9)
    panels[0].set_ylabel("click rate")
    panels[0].legend(fontsize=7)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def write(rows: Sequence[Mapping[str, Any]], size: Size, path: Path) -> None:
    """Figures and raw samples (JSON), and the picture."""
    seeds = sorted({row["seed"] for row in rows})
    document = {
        "title": "Click rate estimated without labels, against the planted truth", "command": "python -m bench.cbpe",
        "size": asdict(size), "seeds": seeds, "seed": seeds[0],
        **provenance.stamp(), "environment_sha256": provenance.environment_digest(),
        "rows": figures(rows), "samples": rows,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document) + "\n")
    picture(rows, path.with_suffix(".png"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.cbpe", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--show", action="store_true", help="print the table of the file, measure nothing")
    given = parser.parse_args()
    if given.show:
        print(table(json.loads(given.out.read_text())["rows"]))
        return 0
    size = Size()
    starts = [start(seed, size) for seed in given.seeds]
    rows = [row for begin in starts for world in PLANTED for row in samples(begin, world, WINDOWS)]
    write(rows, size, given.out)
    print(table(figures(rows)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
