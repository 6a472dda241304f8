"""A platform that the console can ask, in memory: each part answers like the real one, or is away."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

NOW = 1_763_800_000_000
PARTS = {
    8080: "shop", 8081: "collector", 8082: "recommender", 8083: "stream_features", 8084: "event_log", 8085: "simulator",
    8086: "mlflow", 8087: "triton", 8094: "prometheus", 8095: "alertmanager", 8096: "clickhouse", 8097: "analytics",
    8098: "controller", 8100: "monitor",
}  # fmt: skip
LINEUP = {name: {"version": "3", "manifest_sha256": "a" * 64} for name in ("ranker", "preranker", "two-tower")}
OLDER = {name: {"version": "2", "manifest_sha256": "b" * 64} for name in ("ranker", "preranker", "two-tower")}
SHARES = {"champion": 90, "control": 5, "canary": 5}


def rollout(state: str = "canary_5", **changes: Any) -> dict[str, Any]:
    """What the controller tells."""
    history = [
        {"id": f"1-{i}", "seq": i, "at_ms": NOW - 60_000 * (4 - i), "from": a, "to": b, "trigger": trigger,
         "reason": reason, "actor": "controller"}
        for i, (a, b, trigger, reason) in enumerate((
            ("healthy", "drift_suspected", "drift", "PSI of category_affinity_24h is 0.41"),
            ("drift_suspected", "retraining", "drift", "seen in 2 windows in a row"),
            ("retraining", "gated", "gate", "gate passed: NDCG@10 0.041 against 0.038"),
            ("shadow", "canary_5", "timer", "overlap 0.71, no errors, P99 31 ms"),
        ))
    ]  # fmt: skip
    guard = {"canary": 0.083, "control": 0.071, "difference": 0.012, "low": -0.004, "high": 0.028, "p": 0.21}
    return {
        "state": state, "since_ms": NOW - 42_000, "rollout": "r-7", "reason": "overlap 0.71, no errors, P99 31 ms",
        "epoch": 4, "champion": OLDER, "challenger": LINEUP, "previous": None, "shares": SHARES, "shadow": False,
        "holds": {}, "paused": "", "retrains_today": 1, "cooldown_until_ms": 0, "leader": True, "drift": None,
        "evidence": {"ctr": {**guard, "verdict": "undecided"}, "errors": {**guard, "verdict": "fine"},
                     "canary_requests": 118},
        "history": history[::-1], **changes,
    }  # fmt: skip


def metrics(answers: float) -> str:
    """What the recommender shows after so many answers."""
    lines = [
        f'minimart_arm_answers_total{{arm="champion"}} {0.9 * answers}',
        f'minimart_arm_answers_total{{arm="control"}} {0.05 * answers}',
        f'minimart_arm_answers_total{{arm="canary"}} {0.05 * answers}',
        'minimart_http_requests_total{service="recommender",route="/v1/recommendations",method="POST",status="200"} '
        f"{answers}",
    ]
    for stage, middle in (("retrieve", 0.01), ("rank", 0.005), ("total", 0.03)):
        for bound in (0.005, 0.01, 0.03, 0.1):
            share = min(1.0, bound / middle / 2)
            lines.append(f'minimart_stage_seconds_bucket{{stage="{stage}",le="{bound}"}} {share * answers}')
        lines.append(f'minimart_stage_seconds_bucket{{stage="{stage}",le="+Inf"}} {answers}')
    return "\n".join(lines) + "\n"


@dataclass
class FakePlatform:
    """`away` parts refuse connections; `posted` is what was asked for; `prometheus` says whether it is there."""

    away: set[str] = field(default_factory=set)
    prometheus: bool = True
    told: dict[str, Any] = field(default_factory=rollout)
    shares: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("taste_shift", "traffic_mix", "seasonal", "price_level", "nulls"), 0.0)
    )
    posted: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    refuse: str = ""
    decisions: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    asked: int = 0
    texts: dict[str, str] = field(default_factory=dict)
    """Part -> what its /metrics shows."""

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        part, path = PARTS[request.url.port or 0], request.url.path
        if part in self.away or (part == "prometheus" and not self.prometheus):
            raise httpx.ConnectError("away")
        if request.method == "POST":
            return self._post(part, path, json.loads(request.content))
        return self._get(part, path, request)

    def _get(self, part: str, path: str, request: httpx.Request) -> httpx.Response:
        match part, path:
            case "controller", "/v1/rollout":
                return httpx.Response(200, json=self.told)
            case "controller", "/v1/versions":
                row = {"version": "3", "gate": "passed", "created_at": "2026-11-22T13:00", "role": "challenger"}
                return httpx.Response(200, json={"published": {"ranker": [row]}})
            case "simulator", "/v1/scenario":
                meaning = {"taste_shift": "share of shoppers with other tastes"}
                return httpx.Response(200, json={"scenario": self.shares, "since_ms": NOW, "meaning": meaning})
            case "simulator", "/v1/rate":
                return httpx.Response(200, json={"feeds_per_second": 1.0, "searches_per_second": 0.0})
            case "alertmanager", "/api/v2/alerts":
                alert = {"labels": {"alertname": "DriftSeen", "severity": "warn"},
                         "annotations": {"summary": "category_affinity_24h moved"}}  # fmt: skip
                return httpx.Response(200, json=[alert])
            case "monitor", "/v1/incidents":
                one = {"id": "20261122T130000-drift-00000000", "kind": "drift", "title": "Drift seen",
                       "severity": "warn", "state": "open", "opened_at_ms": NOW - 90_000, "summary": "tastes moved"}
                return httpx.Response(200, json={"total": 1, "incidents": [one]})
            case "monitor", _ if path.endswith("-00000000/report"):
                return httpx.Response(200, text="# Drift seen\n\n13:00:00 tastes moved")
            case "monitor", _ if path.startswith("/v1/incidents/"):
                return httpx.Response(404, json={"detail": "no such incident"})
            case "prometheus", "/api/v1/query":
                return httpx.Response(200, json={"data": {"result": self._series(request.url.params["query"])}})
            case _, "/metrics" if part in self.texts:
                return httpx.Response(200, text=self.texts[part])
            case "recommender", "/metrics":
                return httpx.Response(200, text=metrics(self.asked))
            case "recommender", _ if path.startswith("/v1/decisions/"):
                found = self.decisions.get(path.rpartition("/")[2])
                if found is None:
                    return httpx.Response(404, json={"detail": "no decision of that id"})
                return httpx.Response(200, json=dict(found))
        return httpx.Response(200, text="")

    def _series(self, query: str) -> list[dict[str, Any]]:
        if "minimart_arm_answers_total" in query:
            found = [({"arm": arm}, share / 10) for arm, share in SHARES.items()]
        elif "minimart_http_requests_total" in query:
            found = [({"service": s, "route": "/v1/x"}, r) for s, r in (("recommender", 10.0), ("collector", 21.4))]
        elif "minimart_events_total" in query:
            found = [({"service": s, "outcome": "accepted"}, 64.2) for s in ("event_log", "stream_features")]
        elif "stage_seconds_bucket" in query:
            rates = {"0.005": 2.0, "0.01": 7.0, "0.03": 9.7, "0.1": 10.0, "+Inf": 10.0}
            found = [({"stage": s, "le": b}, r) for s in ("retrieve", "features", "prerank", "rank", "rerank", "total")
                     for b, r in rates.items()]  # fmt: skip
        elif "nv_inference" in query:
            found = [({"model": "ranker", "version": "3"}, 10.1)]
        else:
            found = []
        return [{"metric": metric, "value": [0, str(value)]} for metric, value in found]

    def _post(self, part: str, path: str, body: dict[str, Any]) -> httpx.Response:
        self.posted.append((f"{part}{path}", body))
        if self.refuse:
            return httpx.Response(409, json={"detail": self.refuse})
        if part == "simulator":
            self.shares = dict.fromkeys(self.shares, 0.0) if body.pop("reset", False) else self.shares
            self.shares.update(body)
            return httpx.Response(200, json={"scenario": self.shares})
        if path.endswith("/rollback"):
            self.told = rollout("rolled_back", challenger=None, shares={"champion": 100, "control": 0, "canary": 0})
        return httpx.Response(202, json={"accepted": True, "state": self.told["state"], "detail": ""})


def drift_reports(folder: Path, windows: int = 8) -> None:
    """Reports of a platform that drifts in its last windows."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("category_affinity_24h", "two_tower_score", "user_clicks_count_1h", "item_ctr_24h", "price_ratio_7d",
             "hour_sin", "device", "weekday", "item_log_price", "cooccurrence_score")  # fmt: skip
    for w in range(windows):
        late = max(0, w - windows // 2)
        features = [
            {"name": name, "psi": psi, "detail": "",
             "level": "insufficient_data" if name == "weekday" else "drift" if psi > 0.25 else "warn" if psi > 0.1
             else "healthy"}
            for i, name in enumerate(names) for psi in [0.01 * i + (0.14 * late / (i + 1))]
        ]  # fmt: skip
        verdict = "drift" if late > 2 else "warn" if late else "healthy"
        report = {
            "id": f"d-{w}", "at_ms": NOW - 60_000 * (windows - w), "verdict": verdict, "baseline": "last_healthy",
            "window_text": "10 minutes", "features": features, "reasons": ["category_affinity_24h: PSI 0.42"],
            "kinds": {"data": verdict, "label": "healthy", "concept": "healthy", "prediction": "healthy"},
        }  # fmt: skip
        (folder / f"d-{w}.json").write_text(json.dumps(report))
