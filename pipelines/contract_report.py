"""What the contracts' checks found: the report that programs read, the table that people read, Prometheus' gauges."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl
from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
from rich.console import Console
from rich.table import Table

from feature_repo.contracts.findings import Finding, Level, worst
from pipelines.contract_checks import Checked

COLOURS: Final = {Level.BROKEN: "red", Level.WARN: "yellow", Level.KEPT: "green", Level.INSUFFICIENT_DATA: "dim"}
KINDS: Final = ("schema", "freshness", "volume", "quality")


def report(checked: Sequence[Checked], *, at_ms: int, window_s: float, seconds: float) -> dict[str, Any]:
    """The report as JSON values: a contract's findings, and how many rows broke a row rule."""
    return {
        "id": f"contracts-{datetime.fromtimestamp(at_ms / 1000, UTC):%Y%m%dT%H%M%S}-{at_ms % 1000:03d}",
        "at_ms": at_ms, "window_s": window_s, "took_s": round(seconds, 2),
        "verdict": worst(f for one in checked for f in one.findings).word,
        "contracts": [_one(one) for one in checked],
    }  # fmt: skip


def _one(checked: Checked) -> dict[str, Any]:
    span = checked.span
    return {
        "name": checked.contract.name, "kind": checked.contract.kind, "owner": checked.contract.owner,
        "version": checked.contract.version, "level": checked.level.word, "rows": checked.rows,
        "since_ms": None if span is None else span.since_ms, "until_ms": None if span is None else span.until_ms,
        "bad_rows": checked.bad_rows, "findings": [_line(f) for f in checked.findings],
    }  # fmt: skip


def _line(finding: Finding) -> dict[str, Any]:
    value = None if finding.value is None else float(f"{finding.value:.6g}")
    return {"kind": finding.kind, "promise": finding.promise, "level": finding.level.word, "value": value,
            "detail": finding.detail}  # fmt: skip


def show(document: Mapping[str, Any], console: Console) -> None:
    """A line per contract, then every promise that was not kept."""
    table = Table(box=None, header_style="bold")
    for name, justify in (("contract", "left"), ("owner", "left"), ("rows", "right"), *((k, "left") for k in KINDS)):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for one in document["contracts"]:
        cells = [_cell([f for f in one["findings"] if f["kind"] == kind]) for kind in KINDS]
        table.add_row(one["name"], one["owner"], f"{one['rows']:,}", *cells)
    console.print(table)
    for one in document["contracts"]:
        for found in one["findings"]:
            if found["level"] in ("warn", "broken"):
                console.print(f"[{_colour(found['level'])}]{found['level']}[/] ", end="")
                console.print(f"{one['name']}: {found['promise']}: {found['detail']}", markup=False, soft_wrap=True)
    verdict = document["verdict"]
    console.print(f"[bold {_colour(verdict)}]{verdict.replace('_', ' ')}[/] in {document['took_s']:.1f} s")


def _cell(findings: Sequence[Mapping[str, Any]]) -> str:
    if not findings:
        return "[dim]-[/]"
    level = max(Level[f["level"].upper()] for f in findings)
    kept = f"kept {sum(f['level'] == 'kept' for f in findings)}/{len(findings)}"
    said = {Level.KEPT: kept, Level.INSUFFICIENT_DATA: "too little data"}.get(level, level.word)
    return f"[{COLOURS[level]}]{said}[/]"


def _colour(word: str) -> str:
    return COLOURS[Level[word.upper()]]


def gauges(document: Mapping[str, Any], path: Path) -> None:
    """Write the levels as a Prometheus text file, which the monitor shows."""
    registry = CollectorRegistry()
    level = Gauge("minimart_contract_level", "Contract: -1 too little data, 0 kept, 1 warn, 2 broken",
                  ["contract", "kind"], registry=registry)  # fmt: skip
    bad = Gauge("minimart_contract_bad_rows", "Rows of the checked window that break a row rule", ["contract"],
                registry=registry)  # fmt: skip
    for one in document["contracts"]:
        bad.labels(one["name"]).set(one["bad_rows"])
        for kind in KINDS:
            found = [Level[f["level"].upper()] for f in one["findings"] if f["kind"] == kind]
            if found:
                level.labels(one["name"], kind).set(max(found))
    name, text = "minimart_contracts_checked_timestamp_seconds", "When the contracts were checked"
    Gauge(name, text, registry=registry).set(document["at_ms"] / 1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_to_textfile(str(path), registry)


def quarantine(checked: Sequence[Checked], path: Path) -> int:
    """Write the rows that broke a row rule, each with its contract and reason; no file when there is none."""
    path.unlink(missing_ok=True)
    told = [
        {"contract": one.contract.name, "event_id": row.get("event_id") or row.get("request_id"),
         "reason": row.pop("reason"), "values": json.dumps(row, ensure_ascii=False, default=str)}
        for one in checked for row in one.bad.iter_rows(named=True)
    ]  # fmt: skip
    if told:
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(told).write_csv(path)
    return len(told)
