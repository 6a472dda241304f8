"""`make hold` and its like: a person's word reaches the controller, and its refusal reaches the person."""

from __future__ import annotations

import sys
from typing import Any

import httpx
import pytest

from pipelines import hold


def answered(monkeypatch: pytest.MonkeyPatch, status: int, body: dict[str, Any]) -> list[Any]:
    """Answer every request so; what was sent."""
    sent: list[Any] = []

    def request(method: str, url: str, **given: Any) -> httpx.Response:
        sent.append((method, url.split("/v1/")[1], given["json"]))
        return httpx.Response(status, json=body)

    monkeypatch.setattr(httpx, "request", request)
    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    return sent


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["hold", *words])
    hold.main()


def test_a_hold_names_model_reason_and_person(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = answered(monkeypatch, 202, {"accepted": True, "state": "canary_5", "detail": "held"})
    run(monkeypatch, "hold", "--model", "ranker", "--reason", "audit")
    assert sent == [("POST", "rollout/hold", {"reason": "audit", "actor": "ann", "model": "ranker"})]
    assert "canary_5" in capsys.readouterr().out


def test_a_refusal_is_said_and_ends_in_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, 409, {"detail": "there is neither a challenger nor a previous champion to go back to"})
    with pytest.raises(SystemExit, match="neither a challenger"):
        run(monkeypatch, "rollback")


def test_without_a_controller_it_says_what_starts_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> httpx.Response:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(httpx, "request", away)
    with pytest.raises(SystemExit, match="make demo starts it"):
        run(monkeypatch, "show")


def test_the_rollout_is_shown_with_its_reasons(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"from": "shadow", "to": "canary_5", "trigger": "timer", "actor": "controller", "reason": "no harm"}
    answered(monkeypatch, 200, {
        "state": "canary_5", "reason": "no harm", "paused": "held by hand", "shares": {"champion": 90, "canary": 5},
        "holds": {"ranker": {"actor": "ann", "reason": "audit"}}, "history": [line],
    })  # fmt: skip
    run(monkeypatch, "show")
    shown = capsys.readouterr().out
    assert "canary_5" in shown
    assert "held by hand" in shown
    assert "audit" in shown
