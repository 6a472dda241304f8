"""The batch check: what the lake's rows break, what is too little to say, the report, gauges and exit status."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from adapters import event_lake
from adapters.lake_watch import LakeWatch, newest_event_ms
from feature_repo.contracts import rules
from feature_repo.contracts.edge import compile_check
from feature_repo.contracts.files import contracts
from feature_repo.contracts.findings import Level
from feature_repo.contracts.watch import Live, freshness, volume
from pipelines import check_contracts
from pipelines.check_contracts import check_all, checkable, keep, main
from pipelines.contract_checks import Checked
from pipelines.contract_expressions import broken
from pipelines.contract_report import report, show
from settings import Settings

HOUR = 3_600_000
DAY = 24 * HOUR
NOW = 1_790_000_000_000 // DAY * DAY + 12 * HOUR
CLICKS = contracts()["shop.clicks"]
Rows = list[dict[str, Any]]


def click(n: int, at: int, **changes: Any) -> dict[str, Any]:
    return {"event_id": f"e{n}", "event_time": at, "user_id": f"u{n % 50}", "item_id": f"i{n % 10}", "category": "tea",
            "session_id": "s", "country": "DE", "device": ("phone", "desktop")[n % 2], "price_cents": 500 + n % 300,
            "request_id": None, "position": None, **changes}  # fmt: skip


def item(n: int) -> dict[str, Any]:
    return {"event_id": f"l{n}", "event_time": NOW - 20 * DAY, "item_id": f"i{n}", "title": "t", "category": "tea",
            "price_cents": 500, "seller_id": "s", "listed_at": NOW - 20 * DAY, "stock": 1, "adult": False,
            "promoted": False}  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, _env_file=None)  # type: ignore[call-arg]


@pytest.fixture
def lake(settings: Settings) -> Callable[[Rows], None]:
    """Writes clicks into the lake, beside ten items."""
    put(settings.lake, "shop.items", [item(n) for n in range(10)])
    return lambda rows: put(settings.lake, "shop.clicks", rows)


def put(folder: Path, topic: str, rows: Rows) -> None:
    names = [name for name in event_lake.schema(topic).names if name in rows[0]]
    kind = pa.schema([event_lake.schema(topic).field(name) for name in names])
    event_lake.write_import(folder, topic, pa.Table.from_pylist(rows, schema=kind), 0)


def two_days(**changed: Callable[[int], Any]) -> Rows:
    """1,000 clicks of a day, and 1,000 of the day before; `changed` field -> value of the newest day's n-th row."""
    before = [click(n, NOW - DAY - n * 60_000) for n in range(1000)]
    newest = [click(1000 + n, NOW - n * 60_000, **{k: f(n) for k, f in changed.items()}) for n in range(1000)]
    return before + newest


def clicks_of(settings: Settings) -> Checked:
    (only,) = check_all(settings, ["shop.clicks"], 86_400, NOW)
    return only


def breaches(checked: Checked) -> dict[str, tuple[Level, str]]:
    return {f.promise: (f.level, f.detail) for f in checked.findings if f.level > Level.KEPT}


def test_good_rows_keep_the_contract(settings: Settings, lake: Callable[[Rows], None]) -> None:
    lake(two_days())
    checked = clicks_of(settings)
    assert (checked.rows, checked.level, checked.bad_rows) == (1000, Level.KEPT, 0)
    assert sum(f.level == Level.KEPT for f in checked.findings) == 1 + len(CLICKS.rules)
    assert {f.kind for f in checked.findings if f.level == Level.INSUFFICIENT_DATA} == {"freshness", "volume"}


@pytest.mark.parametrize(
    ("changed", "promise", "level", "detail"),
    [
        ({"price_cents": lambda n: 20_000_000 if n < 3 else 700}, "price_cents from 0 to 10,000,000", Level.BROKEN,
         "0.30% of the rows break it"),
        ({"position": lambda n: 2 if n == 5 else None}, "position only together with request_id", Level.BROKEN,
         "0.10% of the rows break it"),
        ({"country": lambda n: None if n < 300 else "DE"}, "country empty in at most 25% of the rows", Level.WARN,
         "30.0% empty"),
        ({"event_id": lambda n: f"e{n // 2}"}, "event_id repeated in at most 2.0% of the rows", Level.BROKEN,
         "50.00% repeated"),
        ({"item_id": lambda n: "ghost" if n < 5 else "i1"},
         "item_id known in shop.items.item_id for at least 99.9% of the rows", Level.BROKEN, "99.50% known"),
        ({"price_cents": lambda n: 5 + n % 3}, "price_cents spread as in the window before (PSI at most 0.25)",
         Level.WARN, "PSI"),
        ({"device": lambda n: "tablet"}, "device spread as in the window before (PSI at most 0.25)", Level.WARN, "PSI"),
    ],
)  # fmt: skip
def test_each_breach_is_found_and_named(
    settings: Settings, lake: Callable[[Rows], None], changed: dict[str, Any], promise: str, level: Level, detail: str
) -> None:
    lake(two_days(**changed))
    found = breaches(clicks_of(settings))
    assert found[promise][0] == level
    assert detail in found[promise][1]


def test_an_impression_that_repeats_a_product_and_a_table_are_checked(settings: Settings) -> None:
    shown = {"event_id": "x", "event_time": NOW, "user_id": "u", "request_id": "r", "surface": "home",
             "session_id": "s", "country": "DE", "device": "phone"}  # fmt: skip
    put(settings.lake, "shop.impressions", [{**shown, "item_ids": ["a", "b"]},
                                            {**shown, "event_id": "y", "item_ids": ["a", "a"]}])  # fmt: skip
    put(settings.lake, "shop.items", [item(n) for n in range(10)])
    impressions, table = check_all(settings, ["shop.impressions", "item_attributes"], 86_400, NOW)
    assert breaches(impressions) == {"item_ids without repetition": (Level.WARN, "50.00% of the rows break it")}
    assert table.level == Level.INSUFFICIENT_DATA
    assert "was not written yet" in table.findings[0].detail


def test_a_table_of_another_shape_is_broken(settings: Settings, lake: Callable[[Rows], None]) -> None:
    lake(two_days())
    table = settings.home / contracts()["item_attributes"].path
    table.parent.mkdir(parents=True)
    pl.DataFrame({"item_id": ["i1"], "price_cents": [1.5]}).write_parquet(table)
    (checked,) = check_all(settings, ["item_attributes"], 86_400, NOW)
    (schema,) = (f for f in checked.findings if f.kind == "schema")
    assert schema.level == Level.BROKEN
    assert "price_cents: dtype" in schema.detail
    assert "seller_id" in schema.detail


def test_a_column_that_an_import_never_had_is_not_held_against_it(
    settings: Settings, lake: Callable[[Rows], None]
) -> None:
    lake(two_days(country=lambda n: None))
    (settings.lake / "_meta.json").write_text(json.dumps({"missing": {"events.country": "no slices by country"}}))
    checked = clicks_of(settings)
    assert next(f for f in checked.findings if f.promise.startswith("country")).level == Level.INSUFFICIENT_DATA


def test_the_report_the_gauges_and_the_quarantine(settings: Settings, lake: Callable[[Rows], None]) -> None:
    lake(two_days(price_cents=lambda n: 20_000_000 if n < 3 else 700))
    checked = list(check_all(settings, ["shop.clicks", "shop.items"], 86_400, NOW))
    document = report(checked, at_ms=NOW, window_s=86_400, seconds=1.0)
    assert document["verdict"] == "broken"
    assert keep(document, checked, settings) == 3
    with (settings.home / "quarantine" / "contracts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(r["contract"], r["reason"]) for r in rows} == {("shop.clicks", "price_cents from 0 to 10,000,000")}
    assert {r["event_id"] for r in rows} == {"e1000", "e1001", "e1002"}
    assert json.loads((settings.home / "contracts" / "latest.json").read_text()) == document
    text = (settings.metrics / "contracts.prom").read_text()
    samples = {(s.name, *s.labels.values()): s.value for f in text_string_to_metric_families(text) for s in f.samples}
    assert samples["minimart_contract_level", "shop.clicks", "quality"] == 2
    assert samples["minimart_contract_level", "shop.clicks", "volume"] == -1
    assert samples["minimart_contract_bad_rows", "shop.clicks"] == 3
    console = Console(file=StringIO(), width=160)
    show(document, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "broken shop.clicks: price_cents from 0 to 10,000,000: 0.30% of the rows break it" in said


def test_the_exit_status_says_what_was_found(
    settings: Settings, lake: Callable[[Rows], None], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(check_contracts, "load_settings", lambda: settings)
    asked = ["--contract", "shop.clicks", "--now-ms", str(NOW), "--quiet"]
    lake(two_days())
    assert main(asked) == 0
    lake(two_days(country=lambda n: None))
    assert main(asked) == 1
    lake(two_days(price_cents=lambda n: 20_000_000))
    assert main(asked) == 2
    assert capsys.readouterr().out.split("\n")[2].startswith("broken contracts-")
    elsewhere = Settings(home=settings.home / "nothing", _env_file=None)  # type: ignore[call-arg]
    monkeypatch.setattr(check_contracts, "load_settings", lambda: elsewhere)
    assert main(asked) == 3
    assert "there is no lake at" in capsys.readouterr().err


def test_every_topic_of_the_lake_is_checked() -> None:
    assert set(event_lake.events.LAKE_TOPICS) < set(checkable())


@given(st.data())
@examples(max_examples=30, deadline=None)
def test_the_edge_and_the_batch_read_a_rule_alike(data: st.DataObject) -> None:
    number = st.none() | st.integers(-5, 5)
    least, most = sorted(data.draw(st.tuples(st.integers(-4, 4), st.integers(-4, 4))))
    rule: rules.RowRule = data.draw(st.sampled_from([
        rules.Range(field="n", least=least, most=most), rules.Range(field="lines[].n", least=least, most=most),
        rules.Allowed(field="word", values=("a", "b")), rules.Distinct(field="ids"),
        rules.Together(field="n", needs="word"),
    ]))  # fmt: skip
    rows = data.draw(st.lists(st.fixed_dictionaries({
        "n": number, "word": st.none() | st.sampled_from("abc"), "ids": st.lists(st.sampled_from("abc"), max_size=3),
        "lines": st.lists(st.fixed_dictionaries({"n": number}), max_size=3),
    }), min_size=1, max_size=8))  # fmt: skip
    kind = {"n": pl.Int64, "word": pl.String, "ids": pl.List(pl.String), "lines": pl.List(pl.Struct({"n": pl.Int64}))}
    batch = pl.DataFrame(rows, schema=kind).select(broken(rule)).to_series().to_list()
    check = compile_check((rule,), edge_only=False)
    assert batch == [check(_event(row)) is not None for row in rows]


def _event(row: dict[str, Any]) -> Any:
    lines = [type("Line", (), line)() for line in row["lines"]]
    return type("Event", (), {**row, "lines": lines})()


def hours(*counts: int, until: int = NOW // HOUR * HOUR - HOUR) -> Live:
    """Live records by hour, the last count being of the last whole hour; the topic came to life long before."""
    found = {until - HOUR * back: n for back, n in enumerate(reversed(counts))}
    return Live(NOW, found, until - 100 * HOUR)


@pytest.mark.parametrize(
    ("counts", "level"),
    [
        ((10_000, 10_050, 9_950, 10_900), Level.KEPT),
        ((10_000, 10_050, 9_950, 11_200), Level.WARN),
        ((10_000, 10_050, 9_950, 8_700), Level.WARN),
        ((10_000, 10_050, 9_950, 0), Level.WARN),
        ((400, 410, 390, 450), Level.KEPT),  # 12 % more, and no more than chance brings
        ((5_000, 20_000, 10_000, 12_000), Level.KEPT),  # the baseline itself swings
        ((50, 50, 50, 10), Level.INSUFFICIENT_DATA),
        ((10_000, 10_000, 5_000), Level.INSUFFICIENT_DATA),
    ],
)
def test_volume_is_judged_beyond_chance(counts: tuple[int, ...], level: Level) -> None:
    found = volume(CLICKS, hours(*counts), NOW)
    assert found is not None
    assert found.level == level, found.detail


def test_the_hour_in_which_a_topic_came_to_life_is_no_baseline() -> None:
    last = NOW // HOUR * HOUR - HOUR
    live = Live(NOW, {last - 3 * HOUR: 10, last - 2 * HOUR: 1000, last - HOUR: 1000, last: 1000}, last - 3 * HOUR)
    found = volume(CLICKS, live, NOW)
    assert found is not None
    assert found.level == Level.INSUFFICIENT_DATA
    assert "2 whole hours" in found.detail


def test_freshness_counts_from_the_newest_arrival() -> None:
    for age_s, level in ((60, Level.KEPT), (901, Level.BROKEN)):
        found = freshness(CLICKS, Live(NOW - age_s * 1000, {}), NOW)
        assert found is not None
        assert found.level == level
    nothing = freshness(CLICKS, Live(None, {}), NOW)
    assert nothing is not None
    assert nothing.level == Level.INSUFFICIENT_DATA


def test_footers_say_what_came_live(settings: Settings, lake: Callable[[Rows], None]) -> None:
    lake(two_days())  # imported: it did not arrive
    watch = LakeWatch(settings.lake)
    assert watch.look("shop.clicks") == Live(None, {})
    assert newest_event_ms(settings.lake, "shop.clicks") == NOW
    assert newest_event_ms(settings.lake, "shop.carts") is None
    kind = event_lake.schema("shop.clicks")
    hour = NOW // HOUR * HOUR
    for back, first, count in ((1, 0, 5), (1, 5, 2), (0, 7, 3)):
        rows = [{**click(n, hour - back * HOUR), "type": "product_clicked", "version": 1, "_partition": 0,
                 "_offset": first + n, "_arrival": hour - back * HOUR + n} for n in range(count)]  # fmt: skip
        table = pa.Table.from_pylist(rows, schema=kind)
        event_lake.write_part(settings.lake, "shop.clicks", 0, first, first + count - 1, hour - back * HOUR, table)
    expected = Live(hour + 2, {hour - HOUR: 7, hour: 3}, hour - HOUR)
    assert watch.look("shop.clicks") == expected == watch.look("shop.clicks")
    assert event_lake.compact(settings.lake, "shop.clicks", at_least=2) == 2
    assert watch.look("shop.clicks") == expected
