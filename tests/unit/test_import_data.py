"""Bringing one's own data: what is taken, what goes to quarantine and why, and what is refused with which fix."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from adapters import event_lake
from adapters.catalogue import newest_states
from adapters.errors import BadInput, Misconfigured
from pipelines.import_data import import_data
from pipelines.import_mapping import EXAMPLES, OPTIONAL, PRICE_UNITS, REQUIRED, TIME_UNITS, TYPES, find_plan
from settings import Settings

START = 1_400_000_000  # Unix seconds


def write(path: Path, rows: list[list[Any]], separator: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in rows))


def clicks(count: int = 60) -> list[list[Any]]:
    header: list[Any] = ["user_id", "item_id", "time"]
    return [header, *([f"u{n % 7}", f"i{n % 25}", START + 60 * n] for n in range(count))]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", _env_file=None)  # type: ignore[call-arg]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def quarantined(settings: Settings) -> list[dict[str, str]]:
    with (settings.home / "quarantine" / "import.csv").open() as file:
        return list(csv.DictReader(file))


def test_three_columns_are_enough(settings: Settings, folder: Path) -> None:
    write(folder / "events.csv", clicks())
    meta = import_data(settings, folder)
    assert meta["counts"] == {"shop.clicks": 60, "shop.carts": 0, "shop.orders": 0, "shop.items": 25}
    assert meta["as_of_ms"] == (START + 60 * 59) * 1000
    assert meta["source"] == "import"
    assert {"impressions", "events.price", "items.title", "items.category"} <= meta["missing"].keys()
    item = next(s for s in newest_states(settings.lake) if s.item_id == "i3")
    assert (item.title, item.category, item.price_cents) == ("Item i3 (uncategorised)", "uncategorised", 0)
    assert item.listed_at == (START + 180) * 1000
    assert not (settings.home / "quarantine" / "import.csv").exists()


def test_purchases_shaped_like_the_grocery_data(settings: Settings, folder: Path) -> None:
    rows: list[list[Any]] = [["user_id", "item_id", "time"]]
    rows += [[n % 6, n % 24 + 1, 965_779_200 + 86_400 * (n // 12)] for n in range(96)]
    write(folder / "train.csv", rows, "\t")
    meta_rows: list[list[Any]] = [["item_id", "i_category", "r_complement", "r_substitute"]]
    write(folder / "item_meta.csv", meta_rows + [[n, n % 3, "[1, 2]", "[]"] for n in range(1, 31)], "\t")
    assert find_plan(folder, None).origin == str(EXAMPLES / "amazon_grocery.toml")
    meta = import_data(settings, folder)
    orders = event_lake.scan(settings.lake, "shop.orders").to_pylist()
    assert sum(len(o["lines"]) for o in orders) == 96
    assert len({(o["user_id"], o["event_time"]) for o in orders}) == len(orders) == meta["counts"]["shop.orders"]
    assert orders[0]["lines"][0]["price_cents"] == 0
    assert meta["counts"]["shop.items"] == 30
    titles = {s.title for s in newest_states(settings.lake)}
    assert "Item 7 (category 1)" in titles


def test_everything_that_can_be_said_is_taken(settings: Settings, folder: Path) -> None:
    items: list[list[Any]] = [
        ["sku", "title", "category", "price", "seller_id", "listed_at", "stock", "adult", "promoted"]
    ]
    items += [[f"i{n}", f"Thing {n}", "Toys", 12.34, "shop", "2014-05-01T00:00:00Z", n, "no", "yes"] for n in range(25)]
    write(folder / "goods.csv", items, ";")
    rows: list[list[Any]] = [["who", "what", "when", "did", "paid", "n", "visit", "land", "device"]]
    did = ["view", "basket", "buy"]
    rows += [[f"u{n}", f"i{n % 25}", START * 1000 + n, did[n % 3], 999, 2, f"s{n}", "DE", "phone"] for n in range(75)]
    write(folder / "log.tsv", rows, "\t")
    (folder / "mapping.toml").write_text(
        """
        [events]
        file = "log.tsv"
        time_unit = "ms"
        price_unit = "cents"
        types = {view = "click", basket = "cart", buy = "order"}
        [events.columns]
        user_id = "who"
        item_id = "what"
        time = "when"
        type = "did"
        price = "paid"
        quantity = "n"
        session_id = "visit"
        country = "land"
        [items]
        file = "goods.csv"
        separator = ";"
        [items.columns]
        item_id = "sku"
        """
    )
    meta = import_data(settings, folder)
    assert meta["missing"].keys() == {"impressions"}
    assert [meta["counts"][t] for t in ("shop.clicks", "shop.carts", "shop.orders")] == [25, 25, 25]
    cart = event_lake.scan(settings.lake, "shop.carts").to_pylist()[0]
    assert (cart["price_cents"], cart["quantity"], cart["session_id"]) == (999, 2, "s1")
    assert (cart["country"], cart["device"], cart["category"]) == ("DE", "phone", "Toys")
    item = next(s for s in newest_states(settings.lake) if s.item_id == "i4")
    assert (item.price_cents, item.stock, item.promoted, item.adult) == (1234, 4, True, False)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["", "i1", START], "user_id is missing"),
        (["u 1", "i1", START], "user_id is not 1-64"),
        (["u1", "", START], "item_id is missing"),
        (["u1", "i1", ""], "time is missing"),
        (["u1", "i1", "yesterday"], "time is not a number of s"),
        (["u1", "i1", "nan"], "time is not a number of s"),
        (["u1", "i1", -5], "time is not between 2000 and now"),
        (["u1", "i1", 9e15], "time is not between 2000 and now"),
        (["u1", "i1", START, "surplus"], "it has 4 fields, the header has 3"),
        (["u1", "i1"], "it has 2 fields, the header has 3"),
        (["u0", "i0", START], "it repeats an earlier row"),
    ],
)
def test_a_bad_row_is_quarantined_with_its_reason(
    row: list[Any], reason: str, settings: Settings, folder: Path
) -> None:
    rows = clicks()
    write(folder / "events.csv", [*rows[:31], row, *rows[31:]])
    meta = import_data(settings, folder)
    assert meta["counts"]["shop.clicks"] == 60
    (found,) = quarantined(settings)
    assert reason in found["reason"]
    assert (found["file"], found["row"]) == ("events.csv", "32")
    assert list(meta["rows"]["quarantined"].values()) == [1]


def test_no_row_is_lost(settings: Settings, folder: Path) -> None:
    rows = clicks(200)
    for n in range(1, 200, 7):
        rows[n][n % 3] = "\x01"
    write(folder / "events.csv", rows)
    meta = import_data(settings, folder)
    assert meta["rows"]["taken"] + sum(meta["rows"]["quarantined"].values()) == 200


def test_events_of_items_that_are_not_listed_are_quarantined(settings: Settings, folder: Path) -> None:
    write(folder / "events.csv", clicks())
    write(folder / "items.csv", [["item_id", "price"], *([f"i{n}", n] for n in range(22)), ["i1", 5], ["bad", -1]])
    counts = import_data(settings, folder)["rows"]["quarantined"]
    assert counts == {
        "events.csv: item_id is not in the items file": 6,
        "items.csv: item_id came before in this file": 1,
        "items.csv: price is not a number from 0": 1,
    }


@pytest.mark.parametrize("kind", ["int", "timestamp"])
def test_parquet_is_read_by_its_types(kind: str, settings: Settings, folder: Path) -> None:
    folder.mkdir()
    rows = clicks()[1:]
    time = pa.array([r[2] * 1_000_000 for r in rows])
    table = pa.table({
        "user_id": [int(r[0][1:]) for r in rows], "item_id": [float(r[1][1:]) for r in rows],
        "time": time.cast(pa.timestamp("us")) if kind == "timestamp" else time,
    })  # fmt: skip
    pq.write_table(table, folder / "events.parquet")
    assert import_data(settings, folder)["as_of_ms"] == rows[-1][2] * 1000
    assert {s.item_id for s in newest_states(settings.lake)} == {str(n) for n in range(25)}


@pytest.mark.parametrize(
    ("rows", "field", "says"),
    [
        ([["user_id", "item_id"], ["u", "i"]], "time", "(our time) is not there; its columns are: user_id, item_id"),
        ([["user_id", "item_id", "time"]], "file", "it has no rows"),
        ([["user_id", "item_id", "time"], ["u", "i", START]], "item_id", "1 items can be used; a feed needs at least"),
        ([*clicks(0), *[["u", f"i{n}", "soon"] for n in range(30)]], "time", "30 of 30 rows cannot be used"),
    ],
)  # fmt: skip
def test_an_unusable_file_is_refused(
    rows: list[list[Any]], field: str, says: str, settings: Settings, folder: Path
) -> None:
    write(folder / "events.csv", rows)
    with pytest.raises(BadInput) as refused:
        import_data(settings, folder)
    assert says in refused.value.detail
    assert refused.value.field == field
    assert not (settings.lake / "_meta.json").exists()


def test_the_wrong_unit_is_told_with_an_example(settings: Settings, folder: Path) -> None:
    write(folder / "events.csv", clicks())
    (folder / "mapping.toml").write_text('[events]\nfile = "events.csv"\ntime_unit = "ms"\n')
    with pytest.raises(BadInput, match=r"read as ms.*row 2.*time_unit"):
        import_data(settings, folder)
    assert len(quarantined(settings)) == 60, "the rows can be looked at even when the file is refused"


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ("[events", "not TOML"), ("[items]\nfile='a'", "[events] is missing"),
        ("[event]\nfile='a'", "[event] is unknown"),
        ("[events]\ncolumns={}", "`file`"), ("[events]\nfile='nope.csv'", "is not in"),
        ("[events]\nfile='events.csv'\nunit='s'", "unit is unknown; allowed: columns"),
        ("[events]\nfile='events.csv'\ntime_unit='weeks'", "time_unit = 'weeks'; allowed: auto, s, ms, us, iso"),
        ("[events]\nfile='events.csv'\nseparator='||'", "one character"),
        ("[events]\nfile='events.csv'\n[events.columns]\nuser='u'", "columns.user is unknown; allowed: country"),
        ("[events]\nfile='events.csv'\n[events.types]\nview='look'", "types.view = 'look'; allowed: click, cart"),
    ],
)  # fmt: skip
def test_a_wrong_mapping_names_its_key(mapping: str, says: str, folder: Path, tmp_path: Path) -> None:
    write(folder / "events.csv", clicks())
    path = tmp_path / "my.toml"
    path.write_text(mapping)
    with pytest.raises(BadInput) as refused:
        find_plan(folder, path)
    assert says in refused.value.detail


def test_folders_without_events_are_refused(folder: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        find_plan(folder, None)
    write(folder / "sales.csv", clicks())
    with pytest.raises(BadInput, match=r"it has: sales\.csv"):
        find_plan(folder, None)


def test_text_that_is_not_utf8_is_refused_or_read_as_told(settings: Settings, folder: Path) -> None:
    write(folder / "events.csv", clicks())
    items = "item_id,title\n" + "".join(f"i{n},Café {n}\n" for n in range(25))
    (folder / "items.csv").write_bytes(items.encode("latin-1"))
    with pytest.raises(BadInput, match="encoding"):
        import_data(settings, folder)
    (folder / "mapping.toml").write_text(
        '[events]\nfile = "events.csv"\n[items]\nfile = "items.csv"\nencoding = "latin-1"\n'
    )
    import_data(settings, folder)
    assert "Café 3" in {s.title for s in newest_states(settings.lake)}


def test_importing_again_changes_nothing_and_other_data_is_refused(settings: Settings, folder: Path) -> None:
    write(folder / "events.csv", clicks())
    first = import_data(settings, folder)
    assert import_data(settings, folder) == first
    write(folder / "events.csv", clicks(70))
    with pytest.raises(Misconfigured, match="another history"):
        import_data(settings, folder)
    assert import_data(settings, folder, force=True)["counts"]["shop.clicks"] == 70
    assert event_lake.scan(settings.lake, "shop.clicks").num_rows == 70
    assert json.loads((settings.lake / "_meta.json").read_text())["data_version"] != first["data_version"]


def test_the_page_about_data_names_every_column_and_choice() -> None:
    page = (EXAMPLES.parent / "data.md").read_text()
    for kind in REQUIRED:
        for column in (*REQUIRED[kind], *OPTIONAL[kind]):
            assert f"`{column}`" in page, column
    for choice in (*TIME_UNITS, *PRICE_UNITS, *TYPES):
        assert choice in page, choice


def test_a_file_from_a_spreadsheet_is_read(settings: Settings, folder: Path) -> None:
    rows = "\r\n".join(",".join(f'"{cell}"' for cell in row) for row in clicks())
    folder.mkdir()
    (folder / "events.csv").write_bytes(b"\xef\xbb\xbf" + rows.encode())
    assert import_data(settings, folder)["counts"]["shop.clicks"] == 60


def test_an_empty_file_is_refused(settings: Settings, folder: Path) -> None:
    write(folder / "events.csv", [])
    with pytest.raises(BadInput, match=r"events\.csv"):
        import_data(settings, folder)


cells = st.text(st.characters(exclude_characters='\r\n"', exclude_categories=("Cs",)), max_size=12)


@given(st.lists(st.lists(cells, min_size=1, max_size=4), max_size=12))
@hypothesis_settings(max_examples=40, deadline=None)
def test_whatever_the_rows_are_none_is_lost(rows: list[list[str]]) -> None:
    with TemporaryDirectory() as home:
        folder = Path(home) / "data"
        kept = [row for row in rows if any(row)]  # a line of nothing is no row
        write(folder / "events.csv", [*clicks(), *kept])
        meta = import_data(Settings(home=Path(home) / "home", _env_file=None), folder)  # type: ignore[call-arg]
        assert meta["rows"]["taken"] + sum(meta["rows"]["quarantined"].values()) == 60 + len(kept)


def test_rows_that_break_a_contract_are_quarantined_with_its_words(settings: Settings, folder: Path) -> None:
    rows = clicks()
    rows[0] += ["price", "type"]
    for n, row in enumerate(rows[1:]):
        row += [250_000 if n in (3, 7) else 9.99, "order" if n % 2 else "click"]
    write(folder / "events.csv", rows)
    meta = import_data(settings, folder)
    assert meta["rows"] == {
        "taken": 58,
        "quarantined": {"events.csv: lines[].price_cents from 0 to 10,000,000 (contract shop.orders)": 2},
    }
    assert [row["row"] for row in quarantined(settings)] == ["5", "9"]
