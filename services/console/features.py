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
    names = list(dict.fromkeys(one.view for one in wanted))
    views = [_view(name, [one for one in wanted if one.view == name], known, now_ms) for name in names]
    return {
        "away": "", "q": asked, "views": views, "features": len(listing), "shown": len(wanted),
        "all_views": len({one.view for one in listing}), "version": known.plan.version,
        "notes": [why for part, why in known.why.items() if part != "plan"],
    }  # fmt: skip


def _view(name: str, listed: Sequence[Listed], known: Known, now_ms: int) -> Panel:
    assert known.plan is not None
    view = known.plan.views.get(name)
    about = view.about if view else next(v.about for v in known.plan.attribute_views if v.name == name)
    keys = view.join_keys if view else next(v.join_keys for v in known.plan.attribute_views if v.name == name)
    names = {one.name for one in known.plan.listing() if one.view == name}
    models = [r for r in known.readers if names & r.reads]
    return {
        "name": name, "about": about.description, "owner": about.owner or "nobody", "kind": about.kind,
        "per": " and ".join(keys), "sla": span(about.freshness_sla_s) if about.freshness_sla_s else "none",
        "tags": [f"{k}: {v}" for k, v in sorted(about.tags.items())], "age": _age(known, name, about, now_ms),
        "lineage": lineage(name, known, models), "rows": [_row(one, known, models) for one in listed],
    }  # fmt: skip


def lineage(name: str, known: Known, models: Sequence[Reader]) -> list[Panel]:
    """The way of a view's data, stage by stage: topics, the view, the services, the versions of models."""
    assert known.plan is not None
    view = known.plan.views.get(name)
    topics = sorted({topic for topic, _ in view.feeds}) if view else list(known.sources.get(name, ()))
    services = [s.name for s in known.plan.services if name in s.views]
    versions = [f"{r.model} {r.version}" + ("" if r.role == "champion" else f" ({r.role})") for r in models]
    return [
        {"title": "topics", "names": topics, "none": "written by a batch job"},
        {"title": "view", "names": [name], "none": ""},
        {"title": "services", "names": services, "none": "no service reads it"},
        {"title": "models", "names": versions, "none": "no model in use reads it"},
    ]  # fmt: skip


def _age(known: Known, name: str, about: Any, now_ms: int) -> Panel:
    age = known.ages.get(name)
    if about.kind != "stream":
        return {"level": "idle", "text": "written by a batch job"}
    if age is None or (age.written_ms is None and age.waiting_ms is None):
        said = "not known" if "ages" in known.why else "no live event yet"
        return {"level": "idle", "text": said}
    newest = "no value yet" if age.written_ms is None else f"newest value {words.ago(age.written_ms, now_ms)} old"
    if age.waiting_ms is None:
        return {"level": "good", "text": f"{newest}, nothing waits"}
    behind = (now_ms - age.waiting_ms) / 1000
    late = bool(about.freshness_sla_s) and behind > about.freshness_sla_s
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
