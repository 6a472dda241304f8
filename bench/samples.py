"""Raw samples of a load run, the figures taken from them, and their picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from adapters import provenance
from bench.client import Reply

STAGES: Final = ("retrieve", "features", "prerank", "rank", "rerank", "total")
SHED: Final = (429, 503)


@dataclass(frozen=True)
class Samples:
    """A run as arrays [n]. `latency_ms` is from the intended time of sending; `stages_ms` [n, STAGES] is the server's
    own account, NaN where there is none."""

    at_s: NDArray[np.float64]
    latency_ms: NDArray[np.float64]
    status: NDArray[np.int16]
    stages_ms: NDArray[np.float32]
    degraded: list[tuple[str, ...]]


def samples_of(replies: Sequence[Reply]) -> Samples:
    """The replies of a run as arrays."""
    stages = np.full((len(replies), len(STAGES)), np.nan, np.float32)
    degraded: list[tuple[str, ...]] = []
    for i, reply in enumerate(replies):
        answer = orjson.loads(reply.body) if reply.status == 200 else {}
        degraded.append(tuple(answer.get("degraded", ())))
        for j, stage in enumerate(STAGES):
            stages[i, j] = answer.get("timings_ms", {}).get(stage, np.nan)
    return Samples(
        np.array([r.intended_s for r in replies]), np.array([r.latency_ms for r in replies]),
        np.array([r.status for r in replies], np.int16), stages, degraded,
    )


def percentiles(values: NDArray[Any]) -> dict[str, float]:
    """P50, P90, P95, P99 and the maximum, in ms; empty without values."""
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return {}
    p50, p90, p95, p99 = np.percentile(values, [50, 90, 95, 99])
    figures = {"p50": p50, "p90": p90, "p95": p95, "p99": p99, "max": values.max()}
    return {name: round(float(v), 2) for name, v in figures.items()}


def summary(samples: Samples, *, rate: float, seconds: float, seed: int) -> dict[str, Any]:
    """What a run showed, with what it depends on."""
    ok, shed = samples.status == 200, np.isin(samples.status, SHED)
    reasons = sorted({reason for reasons in samples.degraded for reason in reasons})
    n = max(int(ok.sum()), 1)
    return {
        "rate": rate, "seconds": seconds, "seed": seed,
        "requests": len(ok), "answered": int(ok.sum()), "shed": int(shed.sum()), "errors": int((~ok & ~shed).sum()),
        "latency_ms": percentiles(samples.latency_ms[ok]),
        "shed_latency_ms": percentiles(samples.latency_ms[shed]),
        "stages_ms": {stage: percentiles(samples.stages_ms[ok, j]) for j, stage in enumerate(STAGES)},
        "degraded_share": round(sum(bool(d) for d in samples.degraded) / n, 4),
        "degraded": {r: round(sum(r in d for d in samples.degraded) / n, 4) for r in reasons},
        **provenance.stamp(),
    }


def write(samples: Samples, figures: dict[str, Any], path: Path) -> None:
    """The summary to `path` (JSON), the raw samples beside it (compressed npz)."""
    columns = {
        "at_s": samples.at_s.astype(np.float32), "latency_ms": samples.latency_ms.astype(np.float32),
        "status": samples.status, "stages_ms": samples.stages_ms, "stage_names": np.array(STAGES),
        "degraded": np.array(["+".join(d) for d in samples.degraded]),
    }  # fmt: skip
    keep(figures, columns, path)


def columns_of(name: str, samples: Samples) -> dict[str, Any]:
    """A step's requests as arrays by name: when each was meant to leave, what became of it, how long it took."""
    return {
        f"{name}_at_s": samples.at_s.astype(np.float32), f"{name}_status": samples.status,
        f"{name}_latency_ms": samples.latency_ms.astype(np.float32),
    }  # fmt: skip


def keep(figures: Mapping[str, Any], columns: Mapping[str, Any], path: Path) -> None:
    """Figures to `path` (JSON), the raw samples by name beside them (compressed npz)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n")
    np.savez_compressed(path.with_suffix(".samples.npz"), **columns)


def picture(samples: Samples, path: Path, title: str) -> None:
    """Latency over time, and its distribution with the server's own share of it. Nothing without an answer."""
    ok = samples.status == 200
    if not ok.any():
        return
    import matplotlib as mpl  # only here: it takes longer to import than a short run takes

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.scatter(samples.at_s[ok], samples.latency_ms[ok], s=4, alpha=0.5, color="#2a6f97")
    left.set(xlabel="intended time of sending (s)", ylabel="latency (ms)", title="every answer", yscale="log")
    shares = np.linspace(0, 100, 400)
    right.plot(shares, np.percentile(samples.latency_ms[ok], shares), label="as the shopper waits", color="#2a6f97")
    for j, stage in enumerate(STAGES):
        server = samples.stages_ms[ok, j]
        if np.isfinite(server).any():
            style = "-" if stage == "total" else ":"
            right.plot(shares, np.nanpercentile(server, shares), style, label=f"of it {stage}")
    right.set(xlabel="share of answers (%)", ylabel="ms", title="distribution", yscale="log")
    right.legend(fontsize=7)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
