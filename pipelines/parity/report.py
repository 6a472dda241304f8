"""The verdict for people and machines: a table, a picture, parity.json."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from rich import box
from rich.console import Console
from rich.table import Table

from adapters.provenance import commit, hardware
from pipelines.parity.compare import STANDARD_ERROR, Cell, Comparison, Tally
from pipelines.parity.conservation import OUTCOMES, Account
from pipelines.parity.faults import Fault

mpl.use("Agg")
from matplotlib.figure import Figure

WINDOWS: Final = ("5m", "1h", "24h", "7d", "30d", "")
GREEN, RED, GREY = "#66a182", "#d1495b", "#eeeeee"


@dataclass
class Outcome:
    """All that one run found."""

    engine: str
    events: int
    seed: int
    comparison: Comparison
    accounts: list[Account]
    explained: list[list[str]]
    refused: Mapping[str, str] = field(default_factory=dict)
    not_drawn: Mapping[str, str] = field(default_factory=dict)
    planted: Mapping[str, int] = field(default_factory=dict)
    faults: Sequence[Fault] = ()
    timeline: Sequence[tuple[float, int, int]] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    vectors: int = 0

    @property
    def passed(self) -> bool:
        """Something was compared, nothing was wrong, and every record is accounted for."""
        return self.comparison.checks > 0 and not self.comparison.wrong and not any(a.wrong for a in self.accounts)


def write(outcome: Outcome, folder: Path) -> tuple[Path, Path]:
    """(parity.json, parity.png) in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    document, picture = folder / "parity.json", folder / "parity.png"
    document.write_text(json.dumps(as_json(outcome), indent=1, default=str) + "\n")
    picture.write_bytes(draw(outcome))
    return document, picture


def as_json(outcome: Outcome) -> dict[str, Any]:
    tallies = outcome.comparison.tallies
    return {
        "passed": outcome.passed, "engine": outcome.engine, "events": outcome.events, "seed": outcome.seed,
        "questions": outcome.comparison.questions, "checks": outcome.comparison.checks,
        "wrong": outcome.comparison.wrong, "logged_vectors": outcome.vectors, "explained": outcome.explained,
        "refused": dict(outcome.refused), "not_drawn": dict(outcome.not_drawn),
        "planted": dict(outcome.planted), "seconds": dict(outcome.seconds),
        "largest_relative_error": max((t.largest_error for t in tallies.values()), default=0.0),
        "estimates": sum(t.estimates for t in tallies.values()),
        "largest_estimate_error": max((t.largest_estimate_error for t in tallies.values()), default=0.0),
        "estimates_standard_error": STANDARD_ERROR,
        "cells": [{"view": view, "function": function, "window": window, "checks": dict(t.checks),
                   "wrong": dict(t.wrong), "largest_error": t.largest_error, "estimates": t.estimates,
                   "largest_estimate_error": t.largest_estimate_error}
                  for (view, function, window), t in sorted(tallies.items())],
        "conservation": [asdict(a) for a in outcome.accounts], "faults": [asdict(f) for f in outcome.faults],
        "timeline": [list(point) for point in outcome.timeline], "commit": commit(), "hardware": hardware(),
    }


def show(outcome: Outcome, console: Console) -> None:
    """The tables, what is wrong, and the verdict."""
    console.print(_comparisons(outcome.comparison.tallies))
    console.print(_conservation(outcome.accounts))
    for name, why in outcome.refused.items():
        console.print(f"[dim]not compared: {name}: {why}[/]", highlight=False)
    for name, why in outcome.not_drawn.items():
        console.print(f"[dim]not drawn: {name}: {why}[/]", highlight=False)
    for lines in outcome.explained:
        console.print("[red]" + lines[0].replace("[", "\\[") + "[/]", highlight=False, soft_wrap=True)
        for line in lines[1:]:
            console.print("   " + line.replace("[", "\\["), highlight=False, soft_wrap=True)
    for account in outcome.accounts:
        for what in account.wrong:
            console.print(f"[red]{account.topic}: {what}[/]", highlight=False)
    wrong = outcome.comparison.wrong
    verdict = "[bold green]PASS[/]" if outcome.passed else "[bold red]FAIL[/]"
    console.print(f"{verdict} {outcome.events:,} events, {outcome.comparison.checks:,} comparisons with brute force, "
                  f"{wrong:,} wrong; {outcome.vectors:,} logged vectors; {len(outcome.faults)} faults and changes of "
                  "workers", highlight=False)


def _comparisons(tallies: Mapping[Cell, Tally]) -> Table:
    windows = [w for w in WINDOWS if any(window == w for _, _, window in tallies)]
    who = sorted({name for t in tallies.values() for name in t.checks})
    table = Table(box=box.SIMPLE_HEAD, title="comparisons with brute force", title_justify="left")
    for head in ("view", "function"):
        table.add_column(head)
    for head in (*(w or "ever" for w in windows), *who, "largest error", "wrong"):
        table.add_column(head, justify="right")
    for view, function in sorted({(view, function) for view, function, _ in tallies}):
        cells = {w: tallies[view, function, w] for w in windows if (view, function, w) in tallies}
        marks = [_mark(cells.get(w)) for w in windows]
        checks = [f"{sum(t.checks.get(name, 0) for t in cells.values()):,}" for name in who]
        error = max(t.largest_error for t in cells.values())
        estimate = max(t.largest_estimate_error for t in cells.values())
        estimates = sum(t.estimates for t in cells.values())
        shown = f"{estimate:.1%} of {estimates} estimates" if estimate else f"{error:.0e}"
        wrong = sum(sum(t.wrong.values()) for t in cells.values())
        table.add_row(view, function, *marks, *checks, shown if error or estimate else "0",
                      f"[red]{wrong}[/]" if wrong else "0")
    return table


def _mark(tally: Tally | None) -> str:
    if tally is None:
        return ""
    wrong = sum(tally.wrong.values())
    return f"[red]{wrong} wrong[/]" if wrong else f"[green]{sum(tally.checks.values()):,}[/]"


def _conservation(accounts: Sequence[Account]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="every record is accounted for", title_justify="left")
    table.add_column("topic")
    for head in ("sent", "in Kafka", *OUTCOMES, "dead letters", "in the lake", ""):
        table.add_column(head.replace("_", " "), justify="right")
    for one in accounts:
        counted = one.engine if one.engine is not None else one.truth
        dead = f"{sum(one.dead.values()):,}" if one.dead is not None else "not counted"
        table.add_row(one.topic, f"{one.sent:,}", f"{one.kafka:,}", *(f"{counted[o]:,}" for o in OUTCOMES), dead,
                      f"{one.lake:,}", "[red]wrong[/]" if one.wrong else "[green]adds up[/]")
    return table


def draw(outcome: Outcome) -> bytes:
    """The run above (sent, committed, faults), every cell of the comparison below."""
    tallies = outcome.comparison.tallies
    rows = sorted({(view, function) for view, function, _ in tallies})
    windows = [w for w in WINDOWS if any(window == w for _, _, window in tallies)]
    figure = Figure(figsize=(11, 4.4 + 0.24 * len(rows)), layout="constrained")
    run, grid = figure.subplots(2, 1, height_ratios=[4, 0.4 + 0.24 * len(rows)])
    _run(run, outcome)
    for y, (view, function) in enumerate(rows):
        for x, window in enumerate(windows):
            tally = tallies.get((view, function, window))
            wrong = sum(tally.wrong.values()) if tally else 0
            colour = GREY if tally is None else RED if wrong else GREEN
            grid.add_patch(mpl.patches.Rectangle((x, y), 0.97, 0.92, color=colour))
            if tally is not None:
                text = f"{wrong:,} wrong" if wrong else f"{sum(tally.checks.values()):,}"
                grid.text(x + 0.48, y + 0.47, text, ha="center", va="center", fontsize=7, color="white")
    grid.set(xlim=(0, len(windows)), ylim=(len(rows), 0), title="comparisons with brute force by window")
    grid.set_xticks([x + 0.5 for x in range(len(windows))], [w or "ever" for w in windows])
    grid.set_yticks([y + 0.5 for y in range(len(rows))], [f"{view}  {function}" for view, function in rows], fontsize=7)
    grid.tick_params(length=0)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return out.getvalue()


def _run(axis: Any, outcome: Outcome) -> None:
    verdict = "PASS" if outcome.passed else "FAIL"
    axis.set_title(f"{verdict}: {outcome.engine}, {outcome.events:,} events, {outcome.comparison.checks:,} comparisons"
                   f", {outcome.comparison.wrong} wrong", loc="left")
    if outcome.timeline:
        seconds, sent, committed = zip(*outcome.timeline, strict=True)
        axis.plot(seconds, sent, label="sent", color="#1f6f8b")
        axis.plot(seconds, committed, label="committed", color="#edae49")
        axis.legend(fontsize=8, frameon=False, loc="upper left")
        top = axis.get_ylim()[1]
        for n, fault in enumerate(outcome.faults):
            axis.axvline(fault.seconds, color="#999999", linewidth=0.8, linestyle=":")
            axis.text(fault.seconds, top * (0.06 + 0.07 * (n % 8)), f" {fault.what}", fontsize=6.5)
    axis.set(xlabel="seconds of the run", ylabel="records")
