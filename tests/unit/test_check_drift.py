"""The drift check from a store's rows to its report, without a store: what is read, decided, kept and printed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from adapters.errors import Unavailable
from models.drift.baseline import Baseline
from models.ranking_features import FEATURES
from pipelines import check_drift, drift_traffic, file_drift
from pipelines.check_drift import Ask, check, keep, parse, worth_recording
from pipelines.drift_baselines import Healthy
from pipelines.drift_report import show, span
from settings import Settings

MINUTE = 60_000
NOW = 1_790_000_000_000
SHOWN = 5


class FakeStore:
    """Answers the reader's questions from a seeded world; `broken` changes the answers from `since_ms` on."""

    def __init__(self, *, broken: str = "", since_ms: int = NOW, ranker: str = "3") -> None:
        self.broken, self.since_ms, self.ranker = broken, since_ms, ranker

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        params = params or {}
        begin = max(params["since"], NOW - 12 * MINUTE)
        moments = range(begin + -begin % 150, params["until"], 150)
        if sql == drift_traffic._VERSIONS:
            first = min(moments, default=0)
            return [{"ranker": self.ranker, "two_tower": "7", "first_ms": first, "n": len(moments)}]
        if sql == drift_traffic._COUNTS:
            return [{"requests": len(moments), "clicks": len(moments) * 2, "impressions": len(moments)}]
        if sql == drift_traffic._DECISIONS:
            return [self._decision(at) for at in moments][: params["limit"]]
        if sql == drift_traffic._SEEN:
            return [{"request_id": f"r{at}", "country": "DE" if at % 4 else "FR"} for at in moments]
        if sql == drift_traffic._CLICKS:
            return [click for at in moments for click in self._clicks(at)]
        assert sql == drift_traffic._EVENTS
        return [self._event(at) for at in moments][: params["limit"]]

    def _sick(self, at: int, what: str) -> bool:
        return self.broken == what and at >= self.since_ms

    def _decision(self, at: int) -> dict[str, Any]:
        rng = np.random.default_rng(at)
        features = rng.normal(size=(SHOWN, len(FEATURES)))
        features[:, FEATURES.index("device")] = at % 3
        if self._sick(at, "prices"):
            features[:, FEATURES.index("item_log_price")] += 1.0
        rows: list[list[float | None]] = [list(row) for row in features.tolist()]
        if self._sick(at, "nulls"):
            price = FEATURES.index("item_log_price")
            rows = [[*row[:price], None, *row[price + 1 :]] for row in rows]
        return {
            "request_id": f"r{at}", "event_ms": at, "device": "" if self._sick(at, "nulls") else "phone", "new_user": 0,
            "total_ms": 20.0 + at % 7, "items": [f"i{n}" for n in range(SHOWN)],
            "rank_scores": [*rng.normal(size=SHOWN - 1).tolist(), None], "features": rows,
        }  # fmt: skip

    def _clicks(self, at: int) -> list[dict[str, Any]]:
        chance = 0.05 if self._sick(at, "tastes") else 0.3
        rng = np.random.default_rng(at + 1)
        return [{"request_id": f"r{at}", "item_id": f"i{n}"} for n in range(SHOWN) if rng.random() < chance]

    def _event(self, at: int) -> dict[str, Any]:
        price = int(1000 + np.random.default_rng(at + 2).integers(0, 9000))
        return {"price_cents": price, "category": ("Garden", "Books")[at // 150 % 2], "session_id": f"s{at}"}

    def insert(self, table: str, rows: Any) -> None:
        raise AssertionError("a check writes nothing into the store")

    execute = insert


def ask(now_ms: int = NOW, **given: Any) -> Ask:
    return Ask(2 * MINUTE, given.pop("baseline", "last_healthy"), now_ms, 20_000, **given)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def test_the_first_window_becomes_healthy_and_the_next_is_compared(settings: Settings) -> None:
    first = check(FakeStore(), settings, ask(NOW - 4 * MINUTE)).document
    assert (first["verdict"], first["breakage"]) == ("healthy", False)
    assert "are now the healthy window" in first["reasons"][0]
    second = check(FakeStore(), settings, ask()).document
    assert second["verdict"] == "healthy"
    assert second["reasons"] == []
    assert second["versions"] == {"ranker": "3", "two_tower": "7"}
    assert {row["name"] for row in second["features"]} >= {*FEATURES, "score", "asked from device", "click_category"}
    assert second["performance"]["factor"] == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    ("broken", "kind", "breakage"), [("prices", "data", False), ("nulls", "data", True), ("tastes", "concept", False)]
)
def test_what_moved_is_named_by_kind(settings: Settings, broken: str, kind: str, breakage: bool) -> None:
    check(FakeStore(), settings, ask(NOW - 5 * MINUTE))
    store = FakeStore(broken=broken, since_ms=NOW - 5 * MINUTE)
    found = check(store, settings, ask()).document
    assert found["verdict"] == "drift"
    assert found["kinds"][kind] == "drift"
    assert found["breakage"] == breakage
    assert found["reasons"]


def test_drift_of_one_window_only_warns(settings: Settings) -> None:
    check(FakeStore(), settings, ask(NOW - 5 * MINUTE))
    found = check(FakeStore(broken="prices", since_ms=NOW - 140_000), settings, ask()).document
    assert found["verdict"] == "warn"
    assert any("not yet 2 windows" in reason for reason in found["reasons"])


def test_another_ranker_starts_a_new_healthy_window(settings: Settings) -> None:
    check(FakeStore(), settings, ask(NOW - 4 * MINUTE))
    found = check(FakeStore(ranker="4", broken="prices"), settings, ask()).document
    assert "ranker 4 are now the healthy window" in found["reasons"][0]


def test_no_traffic_is_insufficient_data(settings: Settings) -> None:
    found = check(FakeStore(), settings, ask(NOW - 30 * MINUTE)).document
    assert found["verdict"] == "insufficient_data"
    assert "no healthy window yet" in found["reasons"][0]


def test_silence_after_health_is_breakage(settings: Settings) -> None:
    class Silent(FakeStore):
        def query(self, sql: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
            inside = params is not None and params["until"] > NOW - 3 * MINUTE
            if inside and sql == drift_traffic._VERSIONS:
                return [{"ranker": "", "two_tower": "", "first_ms": 0, "n": 0}]
            if inside and sql == drift_traffic._COUNTS:
                return [{"requests": 0, "clicks": 0, "impressions": 0}]
            return [] if inside else super().query(sql, params)

    check(FakeStore(), settings, ask(NOW - 5 * MINUTE))
    found = check(Silent(), settings, ask()).document
    assert (found["verdict"], found["kinds"]["operations"], found["breakage"]) == ("drift", "drift", True)


def test_a_platform_that_just_started_was_not_silent_before(settings: Settings) -> None:
    check(FakeStore(), settings, ask(NOW - 5 * MINUTE))
    hour = Ask(60 * MINUTE, "last_healthy", NOW, 20_000)
    found = check(FakeStore(), settings, hour).document
    assert found["kinds"]["operations"] == "healthy"
    assert 600 < found["window"]["seen_s"] < 800
    assert found["window_text"] == "1 h"


def test_without_a_baseline_file_training_says_so(settings: Settings) -> None:
    found = check(FakeStore(), settings, ask(baseline="training")).document
    assert found["verdict"] == "insufficient_data"
    assert "baseline.json" in found["reasons"][0]


def test_the_same_hour_of_last_week_may_be_missing(settings: Settings) -> None:
    found = check(FakeStore(), settings, ask(baseline="same_hour_last_week")).document
    assert found["verdict"] == "insufficient_data"


def test_a_damaged_healthy_window_is_as_none(settings: Settings) -> None:
    (settings.home / "drift").mkdir()
    (settings.home / "drift" / "healthy.json").write_text("{")
    versions = drift_traffic.Versions("3", "7", 0, 0)
    assert Healthy(settings.home / "drift").load(versions) is None


def test_report_is_kept_shown_and_exported(settings: Settings, tmp_path: Path) -> None:
    check(FakeStore(), settings, ask(NOW - 5 * MINUTE))
    checked = check(FakeStore(broken="nulls", since_ms=NOW - 5 * MINUTE), settings, ask())
    assert worth_recording(checked.document, settings)
    checked.document["recorded_ms"] = NOW
    folder = settings.home / "drift"
    for n in range(check_drift.KEPT + 5):
        (folder / f"drift-20200101T{n:06}-000.json").write_text("{}")
    keep(checked, settings, tmp_path / "out.json")
    assert not worth_recording(checked.document, settings)
    for path in (tmp_path / "out.json", settings.home / "drift" / "latest.json"):
        assert json.loads(path.read_text())["verdict"] == "drift"
    assert len(list(folder.glob("drift-*.json"))) == check_drift.KEPT
    metrics = (settings.metrics / "drift.prom").read_text()
    assert 'minimart_drift_level{kind="data",model="ranker"} 2.0' in metrics
    assert 'minimart_drift_null_share{feature="item_log_price",model="ranker"} 1.0' in metrics
    shown = StringIO()
    show(checked.document, Console(file=shown, width=160))
    assert "drift" in shown.getvalue()
    assert "item_log_price" in shown.getvalue()


def test_evidently_page_survives_an_empty_column(settings: Settings, tmp_path: Path) -> None:
    write_html = pytest.importorskip("pipelines.drift_html").write_html
    check(FakeStore(), settings, ask(NOW - 5 * MINUTE))
    checked = check(FakeStore(broken="nulls", since_ms=NOW - 5 * MINUTE), settings, ask())
    assert checked.reference is not None
    left_out = write_html(checked.reference, checked.traffic.baseline(), tmp_path / "report.html")
    assert {"item_log_price", "asked from device"} <= set(left_out)
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_status_and_words(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Away:
        def query(self, sql: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
            raise Unavailable("ClickHouse is away")

    monkeypatch.setattr(check_drift, "load_settings", lambda: settings)
    monkeypatch.setattr(check_drift, "open_store", lambda _: Away())
    assert check_drift.main(["--no-kafka", "--record", "never"]) == 3
    assert "ClickHouse is away" in capsys.readouterr().err
    monkeypatch.setattr(check_drift, "open_store", lambda _: FakeStore())
    quiet = ["--no-kafka", "--no-mlflow", "--quiet", "--window", "2m", "--settle", "20s", "--now-ms", str(NOW)]
    assert check_drift.main(quiet) == 0
    assert capsys.readouterr().out.startswith("healthy 2 min drift-")


def test_papers_that_are_filed_later_are_what_was_found(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(FakeStore(), settings, ask(NOW - 5 * MINUTE))
    checked = check(FakeStore(broken="nulls", since_ms=NOW - 5 * MINUTE), settings, ask())
    started: list[list[str]] = []
    monkeypatch.setattr(file_drift.subprocess, "Popen", lambda command, **_: started.append(command))
    file_drift.file_later(file_drift.Papers(checked.document, checked.reference, checked.traffic.baseline()), settings)

    found: list[file_drift.Papers] = []
    monkeypatch.setattr(file_drift, "file", lambda papers, _: found.append(papers))
    monkeypatch.setattr(file_drift, "load_settings", lambda: settings)
    monkeypatch.setattr(file_drift.os, "nice", lambda _: 0)
    monkeypatch.setattr("sys.argv", started[0][2:])
    file_drift.main()
    (papers,) = found
    assert papers.document == json.loads(json.dumps(checked.document))
    assert checked.reference is not None
    assert papers.reference == Baseline.from_dict(json.loads(json.dumps(checked.reference.as_dict())))
    assert papers.traffic is not None
    assert not list((settings.home / "drift").glob("papers-*")), "filed papers do not lie about"


def test_a_verdict_that_goes_back_and_forth_is_recorded_once_a_minute(settings: Settings) -> None:
    def document(verdict: str, at_ms: int, recorded_ms: int = 0) -> dict[str, Any]:
        return {"verdict": verdict, "kinds": {}, "at_ms": at_ms, "recorded_ms": recorded_ms}

    (settings.home / "drift").mkdir(parents=True, exist_ok=True)
    (settings.home / "drift" / "latest.json").write_text(json.dumps(document("healthy", NOW, NOW)))
    assert not worth_recording(document("warn", NOW + 30_000), settings)
    assert worth_recording(document("warn", NOW + 61_000), settings)
    assert worth_recording(document("drift", NOW + 30_000), settings)
    assert not worth_recording(document("healthy", NOW + 61_000), settings)


def test_lengths_of_time() -> None:
    assert [span(s) for s in (45, 60, 5400, 7200, 86_400)] == ["45 s", "1 min", "90 min", "2 h", "1 d"]
    assert parse(["--window", "7d"], Settings())[1].window_ms == 7 * 86_400_000
    with pytest.raises(SystemExit):
        parse(["--window", "soon"], Settings())
