"""A verdict as the report that programs read, the table that people read, and the gauges that Prometheus reads."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
from rich.console import Console
from rich.table import Table

from models.drift.base import Level
from models.drift.suite import Finding
from models.drift.traffic import Traffic
from models.drift.verdict import Verdict, broken
from models.drift.watched import CATEGORIES, CLICKED, EVENTS, WATCHED
from models.performance_estimate import TruedUp

MODEL: Final = "ranker"
MEASURES: Final = ("psi", "ks", "wasserstein", "js", "null_share", "new_categories", "out_of_range")
COLOURS: Final = {Level.DRIFT: "red", Level.WARN: "yellow", Level.HEALTHY: "green", Level.INSUFFICIENT_DATA: "dim"}


def report(
    verdict: Verdict, traffic: Traffic, *, at_ms: int, baseline: Mapping[str, Any], reasons: tuple[str, ...],
    performance: TruedUp | None,
) -> dict[str, Any]:
    """The report as JSON values; `features` holds one row per column with every measure."""
    since, until = traffic.meta["since_ms"], traffic.meta["until_ms"]
    window = {"seconds": (until - since) / 1000, "seen_s": traffic.seconds, "since_ms": since, "until_ms": until}
    versions = {"ranker": traffic.meta["ranker_version"], "two_tower": traffic.meta["two_tower_version"]}
    return {
        "id": f"drift-{datetime.fromtimestamp(at_ms / 1000, UTC):%Y%m%dT%H%M%S}-{at_ms % 1000:03d}", "model": MODEL,
        "at_ms": at_ms, "window": window,
        "window_text": span(window["seconds"]), "baseline": baseline["source"], "baseline_window": dict(baseline),
        "verdict": verdict.level.word, "breakage": verdict.breakage,
        "kinds": {kind: level.word for kind, level in verdict.kinds.items()},
        "features": _features(verdict.findings), "slices": _slices(verdict.findings),
        "traffic": [_plain(f) for f in verdict.findings if f.kind == "operations"],
        "outcomes": [_plain(f) for f in verdict.findings if f.kind in ("label", "concept") and not _sliced(f)],
        "reasons": [*reasons, *verdict.reasons], "versions": versions, "ranker_version": versions["ranker"],
        "requests": traffic.requests, "asked": traffic.asked, "rows": len(traffic.scores),
        "clicks": int(traffic.clicked.sum()), "performance": _performance(performance),
    }  # fmt: skip


def span(seconds: float) -> str:
    """A length of time as people say it."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def show(document: Mapping[str, Any], console: Console) -> None:
    """The report as tables: the verdict, what decided, and the columns worth a look."""
    level = Level[str(document["verdict"]).upper()]
    console.print(
        f"[bold {COLOURS[level]}]{document['verdict']}[/]  {document['window_text']}: {document['requests']:,} of "
        f"{document['asked']:,} requests, {document['clicks']:,} clicks, against {document['baseline']}"
    )
    console.print("  ".join(f"{kind} [{_colour(word)}]{word}[/]" for kind, word in document["kinds"].items()))
    for line in document["reasons"][:12]:
        console.print(f"  - {line}", markup=False, soft_wrap=True)
    table = Table("column", "level", "decides", *MEASURES, box=None, header_style="bold")
    ranked = sorted(document["features"], key=lambda f: (-Level[f["level"].upper()], -(f["psi"] or 0)))
    for row in ranked[:15]:
        figures = ["" if row[m] is None else f"{row[m]:.3f}" for m in MEASURES]
        table.add_row(row["name"], f"[{_colour(row['level'])}]{row['level']}[/]", row["method"], *figures)
    console.print(table)
    if promised := document["performance"]:
        before, came = (promised[kind]["click_rate"] for kind in ("estimated", "realised"))
        error = f"x {promised['factor']:.2f} +- {promised['error']:.2f}"
        console.print(f"click rate: promised {before:.4f}, came {came:.4f} ({error})")


def gauges(document: Mapping[str, Any], path: Path) -> None:
    """Write the report's figures as a Prometheus text file, which the monitor shows."""
    registry = CollectorRegistry()
    level = Gauge("minimart_drift_level", "Drift: -1 insufficient data, 0 healthy, 1 warn, 2 drift", ["model", "kind"],
                  registry=registry)  # fmt: skip
    for kind, word in document["kinds"].items():
        level.labels(MODEL, kind).set(int(Level[word.upper()]))
    for measure in ("psi", "ks", "wasserstein", "js", "null_share"):
        name, text = f"minimart_drift_{measure}", f"Drift of a column: {measure}"
        gauge = Gauge(name, text, ["model", "feature"], registry=registry)
        for row in document["features"]:
            if row[measure] is not None:
                gauge.labels(MODEL, row["name"]).set(row[measure])
    checked = Gauge("minimart_drift_checked_timestamp_seconds", "When drift was checked", ["model"], registry=registry)
    checked.labels(MODEL).set(document["at_ms"] / 1000)
    Gauge("minimart_drift_requests", "Requests in the checked window", ["model"], registry=registry).labels(MODEL).set(
        document["asked"]
    )
    if promised := document["performance"]:
        rate = Gauge("minimart_drift_click_rate", "Clicks per shown product", ["model", "kind"], registry=registry)
        for kind in ("estimated", "realised"):
            rate.labels(MODEL, kind).set(promised[kind]["click_rate"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_to_textfile(str(path), registry)


def _features(findings: tuple[Finding, ...]) -> list[dict[str, Any]]:
    """One row per column, texts and events included, then the prediction's. The level is that of what decides."""
    rows: dict[str, dict[str, Any]] = {}
    for finding in findings:
        if finding.detector not in MEASURES or _sliced(finding) or finding.kind == "operations":
            continue
        row = rows.setdefault(finding.subject, {
            "name": finding.subject, "kind": finding.kind, "level": Level.INSUFFICIENT_DATA.word,
            "method": _method(finding.subject), "broken": False, "detail": "", **dict.fromkeys(MEASURES),
        })  # fmt: skip
        row[finding.detector] = None if finding.value is None else float(f"{finding.value:.6g}")
        if finding.decides and finding.level > Level[row["level"].upper()]:
            row["level"], row["detail"] = finding.level.word, finding.detail
        row["broken"] = row["broken"] or (finding.decides and finding.level == Level.DRIFT and broken(finding))
    return list(rows.values())


def _slices(findings: tuple[Finding, ...]) -> list[dict[str, Any]]:
    return [{"slice": f.subject.partition(" where ")[2], **_plain(f)} for f in findings if _sliced(f)]


def _sliced(finding: Finding) -> bool:
    return " where " in finding.subject


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind, "subject": finding.subject, "detector": finding.detector, "level": finding.level.word,
        "value": finding.value, "p_value": finding.p_value, "detail": finding.detail, "decides": finding.decides,
    }  # fmt: skip


def _performance(performance: TruedUp | None) -> dict[str, Any] | None:
    if performance is None:
        return None
    return {
        "estimated": performance.estimated.as_dict(), "realised": performance.realised.as_dict(),
        "factor": round(performance.factor, 6), "error": round(performance.error, 6),
    }  # fmt: skip


def _method(subject: str) -> str:
    declared = WATCHED | EVENTS | CLICKED
    watch = declared.get(subject) or CATEGORIES.get(subject.removeprefix("asked from "))
    return "ks" if watch is None else watch.method + (" (same hour)" if watch.seasonal else "")


def _colour(word: str) -> str:
    return COLOURS[Level[word.upper()]]
