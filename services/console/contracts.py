"""The page of contracts: what each topic and table promises, and how it keeps it now. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from feature_repo.contracts.contract import Contract
from feature_repo.contracts.watch import span
from services.console import words

Panel = dict[str, Any]
LEVELS: Final = {"broken": "bad", "warn": "warn", "kept": "good"}
GAUGES: Final = ("newest_timestamp_seconds", "hour_records", "hour_expected_records", "volume_level")
_PREFIX: Final = "minimart_topic_"


@dataclass(frozen=True)
class Told:
    """`gauges`: topic -> gauge -> value, from the event log; `report`: the newest check; `why`: what is away."""

    gauges: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    report: Mapping[str, Any] | None = None
    why: str = ""


def gauges_of(text: str) -> dict[str, dict[str, float]]:
    """Topic -> gauge -> value, from what the event log shows of itself."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        name = family.name.removeprefix(_PREFIX)
        if family.name.startswith(_PREFIX) and name in GAUGES:
            for sample in family.samples:
                found.setdefault(sample.labels["topic"], {})[name] = sample.value
    return found


def page(contracts: Mapping[str, Contract], told: Told, now_ms: int) -> Panel:
    """The page's values."""
    checked = {one["name"]: one for one in (told.report or {}).get("contracts", ())}
    at = (told.report or {}).get("at_ms")
    rows = [_one(contract, told, checked.get(name), now_ms) for name, contract in contracts.items()]
    rows.sort(key=lambda row: ("bad", "warn", "good", "idle").index(row["worst"]))
    return {"rows": rows, "why": told.why, "checked": words.ago(at, now_ms) if at else "",
            "verdict": str((told.report or {}).get("verdict", "")).replace("_", " "),
            "level": LEVELS.get(str((told.report or {}).get("verdict")), "idle")}  # fmt: skip


def _one(contract: Contract, told: Told, checked: Mapping[str, Any] | None, now_ms: int) -> Panel:
    gauges = told.gauges.get(contract.name, {})
    shown = {"fresh": _fresh(contract, gauges, now_ms), "volume": _volume(contract, gauges), "check": _check(checked)}
    levels = [one["level"] for one in shown.values()]
    return {
        "name": contract.name, "kind": contract.kind, "meaning": contract.meaning, "owner": contract.owner,
        "version": contract.version, "key": contract.key, **shown,
        "worst": next((level for level in ("bad", "warn", "good") if level in levels), "idle"),
        "breaches": [f for f in (checked or {}).get("findings", ()) if f["level"] in ("warn", "broken")],
        "change": f"{contract.change.notice_days} days before, in {contract.change.where}",
        "announced": [f"version {a.version} from {a.begins}: {a.what}" for a in contract.change.announced],
        "fields": [{"name": name, "meaning": f.meaning, "unit": f.unit} for name, f in contract.fields.items()],
        "rules": [{"text": rule.text, "why": rule.why, "severity": rule.severity} for rule in contract.rules],
    }  # fmt: skip


def _fresh(contract: Contract, gauges: Mapping[str, float], now_ms: int) -> Panel:
    if contract.freshness is None:
        return {"level": "idle", "text": "not promised"}
    allowed = f"at most {span(contract.freshness.most_s)}"
    if "newest_timestamp_seconds" not in gauges:
        return {"level": "idle", "text": f"{allowed}; nothing live yet"}
    age = max(0.0, now_ms / 1000 - gauges["newest_timestamp_seconds"])
    return {"level": "good" if age <= contract.freshness.most_s else "bad", "text": f"{span(age)} old, {allowed}"}


def _volume(contract: Contract, gauges: Mapping[str, float]) -> Panel:
    if contract.volume is None:
        return {"level": "idle", "text": "not promised"}
    if "hour_records" not in gauges:
        return {"level": "idle", "text": "nothing live yet"}
    records, expected = gauges["hour_records"], gauges.get("hour_expected_records")
    said = f"{records:,.0f} in the last hour"
    if gauges.get("volume_level", -1) < 0 or not expected:
        return {"level": "idle", "text": f"{said}; too little to compare with"}
    off = records / expected - 1
    level = "warn" if gauges["volume_level"] >= 1 else "good"
    return {"level": level, "text": f"{said}, {off:+.0%} of {expected:,.0f}"}


def _check(checked: Mapping[str, Any] | None) -> Panel:
    if checked is None:
        return {"level": "idle", "text": "not checked yet"}
    judged = [f for f in checked["findings"] if f["kind"] in ("schema", "quality")]
    kept = sum(f["level"] == "kept" for f in judged)
    said = f"{kept} of {len(judged)} kept in {checked['rows']:,} rows" if checked["rows"] else "no rows to judge"
    found = {f["level"] for f in judged}
    return {"level": next((LEVELS[level] for level in LEVELS if level in found), "idle"), "text": said}
