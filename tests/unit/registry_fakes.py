"""A platform's folder as the pages of features and contracts read it: plan, bundles, baseline, reports."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adapters.bundles import write_bundle
from adapters.errors import Unavailable
from adapters.feature_ages import Age
from adapters.pointers import Rollout, set_current, set_rollout
from feature_repo.contracts.files import contracts
from feature_repo.plan import FeaturePlan
from models.drift.baseline import summarise
from models.ranking_features import FEATURES, STORED
from models.rollout.state import Ref

PLAN = Path(__file__).parents[1] / "plan.json"


@dataclass
class FakeAges:
    """`ages` by view; `down` makes the online store Unavailable."""

    ages: dict[str, Age] = field(default_factory=dict)
    down: bool = False
    asked: int = 0

    def look(self, plan: FeaturePlan) -> dict[str, Age]:
        self.asked += 1
        if self.down:
            raise Unavailable("the online store at redis://127.0.0.1 did not answer: refused")
        return self.ages

    def close(self) -> None:
        """Nothing to release."""


def baseline(rows: int = 4000) -> dict[str, Any]:
    """Training rows of every ranking feature, each with a shape of its own."""
    rng = np.random.default_rng(5)
    columns = []
    for i, name in enumerate(FEATURES):
        shape = rng.poisson(1 + i % 7, rows) if "_count_" in name else rng.lognormal(6 + i % 3, 0.6, rows)
        columns.append(np.where(rng.random(rows) < 0.02 * (i % 4), np.nan, shape))
    return summarise(np.stack(columns, 1).astype(np.float32), FEATURES, rng.random(rows))


def registry_home(home: Path, now_ms: int) -> None:
    """Write the folder: champion and challenger, the ranker's baseline, a drift report and a contracts' report."""
    (home / "features").mkdir(parents=True)
    shutil.copyfile(PLAN, home / "features" / "plan.json")
    published = home / "published"
    files = {"baseline.json": json.dumps(baseline()).encode()}
    made = {
        version: write_bundle(published, "ranker", version, files, {"reads": list(STORED)}, gate="passed")
        for version in ("3", "4")
    }
    towers = write_bundle(published, "two-tower", "7", {"x": b"x"}, {"reads": ["user_recent_items"]}, gate="passed")
    index = write_bundle(published, "index", "20261122", {"x": b"x"}, {}, gate="passed")
    set_current(published, {"ranker": made["3"], "two-tower": towers, "index": index})
    set_rollout(published, Rollout(challenger={"ranker": Ref("4", made["4"].manifest_sha256)}, state="canary_5"))
    levels = ("healthy", "warn", "drift", "insufficient_data")
    rows = [{"name": name, "level": levels[i % 4], "psi": None if i % 4 == 3 else 0.03 + 0.11 * (i % 3)}
            for i, name in enumerate(FEATURES)]  # fmt: skip
    write(home / "drift" / "latest.json", {"at_ms": now_ms, "features": rows})
    write(home / "contracts" / "latest.json", checked(now_ms))


def write(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def checked(now_ms: int) -> dict[str, Any]:
    """A report in which orders are broken and carts are worth a look."""
    found = []
    for name in ("shop.clicks", "shop.carts", "shop.orders", "shop.impressions"):
        findings = [{"kind": "schema", "promise": "version 1 of the schema", "level": "kept", "detail": ""}]
        findings += [{"kind": "quality", "promise": rule.text, "level": "kept", "detail": ""}
                     for rule in contracts()[name].rules]  # fmt: skip
        if name == "shop.orders":
            findings[5] |= {"level": "broken", "detail": "0.31% of the rows break it"}
        if name == "shop.carts":
            findings[2] |= {"level": "warn", "detail": "31.4% empty"}
        found.append({"name": name, "rows": 12_345, "findings": findings})
    return {"at_ms": now_ms - 240_000, "verdict": "broken", "contracts": found}


def event_log_metrics(now_ms: int) -> str:
    """What the event log shows: clicks as they should be, carts too few, impressions stale, orders too few to say."""
    rows = (("shop.clicks", 4, 3050, 3000, 0), ("shop.carts", 30, 700, 1200, 1),
            ("shop.impressions", 4000, 5000, 5050, 0), ("shop.orders", 60, 12, None, -1))  # fmt: skip
    lines = []
    for topic, age, hour, expected, level in rows:
        shown = {"newest_timestamp_seconds": now_ms / 1000 - age, "freshness_seconds": 900, "hour_records": hour,
                 "hour_expected_records": expected, "volume_level": level}  # fmt: skip
        lines += [f'minimart_topic_{name}{{topic="{topic}"}} {value}' for name, value in shown.items()
                  if value is not None]  # fmt: skip
    return "\n".join(lines) + "\n"
