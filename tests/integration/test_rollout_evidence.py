"""The evidence of guardrails, asked of a real store: sums by shopper as plain Python has them, nothing else counts."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from typing import Any

import pytest

from adapters.analytics import Analytics
from adapters.analytics_schema import migrate
from models.rollout.guardrails import GuardConfig, judge
from services.controller.evidence import Evidence

BEGAN = 1_790_000_000_000
HOUR = 3_600_000


@pytest.fixture(scope="module")
def store(clickhouse_url: str) -> Analytics:
    found = Analytics(clickhouse_url, database="rollout_evidence")
    migrate(found)
    return found


def decision(n: int, user: str, arm: str, at_ms: int, **changes: Any) -> dict[str, Any]:
    return {"request_id": f"q{n}", "user_id": user, "arm": arm, "rollout": "r-1", "event_ms": at_ms, "_offset": n,
            "total_ms": 20.0, "degraded": [], "scores": [0.5, 0.1], **changes}  # fmt: skip


def test_sums_by_shopper_are_exact(store: Analytics) -> None:
    rng = random.Random(1)
    decisions, clicks, orders = [], [], []
    expected: dict[str, dict[str, list[float]]] = {arm: defaultdict(lambda: [0.0] * 6) for arm in ("canary", "control")}
    for n in range(600):
        arm = rng.choice(["canary", "control"])
        user = f"{arm}{rng.randrange(20)}"
        bad, dead, ms = rng.random() < 0.1, rng.random() < 0.1, rng.uniform(5, 80)
        at = BEGAN + rng.randrange(3 * HOUR)
        decisions.append(decision(n, user, arm, at, total_ms=ms, degraded=["rank_skipped"] if bad else [],
                                  scores=[0.2, 0.2] if dead else [0.5, 0.1]))  # fmt: skip
        clicked = rng.randrange(3)
        clicks += [{"event_id": f"c{n}-{i}", "request_id": f"q{n}", "user_id": user, "event_ms": at + 1, "_offset": i}
                   for i in range(clicked)]  # fmt: skip
        for i, value in enumerate((1, clicked, 0, math.log(ms), bad, dead and not bad)):
            expected[arm][user][i] += value
    for arm in expected:
        for user in list(expected[arm])[:5]:
            orders.append({"event_id": f"o{user}", "line": 1, "user_id": user, "event_ms": BEGAN + 5, "_offset": 1})
            expected[arm][user][2] += 1
    noise = [decision(900, "canary1", "canary", BEGAN - 1),
             decision(901, "canary1", "canary", BEGAN + 1, rollout="r-0"),
             decision(902, "u1", "champion", BEGAN + 1, rollout=None),
             decision(903, "canary1", "champion", BEGAN + 1, rollout=None)]  # fmt: skip
    store.insert("decisions", decisions + noise)
    store.insert("decisions", decisions[:100])  # a batch that came twice
    store.insert("clicks", [*clicks, {"event_id": "organic", "user_id": "canary1", "event_ms": BEGAN + 1}])
    store.insert("orders", orders)

    found = Evidence(store).arms(
        "r-1", began_ms=BEGAN, balanced_until_ms=0, step_ms=BEGAN + HOUR, step_arms=("canary",)
    )
    for arm, sums in (("canary", found.canary), ("control", found.control)):
        rows = list(expected[arm].values())
        for i, name in enumerate(("clicks", "orders", "latency", "degraded", "dead_scores"), start=1):
            got = sums[name]
            assert (got.users, got.n, got.nn) == (len(rows), sum(r[0] for r in rows), sum(r[0] ** 2 for r in rows))
            assert got.y == pytest.approx(sum(r[i] for r in rows), rel=1e-5)
            assert got.yy == pytest.approx(sum(r[i] ** 2 for r in rows), rel=1e-5)
            assert got.yn == pytest.approx(sum(r[i] * r[0] for r in rows), rel=1e-5)
    step = [d for d in decisions if d["arm"] == "canary" and d["event_ms"] >= BEGAN + HOUR]
    assert found.step_requests == len(step)
    assert found.step_gross["degraded"] == pytest.approx(sum(bool(d["degraded"]) for d in step) / len(step))
    beside = [d for d in decisions if d["arm"] == "control" and d["event_ms"] >= BEGAN + HOUR]
    assert found.step_control_requests == len(beside)
    assert found.step_control["degraded"] == pytest.approx(sum(bool(d["degraded"]) for d in beside) / len(beside))
    (pooled,), rows = found.champion.values(), [*expected["control"].values(), [1.0, 0.0]]
    assert list(found.champion) == ["clicks"]
    assert (pooled.users, pooled.n) == (len(rows), sum(r[0] for r in rows)), "the control, and who was never a canary"
    assert (pooled.y, pooled.yy) == (sum(r[1] for r in rows), sum(r[1] ** 2 for r in rows))
    assert pooled.yn == sum(r[0] * r[1] for r in rows)
    judged = judge(found, GuardConfig(least_users=10)).figures["clicks"]
    assert (judged["verdict"], judged["control"]) == ("ok", pytest.approx(pooled.ratio, abs=1e-5))


def test_shadow_scores_are_summed_up(store: Analytics) -> None:
    degraded, scores = {0: ["triton_down"], 1: ["rank_skipped"]}, {0: [], 1: [0.0, 0.0]}
    rows = [{"request_id": f"s{i}", "rollout": "r-1", "event_ms": BEGAN + i, "_offset": i, "total_ms": 30.0,
             "champion_total_ms": 10.0, "error": "boom" if i == 0 else "", "scores": scores.get(i, [0.4, 0.2]),
             "overlap_at_k": 0.5, "degraded": degraded.get(i, [])}
            for i in range(10)]  # fmt: skip
    store.insert("shadow", [*rows, {**rows[0], "request_id": "other", "rollout": "r-0"}])
    answers = [{**decision(i, f"u{i}", "champion", BEGAN + i), "request_id": f"s{i}",
                "degraded": ["triton_down"] if i == 3 else []} for i in range(10)]  # fmt: skip
    store.insert("decisions", [*answers, {**answers[3], "request_id": "other"}])
    found = Evidence(store).shadow("r-1", since_ms=BEGAN)
    assert (found.requests, found.errors, found.degraded) == (10, 0.1, 0.2)
    assert found.dead_scores == 0.1, "an answer that was never ranked has no dead scores"
    assert found.champion_degraded == 0.1
    assert (found.median_ms, found.champion_median_ms, found.overlap) == (30.0, 10.0, 0.5)


def test_nothing_in_the_store_is_no_evidence(store: Analytics) -> None:
    evidence = Evidence(store)
    found = evidence.arms("nobody", began_ms=BEGAN, balanced_until_ms=0, step_ms=BEGAN, step_arms=("canary",))
    assert (found.canary, found.control, found.champion, found.step_requests) == ({}, {}, {}, 0)
    assert found.step_gross == {}
    assert evidence.shadow("nobody", since_ms=BEGAN).requests == 0
