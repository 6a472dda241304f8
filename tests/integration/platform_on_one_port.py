"""Controller, recommender, simulator and collector as one small server: what a drill sees of a platform, in seconds.

The controller here is a script: drift is seen a moment after a scenario, a challenger rides through every step, a bad
one is refused by the gate or rolled back from the first canary step. Feeds are as good as the script says.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse

from adapters.bundles import load_bundle
from models.marketplace.config import Scenario
from models.marketplace.scenarios import under
from models.marketplace.truth import best_feed
from models.marketplace.world import World, item_id
from models.rollout.shares import arm_of

STEP_S = 0.6
RIDE = ("drift_suspected", "retraining", "gated", "shadow", "canary_5", "canary_25", "canary_50", "canary_100",
        "promoted", "healthy")  # fmt: skip
PERCENT = {"canary_5": 5, "canary_25": 25, "canary_50": 50, "canary_100": 100}
REFUSED = {
    "wrong schema": "ranker schema", "NaN scores": "ranker answers", "slow": "ranker latency",
    "worse quality": "quality (NDCG@10)", "miscalibrated": "calibration", "stale features": "data not stale",
}  # fmt: skip


class Script:
    """The platform's state; `tick` moves it on by the clock."""

    def __init__(self, world: World) -> None:
        self.world, self.scenario = world, Scenario()
        self.champion = {"ranker": "1", "two-tower": "1"}
        self.challenger: dict[str, str] | None = None
        self.state, self.since, self.seq = "healthy", time.time(), 0
        self.history: list[dict[str, Any]] = []
        self.holds: dict[str, Any] = {}
        self.events = 0
        self.plan: list[tuple[str, str]] = []
        self.versions = 1
        self.bad: set[str] = set()
        self.best: dict[tuple[int, Scenario], Any] = {}
        self.lock = threading.Lock()

    def go(self, to: str, reason: str) -> None:
        was, self.state, self.since = self.state, to, time.time()
        self.seq += 1
        if to == "promoted" and self.challenger:
            self.champion = dict(self.challenger)
        given = self.challenger
        if to in ("promoted", "rolled_back", "healthy"):
            self.challenger = None
        self.history.insert(0, {
            "seq": self.seq, "from": was, "to": to, "at_ms": int(self.since * 1000), "reason": reason,
            "challenger": given, "shares": {"canary": PERCENT.get(to, 0)},
        })  # fmt: skip

    def tick(self) -> None:
        if not self.plan or time.time() - self.since < STEP_S:
            return
        to, reason = self.plan.pop(0)
        if to == "gated" and self.challenger is None:
            self.challenger = self.next_challenger()
        self.go(to, reason)

    def next_challenger(self) -> dict[str, str]:
        self.versions += 1
        return {**self.champion, "ranker": str(self.versions)}

    def serve(self, user: int, user_id: str) -> dict[str, Any]:
        """The champion's feeds are the best of before; a good challenger's those of now, a bad one's by chance."""
        percent = PERCENT.get(self.state, 0)
        arm = arm_of(user_id, "salt", percent) if percent else "champion"
        lineup = self.challenger if arm == "canary" and self.challenger else self.champion
        users, now = np.array([user]), np.array([int(time.time() * 1000)])
        if lineup["ranker"] in self.bad:
            rows = np.arange(20)
        else:
            scenario = Scenario() if lineup["ranker"] == "1" else self.scenario
            if (user, scenario) not in self.best:
                self.best[user, scenario] = best_feed(under(self.world, scenario), users, now, 20)[0]
            rows = self.best[user, scenario]
        items = [{"item_id": item_id(int(r)), "position": n + 1} for n, r in enumerate(rows)]
        return {"request_id": f"r-{time.time_ns()}", "items": items, "model_versions": lineup, "arm": arm,
                "rollout": "x", "degraded": []}  # fmt: skip


def app_of(script: Script) -> FastAPI:
    app = FastAPI()

    @app.get("/readyz")
    def ready() -> dict[str, str]:
        return {}

    @app.get("/metrics")
    def metrics() -> PlainTextResponse:
        return PlainTextResponse(f'minimart_events_total{{service="collector",outcome="accepted"}} {script.events}.0\n')

    @app.get("/v1/rollout")
    def rollout() -> dict[str, Any]:
        with script.lock:
            script.tick()
            return {"state": script.state, "history": script.history[:50], "champion": script.champion,
                    "challenger": script.challenger, "holds": script.holds,
                    "drift": {"id": f"drift-9999-{time.time()}", "verdict": "healthy"}}  # fmt: skip

    @app.get("/v1/lineups")
    def lineups() -> dict[str, Any]:
        return {"champion": script.champion, "challenger": script.challenger}

    @app.post("/v1/rollout/{verb}", status_code=202)
    async def command(verb: str, request: Request) -> dict[str, Any]:
        body = await request.json()
        with script.lock:
            if verb == "hold":
                script.holds[body["model"]] = {"actor": body["actor"], "reason": body["reason"]}
            elif verb == "resume":
                script.holds.pop(body["model"], None)
            elif verb == "rollback" and script.challenger:
                script.plan = [("healthy", "over")]
                script.go("rolled_back", body["reason"])
        return {"accepted": True}

    @app.post("/v1/challengers", status_code=202)
    async def challengers(request: Request) -> dict[str, Any]:
        body = await request.json()
        (manifest,) = Path(body["folder"]).glob("*/*/manifest.json")
        kind = load_bundle(manifest.parent).manifest.meta["drill"]
        with script.lock:
            script.go("retraining", "given by hand")
            if not body["bypass"]:
                script.plan = [("rolled_back", f"the gate refused: {REFUSED[kind]}"), ("healthy", "over")]
            else:
                script.challenger = script.next_challenger()
                script.bad.add(script.challenger["ranker"])
                script.plan = [("gated", "bypassed"), ("shadow", "x"), ("canary_5", "x")]
                script.plan += [("canary_5", "still")] * 4 + [("rolled_back", "guardrail clicks"), ("healthy", "over")]
        return {"accepted": True}

    @app.post("/v1/recommendations")
    async def recommend(request: Request) -> dict[str, Any]:
        user_id = (await request.json())["user_id"]
        return script.serve(int(user_id[1:]), user_id)

    @app.post("/v1/events", status_code=202)
    async def take(request: Request) -> dict[str, Any]:
        batch = await request.json()
        script.events += len(batch)
        return {"accepted": len(batch), "refused": []}

    @app.post("/v1/scenario")
    async def scenario(request: Request) -> dict[str, Any]:
        shares = {name: v for name, v in (await request.json()).items() if name != "reset"}
        script.scenario = Scenario(**shares)
        if shares.get("taste_shift"):
            with script.lock:
                script.go("healthy", "still")
                script.plan = [(state, f"on to {state}") for state in RIDE]
        return {}

    @app.post("/v1/rate")
    async def rate(request: Request) -> dict[str, Any]:
        return dict(await request.json())

    return app


@contextmanager
def served(script: Script) -> Iterator[str]:
    """The address of the running server."""
    server = uvicorn.Server(uvicorn.Config(app_of(script), host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(5)
