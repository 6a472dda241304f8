"""The registry page: every declared feature, who keeps it, how old it is, where it comes from and who reads it. Pure.

Works for whatever the compiled plan declares: nothing here knows a feature's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from adapters.feature_ages import Age
from adapters.model_readers import Reader
from feature_repo.about import Listed
from feature_repo.contracts.watch import span
from feature_repo.plan import FeaturePlan
from models.drift.columns import Column
from services.console import words
from services.console.sparkline import spark

Panel = dict[str, Any]
ON_REQUEST: Final = ", on request"
UNTIMED: Final = {"attributes": "written by a batch job", "request": "computed when the request is there"}
LEVELS: Final = {"drift": "bad", "warn": "warn", "healthy": "good"}


@dataclass(frozen=True)
class Known:
    """What was gathered. `why` says in words what could not be: part -> reason."""

    plan: FeaturePlan | None = None
    ages: Mapping[str, Age] = field(default_factory=dict)
    readers: Sequence[Reader] = ()
    columns: Mapping[str, Column] = field(default_factory=dict)
    drift: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Feature -> its row of the newest drift report."""
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Table -> the topics that it is made from, by its contract."""
    why: Mapping[str, str] = field(default_factory=dict)


def page(known: Known, now_ms: int, asked: str = "") -> Panel:
    """The page's values; `asked` keeps the features whose name or meaning has the text."""
    if known.plan is None:
        return {"away": known.why.get("plan", "No feature set was compiled yet."), "views": [], "q": asked}
    listing = known.plan.listing()
    wanted = [one for one in listing if asked.lower() in f"{one.name} {one.meaning} {one.view}".lower()]
    names = list(dict.fromkeys(_group(one) for one in wanted))
    views = [_view(name, [one for one in wanted if _group(one) == name], known, now_ms) for name in names]
    return {
        "away": "", "q": asked, "views": views, "features": len(listing), "shown": len(wanted),
        "all_views": len({one.view for one in listing} - {""}), "version": known.plan.version,
        "notes": [why for part, why in known.why.items() if part != "plan"],
    }  # fmt: skip


def _group(one: Listed) -> str:
    """Under which heading a feature stands: its view, or the service that computes it when the request is there."""
    return one.view or f"{one.services[0]}{ON_REQUEST}"


def _view(name: str, listed: Sequence[Listed], known: Known, now_ms: int) -> Panel:
    plan, first = known.plan, listed[0]
    assert plan is not None
    declared = plan.views.get(name) or next((v for v in plan.attribute_views if v.name == name), None)
    text = declared.about.description if declared else plan.service(first.services[0]).description
    names = {one.name for one in plan.listing() if _group(one) == name}
    models = [r for r in known.readers if names & r.reads]
    return {
        "name": name, "about": text, "owner": first.owner or "nobody", "kind": first.kind,
        "per": " and ".join(declared.join_keys) if declared else "request",
        "sla": span(first.freshness_sla_s) if first.freshness_sla_s else "at once" if not declared else "not promised",
        "tags": [f"{k}: {v}" for k, v in sorted(first.tags.items())], "age": _age(known, name, first, now_ms),
        "lineage": lineage(name, first, known, models), "rows": [_row(one, known, models) for one in listed],
    }  # fmt: skip


def lineage(name: str, first: Listed, known: Known, models: Sequence[Reader]) -> list[Panel]:
    """The way of the data, stage by stage: topics, views, the services, the versions of models. `first`: a feature."""
    plan = known.plan
    assert plan is not None
    if name in plan.views:
        topics = sorted({topic for topic, _ in plan.views[name].feeds})
    else:
        topics = list(known.sources.get(name, ()))
    views = [name] if first.view else _stored_in(plan, first.services[0])
    versions = [f"{r.model} {r.version}" + ("" if r.role == "champion" else f" ({r.role})") for r in models]
    return [
        {"title": "topics", "names": topics, "none": "a batch job" if first.view else "the request"},
        {"title": "view" if first.view else "views", "names": views, "none": ""},
        {"title": "services", "names": list(first.services), "none": "no service reads it"},
        {"title": "models", "names": versions, "none": "no model in use reads it"},
    ]  # fmt: skip


def _stored_in(plan: FeaturePlan, service: str) -> list[str]:
    """The views whose stored features go into what a service computes on request."""
    needed = {name for feature in plan.service(service).on_request for name in feature.stored}
    return [v.name for v in plan.declared_views if needed & set(v.features)]


def _age(known: Known, name: str, first: Listed, now_ms: int) -> Panel:
    age = known.ages.get(name)
    if first.kind != "stream":
        return {"level": "idle", "text": UNTIMED.get(first.kind, first.kind)}
    if age is None or (age.written_ms is None and age.waiting_ms is None):
        said = "not known" if "ages" in known.why else "no live event yet"
        return {"level": "idle", "text": said}
    newest = "no value yet" if age.written_ms is None else f"newest value {words.ago(age.written_ms, now_ms)} old"
    if age.waiting_ms is None:
        return {"level": "good", "text": f"{newest}, nothing waits"}
    behind = (now_ms - age.waiting_ms) / 1000
    late = bool(first.freshness_sla_s) and behind > first.freshness_sla_s
    return {"level": "bad" if late else "good", "text": f"{newest}, an event waits for {span(max(behind, 0))}"}


def _row(one: Listed, known: Known, models: Sequence[Reader]) -> Panel:
    drift = known.drift.get(one.name) or {}
    psi = drift.get("psi")
    return {
        "name": one.name, "meaning": one.meaning, "type": one.dtype, "error": one.error,
        "spark": spark(known.columns.get(one.name)), "level": LEVELS.get(str(drift.get("level")), "idle"),
        "psi": "" if psi is None else f"PSI {float(psi):.2f}",
        "models": [r.model for r in models if one.name in r.reads and r.role == "champion"],
    }  # fmt: skip
