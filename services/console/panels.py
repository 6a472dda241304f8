"""What the templates draw, made from what the neighbours told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from services.console import words
from services.console.figures import stages
from services.console.neighbours import Answer

Panel = dict[str, Any]
FLOW: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("Shoppers", ("simulator", "shop")),
    ("Events", ("collector", "kafka", "event_log")),
    ("Features", ("stream_features", "redis")),
    ("Answers", ("recommender", "triton")),
    ("Learning", ("analytics", "clickhouse", "controller", "mlflow")),
    ("Watch", ("prometheus", "alertmanager", "monitor")),
)
ARMS: Final = ("champion", "control", "canary")
FEATURES: Final = 18
PSI_LOOK: Final = 0.1
ORDER: Final = ("retrieve", "features", "prerank", "rank", "rerank", "total")


def flow(health: Mapping[str, str], rates: Mapping[str, Any]) -> list[Panel]:
    """The parts in the order in which data flows, with their live rates."""
    requests, events = rates.get("requests", {}), rates.get("events", {})
    skip = ("/livez", "/readyz", "/metrics")
    http = _summed({k: v for k, v in requests.items() if k[1] not in skip})
    told = _summed(events)
    inferences = sum(rates.get("inferences", {}).values()) if rates.get("inferences") else None
    columns = []
    for title, parts in FLOW:
        nodes = []
        for part in parts:
            lines = [("requests/s", http[part])] if part in http else []
            lines += [("events/s", told[part])] if part in told else []
            lines += [("inferences/s", inferences)] if part == "triton" and inferences is not None else []
            why = health.get(part, "")
            nodes.append({"name": part, "well": not why, "why": why,
                          "lines": [(name, words.rate(value)) for name, value in lines]})  # fmt: skip
        columns.append({"title": title, "nodes": nodes})
    return columns


def rollout_of(answer: Answer) -> Panel:
    """The rollout's state, shares, evidence and history."""
    if answer.value is None:
        return {"away": answer.away}
    told = answer.value
    names = [name for name, _ in words.STEPS]
    at = names.index(told["state"]) if told["state"] in names else -1
    shares = {arm: float((told.get("shares") or {}).get(arm, 0)) for arm in ARMS}
    return {
        "away": "", "state": told["state"], "means": words.state(told["state"]), "reason": told.get("reason", ""),
        "since": words.clock(told.get("since_ms")), "rollout": told.get("rollout"),
        "steps": [{"title": title, "done": i < at, "here": i == at} for i, (_, title) in enumerate(words.STEPS)],
        "rolled_back": told["state"] == "rolled_back", "shares": shares, "bars": bars(shares),
        "champion": words.versions(told.get("champion")), "challenger": words.versions(told.get("challenger")),
        "previous": words.versions(told.get("previous")), "paused": told.get("paused", ""),
        "holds": told.get("holds") or {}, "leader": told.get("leader", True),
        "retrains": told.get("retrains_today", 0), "guards": guards(told.get("evidence") or {}),
        "history": [transition(one) for one in (told.get("history") or ())[:12]],
    }  # fmt: skip


def guards(evidence: Mapping[str, Any]) -> list[Panel]:
    """The guardrails: what canary and control show, and the verdict."""
    return [
        {"name": name.replace("_", " "), "verdict": str(one.get("verdict", "")),
         "canary": words.figure(one.get("canary")), "control": words.figure(one.get("control")),
         "difference": words.figure(one.get("difference"))}
        for name, one in evidence.items() if isinstance(one, Mapping) and "verdict" in one
    ]  # fmt: skip


def transition(one: Mapping[str, Any]) -> Panel:
    """One line of the history."""
    command = one.get("from") == one.get("to")
    way = one.get("trigger", "") if command else f"{one.get('from')} → {one.get('to')}"
    return {
        "at": words.clock(one.get("at_ms")), "way": str(way).replace("_", " "), "reason": one.get("reason", ""),
        "actor": one.get("actor", ""), "to": one.get("to", ""),
    }  # fmt: skip


def versions_of(rollout: Answer, versions: Answer, rates: Mapping[str, Any], source: str) -> Panel:
    """Who answers how much now, as seen in the answers, and the versions of every role."""
    told: Mapping[str, Any] = rollout.value or {}
    measured = {arm: rates.get("answers", {}).get((arm,), 0.0) for arm in ARMS}
    whole = sum(measured.values())
    shares = {arm: 100 * value / whole for arm, value in measured.items()} if whole else {}
    roles = [
        {"role": role, "versions": words.versions(told.get(role)), "there": bool(told.get(role))}
        for role in ("champion", "challenger", "previous")
    ]
    published = (versions.value or {}).get("published") or {}
    rows = [
        {"model": model, "version": one.get("version", ""), "gate": one.get("gate", ""), "role": one.get("role") or "",
         "at": str(one.get("created_at", ""))[:16].replace("T", " ")}
        for model, found in sorted(published.items()) for one in list(found)[:4]
    ]  # fmt: skip
    return {
        "shares": [(arm, shares[arm], words.rate(measured[arm])) for arm in ARMS] if shares else [],
        "bars": bars(shares), "roles": roles, "rows": rows, "away": rollout.away, "source": source,
        "versions_away": versions.away,
    }  # fmt: skip


def bars(shares: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """(arm, left, width) in percent, one after another."""
    found, left = [], 0.0
    for arm in ("champion", "control", "canary"):
        width = shares.get(arm, 0.0)
        if width:
            found.append((arm, round(left, 2), round(width, 2)))
        left += width
    return found


def latency(rates: Mapping[str, Any]) -> list[Panel]:
    """Milliseconds by stage, with bar lengths in percent of the slowest P99."""
    found = stages(rates.get("stages", {}))
    top = max((row["p99"] for row in found.values()), default=0.0) or 1.0
    return [
        {"stage": stage, **{q: f"{found[stage][q]:.1f}" for q in ("p50", "p95", "p99")},
         "widths": [round(100 * found[stage][q] / top, 1) for q in ("p50", "p95", "p99")]}
        for stage in ORDER if stage in found
    ]  # fmt: skip


def degraded(rates: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What answers lack now: (reason, answers per second)."""
    return [(k[0].replace("_", " "), words.rate(v)) for k, v in rates.get("degraded", {}).items() if v > 0.005]


def heat(reports: list[dict[str, Any]]) -> Panel:
    """Feature x window: how far each feature moved by the report's own judgement, and each window's verdict."""
    if not reports:
        return {"away": "No drift report yet: the controller checks regularly, or `Check for drift` asks it to."}
    table = [{f["name"]: f for f in report["features"]} for report in reports]
    worst = {
        name: max((_moved(by[name]) for by in table if name in by), default=(0, 0.0))
        for name in {name for by in table for name in by}
    }
    shown = sorted(worst, key=lambda name: (-worst[name][0], -worst[name][1], name))[:FEATURES]
    newest = reports[-1]
    return {
        "away": "",
        "windows": [{"at": words.clock(r.get("at_ms")), "verdict": r["verdict"], "level": words.level(r["verdict"])}
                    for r in reports],
        "rows": [{"name": name, "cells": [_cell(by.get(name)) for by in table]} for name in shown],
        "left_out": len(worst) - len(shown),
        "verdict": newest["verdict"], "level": words.level(newest["verdict"]),
        "kinds": [(kind, str(v), words.level(str(v))) for kind, v in (newest.get("kinds") or {}).items()],
        "reasons": [str(reason) for reason in newest.get("reasons") or ()][:5],
        "window": newest.get("window_text") or "", "baseline": str(newest.get("baseline") or ""),
    }  # fmt: skip


def _moved(feature: Mapping[str, Any]) -> tuple[int, float]:
    """0 calm, 1 moved but within what is usual, 2 look, 3 act; and the PSI."""
    psi = float(feature.get("psi") or 0.0)
    return {"drift": 3, "warn": 2}.get(str(feature.get("level")), int(psi >= PSI_LOOK)), psi


def _cell(feature: Mapping[str, Any] | None) -> Panel:
    if feature is None or feature.get("level") == "insufficient_data":
        return {"heat": "none", "text": "not measured"}
    psi = feature.get("psi")
    said = [] if psi is None else [f"PSI {float(psi):.2f}"]
    said += [str(feature["detail"])] if feature.get("detail") else []
    return {"heat": str(_moved(feature)[0]), "text": "; ".join([str(feature.get("level", "")), *said])}


def alerts_of(answer: Answer) -> list[Panel]:
    """What fires now, as Alertmanager tells it."""
    return [
        {"name": one.get("labels", {}).get("alertname", "?"), "severity": one.get("labels", {}).get("severity", ""),
         "summary": one.get("annotations", {}).get("summary", "")}
        for one in answer.value or () if isinstance(one, dict)
    ]  # fmt: skip


def incidents_of(answer: Answer, now_ms: int) -> list[Panel]:
    """The newest incidents."""
    return [
        {"id": one["id"], "title": one["title"], "state": one["state"], "severity": one.get("severity", ""),
         "summary": one.get("summary", ""), "ago": words.ago(one.get("opened_at_ms"), now_ms)}
        for one in (answer.value or {}).get("incidents", ())
    ]  # fmt: skip


def scenario_of(answer: Answer, live: Answer) -> Panel:
    """The simulator's switches, and how busy it is."""
    if answer.value is None:
        return {"away": answer.away, "switches": []}
    shares, meaning = answer.value["scenario"], answer.value.get("meaning", {})
    rate = (live.value or {}).get("feeds_per_second")
    return {
        "away": "", "rate": words.rate(rate), "on": any(shares.values()),
        "switches": [
            {"name": name, "title": words.scenario(name), "share": round(100 * float(share)),
             "meaning": meaning.get(name, "")}
            for name, share in shares.items()
        ],
    }  # fmt: skip


def _summed(rates: Mapping[tuple[str, ...], float]) -> dict[str, float]:
    found: dict[str, float] = {}
    for labels, value in rates.items():
        found[labels[0]] = found.get(labels[0], 0.0) + value
    return found
