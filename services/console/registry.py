"""What the pages of features and contracts are made from, read where it lies, at most once in a while."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from adapters.errors import MinimartError, Unavailable
from adapters.feature_ages import Age
from adapters.model_readers import Reader, readers
from adapters.pointers import read_current
from feature_repo.contracts.files import contracts
from feature_repo.plan import FeaturePlan
from models.drift.baseline import Baseline
from models.drift.columns import Column
from services.console.contracts import Told, gauges_of
from services.console.features import Known
from services.console.neighbours import Neighbours

FRESH_S: Final = 3.0
BASELINE: Final = "baseline.json"


class Ages(Protocol):
    """How old the values of every view are: adapters.feature_ages.FeatureAges or its fake."""

    def look(self, plan: FeaturePlan) -> dict[str, Age]:
        """View -> age. Raises Unavailable when the online store does not answer."""

    def close(self) -> None: ...


class Registry:
    """`features()` and `contracts()` give what is known now. `home`: the platform's folder."""

    def __init__(self, home: Path, ages: Ages, neighbours: Neighbours, *, fresh_s: float = FRESH_S) -> None:
        self._home, self._ages, self._neighbours, self._fresh_s = home, ages, neighbours, fresh_s
        self._lock, self._looked, self._known = asyncio.Lock(), -1e9, Known()

    async def features(self) -> Known:
        """What the registry page shows, as of now or of a moment ago."""
        async with self._lock:
            if time.monotonic() - self._looked > self._fresh_s:
                self._known = await asyncio.to_thread(self._gather)
                self._looked = time.monotonic()
        return self._known

    async def contracts(self) -> Told:
        """What the page of contracts shows."""
        answer = await self._neighbours.get("event_log", "/metrics")
        report = await asyncio.to_thread(_json, self._home / "contracts" / "latest.json")
        gauges = gauges_of(answer.value) if isinstance(answer.value, str) else {}
        return Told(gauges, report, f"{answer.away} Freshness and volume are not known." if answer.away else "")

    def close(self) -> None:
        self._ages.close()

    def _gather(self) -> Known:
        why: dict[str, str] = {}
        try:
            plan = FeaturePlan.load(self._home / "features" / "plan.json")
        except (OSError, ValueError) as error:
            return Known(why={"plan": f"The compiled feature plan cannot be read: {error}"})
        ages: dict[str, Age] = {}
        try:
            ages = self._ages.look(plan)
        except (Unavailable, OSError) as error:
            why["ages"] = f"Ages are not known: {getattr(error, 'detail', error)}"
        published = self._home / "published"
        columns = self._quiet(why, "columns", "No distributions", lambda: baseline_columns(published), {})
        models: list[Reader] = self._quiet(why, "models", "No models", lambda: readers(published), [])
        report = _json(self._home / "drift" / "latest.json") or {}
        drift = {row["name"]: row for row in report.get("features", ()) if isinstance(row, dict) and "name" in row}
        sources = {name: contract.made_from for name, contract in contracts().items()}
        return Known(plan, ages, models, columns, drift, sources, why)

    def _quiet(self, why: dict[str, str], part: str, lack: str, read: Callable[[], Any], nothing: Any) -> Any:
        """What `read` gives, or `nothing` and why."""
        try:
            return read()
        except (MinimartError, OSError, ValueError, KeyError, TypeError) as error:
            why[part] = f"{lack}: {getattr(error, 'detail', error)}"
            return nothing


def baseline_columns(published: Path) -> Mapping[str, Column]:
    """The summaries of the serving ranker's training rows by feature; empty where it brought none."""
    current = read_current(published)
    ref = current.bundles.get("ranker") if current else None
    found = _json(published / "ranker" / ref.version / BASELINE) if ref else None
    return Baseline.from_dict(found).columns if found else {}


def _json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is none that can be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
