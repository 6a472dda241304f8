"""The result of `bench/capacity.py`: what was measured and what follows, as JSON, as tables and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from adapters.provenance import stamp
from bench.capacity_model import (
    SHARE_THAT_STAYS,
    TARGET_P99_MS,
    TARGET_RPS,
    Measured,
    Prices,
    at_scale,
    breaks_first,
    carried,
    compared,
)
from bench.served import DOOR


def result(
    seen: Measured, kernels: Mapping[str, float], rows: dict[int, list[dict[str, Any]]], cores: int,
    sizes: tuple[dict[str, float], dict[str, float]], index_builds: list[dict[str, float]], seed: int,
    scale: Mapping[str, Any], prices: Prices,
) -> dict[str, Any]:  # fmt: skip
    """What was measured, what the simulation says of the same, and what it says of the rest."""
    needs = {k: round(v, 3) for k, v in asdict(seen).items() if k != "latency_ms"}
    machines = carried(seen, prices, DOOR)
    both = compared(seen, rows, cores, DOOR)
    return {
        "command": "python -m bench.capacity", "scale": dict(scale), "kernels_ms": dict(kernels),
        "request": needs | {"latency_p50_ms": round(float(np.median(seen.latency_ms)), 2)},
        "idle_latency_ms": np.round(seen.latency_ms, 2).tolist(), "measured": rows, "compared": both,
        "median_off_by_factor": _off_by(both, "p50"), "p99_off_by_factor": _off_by(both, "p99"),
        "target": {"rps": TARGET_RPS, "p99_ms": TARGET_P99_MS, "share_that_stays": SHARE_THAT_STAYS},
        "prices": asdict(prices), "machines": machines, "breaks_first": breaks_first(seen, machines[0]["rps_of_one"]),
        "on_paper": at_scale(*sizes, index_builds), "seed": seed,
        **stamp(),
    }  # fmt: skip


def _off_by(compared_steps: Sequence[Mapping[str, Any]], percentile: str) -> float | None:
    """The factor by which the simulation's percentile is off in the middle of all steps, in either direction."""
    apart = [
        abs(np.log(row["predicted"][percentile] / row["measured"][percentile]))
        for row in compared_steps if row["measured"][percentile]
    ]  # fmt: skip
    return round(float(np.exp(np.median(apart))), 2) if apart else None


def show(found: dict[str, Any], console: Console) -> None:
    """The result as tables."""
    console.print(_table("foretold and measured, ms", found["compared"], {
        "workers": "workers", "rate": "rate", "P50 measured": "measured.p50", "P50 foretold": "predicted.p50",
        "P99 measured": "measured.p99", "P99 foretold": "predicted.p99",
    }))  # fmt: skip
    console.print(_table(f"{TARGET_RPS:,} requests/s, P99 below {TARGET_P99_MS:g} ms, one zone of three away",
                         found["machines"], {
        "cores": "cores", "req/s of one": "rps_of_one", "machines": "replicas", "cores in all": "cores_in_all",
        "GiB of one": "memory_gib_of_one", "GiB in all": "memory_gib_in_all", "an hour": "price_per_hour",
        "a million": "price_per_million",
    }))  # fmt: skip
    console.print(f"foretold and measured are apart by a factor of {found['median_off_by_factor']} (P50) and "
                  f"{found['p99_off_by_factor']} (P99) in the middle of all steps")
    console.print(_table("what is full first", found["breaks_first"], {
        "part": "part", "full at, requests/s": "full_at_rps", "needed": "needed_for_target", "instead": "instead",
    }))  # fmt: skip
    paper = found["on_paper"]
    fit = paper["fit"]
    console.print(
        f"{paper['users']:,} shoppers x {paper['items']:,} items: {paper['store_shards']} shards of the store, "
        f"{paper['held_by_each_worker_gib']} GiB in each worker; index: {fit['scale']:.2g} x n^{fit['power']:.2f} "
        f"(R2 {fit['r2']:.3f}), {paper['build_cpu_hours']} CPU hours"
    )


def _table(title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Table:
    table = Table(title=title)
    for heading in columns:
        table.add_column(heading)
    for row in rows:
        cells = []
        for path in columns.values():
            value: Any = row
            for name in path.split("."):
                value = value[name]
            cells.append(f"{value:,}" if isinstance(value, int | float) else str(value))
        table.add_row(*cells)
    return table


def picture(found: dict[str, Any], path: Path) -> None:
    """Foretold against measured, and what the target needs by shape of machine."""
    import matplotlib as mpl  # only here: it takes longer to import than a quick run takes

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for workers, colour in ((1, "#2a6f97"), (2, "#e07a5f")):
        rows = [row for row in found["compared"] if row["workers"] == workers and row["measured"]["p99"]]
        rates = [row["rate"] for row in rows]
        for p, style in (("p50", ":"), ("p99", "-")):
            left.plot(rates, [row["measured"][p] for row in rows], "o", color=colour)
            left.plot(rates, [row["predicted"][p] for row in rows], style, color=colour,
                      label=f"{workers} worker{'s' if workers > 1 else ''}, {p.upper()}")
    left.set(xlabel="requests per second", ylabel="ms", yscale="log", title="measured (dots), foretold (lines)")
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter("{x:g}")
    left.legend(fontsize=7)
    rows = [row for row in found["machines"] if row["replicas"]]
    bars = right.bar([str(row["cores"]) for row in rows], [row["cores_in_all"] for row in rows], color="#2a6f97")
    labels = [f"{row['replicas']:,} machines\n{row['price_per_hour']:,} an hour" for row in rows]
    right.bar_label(bars, labels, padding=3, fontsize=8)
    right.margins(y=0.15)
    right.set(xlabel="cores of a machine", ylabel="cores in all", title=f"{TARGET_RPS:,}/s, P99 < {TARGET_P99_MS:g} ms")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
