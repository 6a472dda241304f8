"""Brings your own catalogue and events into the lake, in the layout of a simulated history.

Reads `--data FOLDER` (default MINIMART_DATA): events, and items if there are any; docs/data.md is the contract. Writes
the lake and `quarantine/import.csv` (every row not taken, with its reason), and says what each missing column costs.
Run: `python -m pipelines.import_data --data FOLDER [--mapping FILE] [--force]`.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa

from adapters.errors import BadInput, MinimartError, Misconfigured
from feature_repo import events
from pipelines import import_rows
from pipelines.history_lake import read_meta, write_history
from pipelines.import_files import Quarantine, read
from pipelines.import_mapping import NEVER_THERE, OPTIONAL, Plan, find_plan
from settings import Settings, load_settings

LEAST_ITEMS: Final = 20  # a feed has 20 distinct items
MOST_LINES: Final = 100
UNCATEGORISED: Final = "uncategorised"
TOPICS: Final = import_rows.TOPICS | {"item": events.ItemListed.topic}


def main() -> None:
    parser = argparse.ArgumentParser(description="Bring your own items and events into the lake.")
    parser.add_argument("--data", type=Path, help="folder with your files (default: MINIMART_DATA)")
    parser.add_argument("--mapping", type=Path, help="how your columns are named (default: MINIMART_MAPPING)")
    parser.add_argument("--force", action="store_true", help="replace the history that the lake already holds")
    asked = parser.parse_args()
    settings = load_settings()
    folder = asked.data or settings.data
    try:
        if folder is None:
            raise BadInput("no folder was given: use --data FOLDER or MINIMART_DATA", field="data")
        import_data(settings, folder, asked.mapping or settings.mapping, force=asked.force)
    except MinimartError as error:
        raise SystemExit(f"import_data: {error.detail}") from None


def import_data(
    settings: Settings, folder: Path, mapping: Path | None = None, *, force: bool = False
) -> dict[str, Any]:
    """Import and return `_meta.json`. Raises BadInput on unusable files, Misconfigured over another history."""
    began = time.monotonic()

    def said(line: str) -> None:
        print(f"import: {line} ({time.monotonic() - began:.1f} s)", flush=True)

    plan = find_plan(folder, mapping)
    version = _digest(folder, plan)
    there = read_meta(settings.lake)
    if there and not force:
        if there["data_version"] == version:
            said(f"already in {settings.lake} as of {there['as_of_ms']}")
            return there
        raise Misconfigured(
            f"{settings.lake} holds another history ({there.get('source')}); replace it with --force, or drop all data "
            "with `make reset`"
        )
    said(f"columns by {plan.origin}")
    quarantine, now_ms = Quarantine(), int(time.time() * 1000)
    rejected = settings.home / "quarantine" / "import.csv"
    try:
        items, rows = checked(folder, plan, now_ms, quarantine)
    finally:
        quarantine.write(rejected)
    for reason, count in quarantine.counts().items():
        said(f"quarantined {count:,} rows of {reason}")
    if quarantine.rows:
        said(f"see {rejected}")
    missing = _missing(folder, plan)
    for column, cost in missing.items():
        said(f"no {column}: {cost}")
    catalogue = catalogue_of(items, rows)
    tables = _tables(catalogue, rows, version[:8])
    newest = int(rows["time_ms"].max())  # type: ignore[arg-type]
    meta = {
        "source": "import", "data_version": version, "as_of_ms": newest, "missing": missing,
        "rows": {"taken": rows.height, "quarantined": quarantine.counts()},
    }  # fmt: skip
    return write_history(settings.lake, tables, meta, said)


def checked(folder: Path, plan: Plan, now_ms: int, quarantine: Quarantine) -> tuple[pl.DataFrame | None, pl.DataFrame]:
    items = None
    if plan.items is not None:
        raw = read(folder, "items", plan.items, quarantine)
        items = import_rows.check_items(plan.items.file, raw, plan.items, now_ms, quarantine)
    raw = read(folder, "events", plan.events, quarantine)
    known = items["item_id"] if items is not None else None
    rows = import_rows.check_events(plan.events.file, raw, plan.events, known, now_ms, quarantine)
    count = items.height if items is not None else rows["item_id"].n_unique()
    if count < LEAST_ITEMS:
        raise BadInput(f"{count} items can be used; a feed needs at least {LEAST_ITEMS}", field="item_id")
    return items, rows


def _missing(folder: Path, plan: Plan) -> dict[str, str]:
    """Column -> what it costs that it is not there."""
    missing = dict(NEVER_THERE)
    for kind, source in (("events", plan.events), ("items", plan.items)):
        there = set() if source is None else set(read(folder, kind, source, Quarantine()).columns)
        missing |= {f"{kind}.{column}": cost for column, cost in OPTIONAL[kind].items() if column not in there}
    return missing


def catalogue_of(items: pl.DataFrame | None, rows: pl.DataFrame) -> pl.DataFrame:
    """Every item complete: derived titles, `uncategorised`, price 0 for unknown, listed at its first event."""
    first = rows.group_by("item_id").agg(pl.col("time_ms").min().alias("first"))
    if items is None:
        empty = {"title": pl.String, "category": pl.String, "price_cents": pl.Int64, "seller_id": pl.String,
                 "listed_at": pl.Int64, "stock": pl.Int64, "adult": pl.Boolean, "promoted": pl.Boolean}  # fmt: skip
        items = first.select("item_id", *(pl.lit(None, kind).alias(name) for name, kind in empty.items()))
    paid = rows.filter(pl.col("price_cents").is_not_null()).sort("time_ms").group_by("item_id").agg(
        pl.col("price_cents").last().alias("paid")
    )  # fmt: skip
    number = pl.col("category").str.contains(r"^\d+$")
    category = pl.when(number).then(pl.format("category {}", "category")).otherwise(pl.col("category"))
    return (
        items.join(first, on="item_id", how="left").join(paid, on="item_id", how="left").sort("item_id")
        .with_columns(category=category.fill_null(UNCATEGORISED))
        .with_columns(
            title=pl.coalesce("title", pl.format("Item {} ({})", "item_id", "category")),
            price_cents=pl.coalesce("price_cents", "paid", pl.lit(0)),
            seller_id=pl.col("seller_id").fill_null("seller-unknown"),
            listed_at=pl.min_horizontal(pl.coalesce("listed_at", "first", pl.lit(rows["time_ms"].min())), "first"),
            stock=pl.col("stock").fill_null(1_000_000), adult=pl.col("adult").fill_null(False),
            promoted=pl.col("promoted").fill_null(False),
        )
    )  # fmt: skip


def _tables(catalogue: pl.DataFrame, rows: pl.DataFrame, tag: str) -> dict[str, pa.Table]:
    """The events of each topic as Arrow tables. Purchases of one shopper at one time are one order."""
    seen = catalogue.select("item_id", "category", pl.col("price_cents").alias("listed_price"))
    rows = rows.join(seen, on="item_id", how="left", maintain_order="left").with_columns(
        pl.coalesce("price_cents", "listed_price").alias("price_cents"), pl.col("time_ms").alias("event_time")
    )  # fmt: skip
    person = ("event_time", "user_id", "session_id", "country", "device")
    product = ("item_id", "category", "price_cents")
    orders = rows.filter(kind="order").with_columns(
        (pl.int_range(pl.len()).over("user_id", "event_time") // MOST_LINES).alias("_part")
    ).group_by("user_id", "event_time", "_part", maintain_order=True).agg(
        pl.col("session_id", "country", "device").first(), pl.struct(*product, "quantity").alias("lines"),
    )  # fmt: skip
    listed = catalogue.drop("first", "paid").with_columns(event_time=pl.col("listed_at"))
    made = {
        "click": rows.filter(kind="click").select(*person, *product),
        "cart": rows.filter(kind="cart").select(*person, *product, "quantity"),
        "order": orders.select(*person, "lines", _numbered(f"o-{tag}").alias("order_id")),
        "item": listed,
    }
    return {
        TOPICS[kind]: frame.with_columns(_numbered(f"{kind}-{tag}").alias("event_id")).to_arrow()
        for kind, frame in made.items()
    }


def _numbered(prefix: str) -> pl.Expr:
    return pl.format(f"{prefix}-{{}}", pl.int_range(pl.len()))


def _digest(folder: Path, plan: Plan) -> str:
    sha = hashlib.sha256(repr((plan.events, plan.items)).encode())
    for source in (plan.events, plan.items):
        if source is not None:
            with (folder / source.file).open("rb") as file:
                sha.update(hashlib.file_digest(file, "sha256").digest())
    return sha.hexdigest()


if __name__ == "__main__":
    main()
