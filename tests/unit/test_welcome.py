"""The first answer of the composed platform: waited for, and said with where everything is in the last line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines import prepare, welcome
from settings import Settings


def feed(items: int) -> httpx.Response:
    body = {
        "items": [{"item_id": f"i{n}"} for n in range(items)],
        "timings_ms": {"total": 12.4},
        "degraded": [],
    }
    return httpx.Response(200, json=body)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, recommender_url="http://balancer:8082")


def test_it_waits_for_a_whole_feed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [httpx.ConnectError("refused"), httpx.Response(503), feed(3), feed(10)]
    asked: list[tuple[str, Any]] = []

    def post(url: str, *, json: Any, timeout: float) -> httpx.Response:
        asked.append((url, json))
        answer = answers[len(asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(welcome.httpx, "post", post)
    monkeypatch.setattr(welcome.time, "sleep", lambda seconds: None)
    assert len(welcome.first_answer(settings).json()["items"]) == 10
    assert asked[-1] == ("http://balancer:8082/v1/recommendations", {"user_id": "visitor", "k": 10})


def test_it_gives_up_and_says_what_was_answered(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(welcome.httpx, "post", lambda *a, **k: httpx.Response(503, text="no lineup"))
    with pytest.raises(SystemExit, match=r"HTTP 503: no lineup.*docker compose logs recommender"):
        welcome.first_answer(settings, patience_s=0.01)


def test_the_last_line_says_where_things_are() -> None:
    said = welcome.welcome(feed(10), ["shop=http://127.0.0.1:8080", "console=http://127.0.0.1:8099"])
    assert said.splitlines()[-1] == "shop: http://127.0.0.1:8080   console: http://127.0.0.1:8099"
    assert "degraded: no" in said


def test_training_is_a_job_of_its_own(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(prepare.volumes, "check", lambda settings: "all right")
    monkeypatch.setattr(prepare.Runner, "run", lambda self, step: ran.append(step.name))
    prepare.prepare(settings, train=False)
    assert ran == ["history", "features", "catalogue", "online"]
    ran.clear()
    prepare.prepare(settings, train=True)
    assert ran == ["models"]
