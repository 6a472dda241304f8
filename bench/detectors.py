"""How soon each detector sees each planted drift, what it misses, and how often it cries wolf in months without drift.

    python -m bench.detectors            # writes bench/results/detectors.json, .samples.npz and .png

Every comparison answers for all columns that it can measure, with its own thresholds and its p-values adjusted over
them; `suite` is what `pipelines/check_drift` decides. Two dummies, which always and never fire, mark the ends.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from adapters import provenance
from bench.drift_planted import REFERENCE, SEEDS, WORLDS, Start, start
from bench.drift_world import QUIET, Size
from models.drift.base import Level, Sequential
from models.drift.baseline import Baseline
from models.drift.family import COMPARISONS, RATES, SEQUENTIAL
from models.drift.suite import Finding, Question, judge, questions
from models.drift.traffic import Traffic, join
from models.drift.verdict import decide
from models.drift.watched import PERSISTENCE, WATCHED

OUT: Final = Path(__file__).resolve().parent / "results" / "detectors.json"
HEALTHY_WINDOWS: Final = 30
DRIFT_WINDOWS: Final = 4
RENEWED_EVERY: Final = 24
SUITE, ONE_WINDOW, ALWAYS, NEVER = "suite", "suite (one window)", "always", "never"
FAMILY: Final = (*COMPARISONS, *RATES, *SEQUENTIAL)
DETECTORS: Final = (SUITE, ONE_WINDOW, *FAMILY, ALWAYS, NEVER)


@dataclass(frozen=True, slots=True)
class Sample:
    """One detector on one window. `requests`: how many came since the drift began, this window included."""

    seed: int
    world: str
    strength: float
    window: int
    requests: int
    detector: str
    fired: bool


class Watching:
    """All detectors over the windows of one stream, in order."""

    def __init__(self, reference: Baseline, healthy: Sequence[Traffic]) -> None:
        self.reference = reference
        self._sequential = {name: make() for name, make in SEQUENTIAL.items()}
        self._earlier: list[list[Finding]] = []
        for window in healthy:
            self._streams(window)

    def look(self, window: Traffic) -> dict[str, bool]:
        """Which detectors fire on the next window."""
        asked = questions(self.reference, window)
        fired = {name: _fires(asked, name) for name in (*COMPARISONS, *RATES)} | self._streams(window)
        findings = judge(asked)
        self._earlier = [findings, *self._earlier][:PERSISTENCE]
        fired[SUITE] = decide(self._earlier).level == Level.DRIFT
        fired[ONE_WINDOW] = decide([findings], persistence=1).level == Level.DRIFT
        return fired | {ALWAYS: True, NEVER: False}

    def _streams(self, window: Traffic) -> dict[str, bool]:
        """Surprises per request for the mean's detectors, feeds without a click for the error rate's."""
        model = self.reference.click_model
        if model is None:
            raise ValueError("the reference has too few clicks to be calibrated")
        surprises = window.surprises(model)
        missed = np.bincount(window.request, window.clicked, window.requests) == 0
        values = {name: missed.astype(float) if name == "ddm" else surprises for name in self._sequential}
        return {name: _feed(detector, values[name]) for name, detector in self._sequential.items()}


def _feed(detector: Sequential, values: Any) -> bool:
    fired = [detector.update(float(value)) for value in values]  # every value counts, also after the first alarm
    return any(fired)


def _fires(asked: Sequence[Question], detector: str) -> bool:
    """Whether the detector alone, on every subject that is judged at all, sees drift."""
    mine = [replace(q, decides=True) for q in asked if q.detector == detector and not _seasonal(q.subject)]
    return any(f.level == Level.DRIFT for f in judge(mine))


def _seasonal(subject: str) -> bool:
    return subject == "confidence" or (subject in WATCHED and WATCHED[subject].seasonal)


def healthy(begin: Start, count: int) -> Iterator[Sample]:
    """Windows without drift; the reference is renewed as the platform renews it."""
    watching, recent = Watching(begin.reference, begin.healthy), list(begin.healthy)
    requests = 0
    for i, (window, _) in enumerate(begin.windows(QUIET, count)):
        requests += window.requests
        for name, fired in watching.look(window).items():
            yield Sample(begin.seed, "none", 0.0, i, requests, name, fired)
        recent = [*recent, window][-REFERENCE:]
        if (i + 1) % RENEWED_EVERY == 0:
            watching.reference = join(recent).baseline()


def drifting(begin: Start, world: str, count: int) -> Iterator[Sample]:
    """Windows of a planted drift, both strengths."""
    for scenario in WORLDS[world]:
        watching, requests = Watching(begin.reference, begin.healthy), 0
        for i, (window, _) in enumerate(begin.windows(scenario, count)):
            requests += window.requests
            for name, fired in watching.look(window).items():
                yield Sample(begin.seed, world, getattr(scenario, world), i, requests, name, fired)


def measure(seeds: Sequence[int], size: Size, quiet: int, windows: int) -> list[Sample]:
    samples: list[Sample] = []
    for seed in seeds:
        begin = start(seed, size)
        samples += healthy(begin, quiet)
        for world in WORLDS:
            samples += drifting(begin, world, windows)
        print(f"seed {seed}: {len(samples):,} samples", flush=True)
    return samples


def figures(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Per detector: false alarms per 30 windows without drift, and per planted drift the share seen and the median
    number of requests until it was seen."""
    runs: dict[tuple[str, str, float, int], list[Sample]] = defaultdict(list)
    for sample in samples:
        runs[sample.detector, sample.world, sample.strength, sample.seed].append(sample)
    rows = []
    for name in DETECTORS:
        quiet = [s for s in samples if s.detector == name and s.world == "none"]
        alarms = sum(s.fired for s in quiet)
        row: dict[str, Any] = {
            "detector": name, "windows_without_drift": len(quiet), "false_alarms": alarms,
            "false_alarms_per_30_windows": round(30 * alarms / max(len(quiet), 1), 2), "drifts": {},
        }  # fmt: skip
        for world in WORLDS:
            for strength in sorted({s.strength for s in samples if s.world == world}):
                mine = [run for key, run in runs.items() if key[:3] == (name, world, strength)]
                first = [next((s.requests for s in run if s.fired), None) for run in mine]
                seen = [requests for requests in first if requests is not None]
                row["drifts"][f"{world}={strength:g}"] = {
                    "runs": len(first), "seen": len(seen),
                    "median_requests": float(np.median(seen)) if seen else None,
                }  # fmt: skip
        rows.append(row)
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: requests until seen (and how many of the runs saw it), false alarms per 30 windows."""
    worlds = list(rows[0]["drifts"])
    lines = ["| detector | false alarms / 30 windows | " + " | ".join(worlds) + " |"]
    lines.append("| --- |" + " ---: |" * (len(worlds) + 1))
    for row in rows:
        cells = []
        for world in worlds:
            found = row["drifts"][world]
            share = "" if found["seen"] == found["runs"] else f" ({found['seen']}/{found['runs']})"
            cells.append(f"{found['median_requests']:,.0f}{share}" if found["seen"] else "missed")
        lines.append(f"| {row['detector']} | {row['false_alarms_per_30_windows']:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(samples: Sequence[Sample], size: Size, path: Path) -> None:
    """Summary (JSON), raw samples (npz) and picture (png)."""
    rows = figures(samples)
    document = {
        "title": "Drift detectors on planted drifts", "command": "python -m bench.detectors",
        "size": asdict(size), "seeds": sorted({s.seed for s in samples}), "seed": min(s.seed for s in samples),
        "windows": {"without_drift": HEALTHY_WINDOWS, "with_drift": DRIFT_WINDOWS, "reference": REFERENCE},
        **provenance.stamp(), "environment_sha256": provenance.environment_digest(), "rows": rows,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    columns: dict[str, Any] = {name: np.array([getattr(s, name) for s in samples]) for name in Sample.__slots__}
    np.savez_compressed(path.with_suffix(".samples.npz"), **columns)
    picture(rows, path.with_suffix(".png"))


def picture(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A heat map: detector by planted drift, dark where it is seen soon, empty where it is missed."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    worlds = list(rows[0]["drifts"])
    soon = np.full((len(rows), len(worlds)), np.nan)
    for i, row in enumerate(rows):
        for j, world in enumerate(worlds):
            found = row["drifts"][world]
            if found["seen"]:
                soon[i, j] = found["median_requests"]
    figure, axes = pyplot.subplots(figsize=(11, 7), layout="constrained")
    image = axes.imshow(soon, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(worlds)), worlds, rotation=45, ha="right", fontsize=8)
    names = [f"{r['detector']}  ({r['false_alarms_per_30_windows']:g})" for r in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    for i, row in enumerate(rows):
        for j, world in enumerate(worlds):
            found = row["drifts"][world]
            text = f"{found['seen']}/{found['runs']}" if found["seen"] else "missed"
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if found["seen"] else "#888")
    axes.set_title("Requests until a planted drift is seen, runs that saw it (false alarms per 30 windows without)")
    figure.colorbar(image, label="requests since the drift began")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.detectors", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--quiet-windows", type=int, default=HEALTHY_WINDOWS)
    parser.add_argument("--show", action="store_true", help="print the table of the file, measure nothing")
    given = parser.parse_args()
    if given.show:
        print(table(json.loads(given.out.read_text())["rows"]))
        return 0
    size = Size()
    samples = measure(given.seeds, size, given.quiet_windows, DRIFT_WINDOWS)
    write(samples, size, given.out)
    print(table(figures(samples)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
