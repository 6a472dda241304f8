"""Judges the rows of the user's files: good ones typed, bad ones into quarantine with their reason. No row is lost.

A row must be readable, and keep the contract of the topic it goes to.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec
import polars as pl

from adapters.errors import BadInput
from feature_repo.contracts.edge import ELEMENT
from feature_repo.contracts.files import contracts
from feature_repo.contracts.rules import Allowed, Range, RowRule
from feature_repo.events import ID_PATTERN, ItemListed, OrderPlaced, ProductAddedToCart, ProductClicked
from pipelines.contract_expressions import broken
from pipelines.import_files import ROW, Quarantine
from pipelines.import_mapping import OPTIONAL, TYPES, Source

EARLIEST: Final = 946_684_800_000  # the year 2000
LATEST_AHEAD: Final = 86_400_000  # a day after now, for clocks and time zones
PER_MS: Final = {"s": 1000.0, "ms": 1.0, "us": 0.001}
MOST_CENTS: Final = 10_000_000_000
DEVICES: Final = ("desktop", "phone", "tablet", "other")
REPEATED: Final = "it repeats an earlier row"
TOPICS: Final = {"click": ProductClicked.topic, "cart": ProductAddedToCart.topic, "order": OrderPlaced.topic}
TYPED: Final = {"price_cents": "price_cents", "quantity": "quantity_n", "country": "country", "device": "device",
                "stock": "stock_n"}  # fmt: skip
"""Fields of the contracts, and the typed columns in which an import has them."""
Rules = list[tuple[str, pl.Expr]]  # why a row is bad, and whether it is


def check_items(file: str, frame: pl.DataFrame, source: Source, now_ms: int, quarantine: Quarantine) -> pl.DataFrame:
    """Typed items: item_id, title, category, price_cents, seller_id, listed_at (ms), stock, adult, promoted."""
    frame = _complete(frame, "items")
    unit = _time_unit(frame["listed_at"], source.time_unit)
    typed = frame.with_columns(
        _cents(source.price_unit), _time("listed_at", unit).alias("time_ms"),
        _number("stock").alias("stock_n"), *(_flag(name) for name in ("adult", "promoted")),
    )  # fmt: skip
    in_range = pl.col("time_ms").is_between(EARLIEST, now_ms + LATEST_AHEAD)
    rules: Rules = [
        *_id_rules("item_id"), *_price_rules(), _label_rule("title", 200), _label_rule("category", 64),
        ("seller_id is not a valid id", _bad_id("seller_id")),
        (f"listed_at is not a time (read as {unit})", _unless("listed_at", in_range)),
        ("stock is not a whole number from 0", _unless("stock", pl.col("stock_n").is_between(0, 1_000_000_000))),
        *_contract_rules(ItemListed.topic),
        ("item_id came before in this file", ~pl.col("item_id").is_first_distinct()),
    ]  # fmt: skip
    return _sort_out(file, frame, typed, rules, quarantine).select(
        "item_id", "title", "category", "price_cents", "seller_id", pl.col("time_ms").alias("listed_at"),
        pl.col("stock_n").alias("stock"), pl.col("adult_flag").alias("adult"),
        pl.col("promoted_flag").alias("promoted"),
    )  # fmt: skip


def check_events(
    file: str, frame: pl.DataFrame, source: Source, known: pl.Series | None, now_ms: int, quarantine: Quarantine
) -> pl.DataFrame:
    """Typed events: user_id, item_id, time_ms, kind, price_cents, quantity, session_id, country, device.

    `known` are the items of the items file; an event of another item is quarantined. Raises BadInput when more than
    half of the rows are bad: then the file, or how it is read, is wrong.
    """
    frame = _complete(frame, "events")
    unit = _time_unit(frame["time"], source.time_unit)
    kinds = {t: t for t in TYPES} | dict(source.types)
    typed = frame.with_columns(
        _time("time", unit).alias("time_ms"), _cents(source.price_unit), _number("quantity").alias("quantity_n"),
        pl.when(pl.col("type").is_null()).then(pl.lit(source.type)).otherwise(
            pl.col("type").replace_strict(kinds, default=None, return_dtype=pl.String)).alias("kind"),
    )  # fmt: skip
    unknown = pl.lit(False) if known is None else ~pl.col("item_id").is_in(known.implode())
    read_as = "an ISO 8601 time" if unit == "iso" else f"a number of {unit}"
    in_range = pl.col("time_ms").is_between(EARLIEST, now_ms + LATEST_AHEAD)
    rules: Rules = [
        *_id_rules("user_id"), *_id_rules("item_id"), ("time is missing", pl.col("time").is_null()),
        (f"time is not {read_as}", pl.col("time_ms").is_null()),
        (f"time is not between 2000 and now (read as {unit})", ~in_range),
        (f"type is none of {', '.join(kinds)}", pl.col("kind").is_null()), *_price_rules(),
        ("quantity is not a whole number from 1", _unless("quantity", pl.col("quantity_n").is_between(1, 10_000))),
        ("session_id is not a valid id", _bad_id("session_id")),
        ("country is not two capital letters", _unless("country", pl.col("country").str.contains("^[A-Z]{2}$"))),
        (f"device is none of {', '.join(DEVICES)}", _unless("device", pl.col("device").is_in(DEVICES))),
        *(rule for kind, topic in TOPICS.items() for rule in _contract_rules(topic, pl.col("kind") == kind)),
        ("item_id is not in the items file", unknown),
        (REPEATED, ~pl.struct("user_id", "item_id", "time_ms", "kind").is_first_distinct()),
    ]  # fmt: skip
    good = _sort_out(file, frame, typed, rules, quarantine)
    _refuse_if_unusable(file, typed.height, good.height, quarantine)
    return good.select(
        "user_id", "item_id", "time_ms", "kind", "price_cents", pl.col("quantity_n").fill_null(1).alias("quantity"),
        "session_id", "country", "device",
    )  # fmt: skip


def _refuse_if_unusable(file: str, rows: int, good: int, quarantine: Quarantine) -> None:
    bad = [r for r in quarantine.rows if r["file"] == file and r["reason"] != REPEATED]
    if good and len(bad) <= rows // 2:
        return
    reason, count = Counter(r["reason"] for r in bad).most_common(1)[0] if bad else ("no rows", 0)
    first = next((r for r in bad if r["reason"] == reason), {"row": None, "values": None})
    raise BadInput(
        f"{file}: {len(bad):,} of {rows:,} rows cannot be used, most ({count:,}) because {reason}; for example row "
        f"{first['row']}: {first['values']}. Mend the file, or say in the mapping how it is to be read "
        "(columns, separator, time_unit, types)", field=reason.split(" ", 1)[0],
    )  # fmt: skip


def _sort_out(
    file: str, raw: pl.DataFrame, typed: pl.DataFrame, rules: Rules, quarantine: Quarantine
) -> pl.DataFrame:
    """The rows that break no rule; the others go to quarantine under the first rule they break."""
    reason = pl.coalesce([pl.when(broken).then(pl.lit(why)) for why, broken in rules])
    judged = typed.with_columns(reason.alias("_reason"))
    bad = judged["_reason"].is_not_null()
    for values, why in zip(raw.filter(bad).iter_rows(named=True), judged.filter(bad)["_reason"], strict=True):
        row = values.pop(ROW)
        quarantine.add(file, row, why, {k: v for k, v in values.items() if v is not None})
    return judged.filter(~bad)


def _complete(frame: pl.DataFrame, kind: str) -> pl.DataFrame:
    return frame.with_columns(pl.lit(None, pl.String).alias(c) for c in OPTIONAL[kind] if c not in frame.columns)


def _time_unit(values: pl.Series, asked: str) -> str:
    """The unit that was asked for; for `auto` by the size of the numbers, or ISO text when they are none."""
    if asked != "auto":
        return asked
    middle = values.cast(pl.Float64, strict=False).median()
    if not isinstance(middle, float):
        return "iso"
    return "s" if middle < 1e11 else "ms" if middle < 1e14 else "us"


def _time(name: str, unit: str) -> pl.Expr:
    if unit == "iso":
        return pl.col(name).str.to_datetime(time_unit="ms", time_zone="UTC", strict=False).dt.epoch("ms")
    number = pl.col(name).cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then((number * PER_MS[unit]).clip(-1e15, 1e15).cast(pl.Int64, strict=False))


def _number(name: str) -> pl.Expr:
    number = pl.col(name).cast(pl.Float64, strict=False)
    return pl.when(number == number.floor()).then(number.clip(-1e15, 1e15).cast(pl.Int64, strict=False))


def _cents(unit: str) -> pl.Expr:
    number = pl.col("price").cast(pl.Float64, strict=False) * (100 if unit == "major" else 1)
    return pl.when(number.is_finite()).then(number.clip(-1e15, 1e15).round().cast(pl.Int64)).alias("price_cents")


def _flag(name: str) -> pl.Expr:
    return pl.col(name).str.to_lowercase().is_in(["1", "true", "yes", "t", "y"]).alias(f"{name}_flag")


def _unless(name: str, good: pl.Expr) -> pl.Expr:
    """Whether the column says something and it is not good."""
    return pl.col(name).is_not_null() & ~good.fill_null(False)


def _bad_id(name: str) -> pl.Expr:
    return _unless(name, pl.col(name).str.contains(ID_PATTERN))


def _id_rules(name: str) -> Rules:
    return [
        (f"{name} is missing", pl.col(name).is_null()),
        (f"{name} is not 1-64 of letters, digits and _.:-", _bad_id(name)),
    ]


def _price_rules() -> Rules:
    return [("price is not a number from 0", _unless("price", pl.col("price_cents").is_between(0, MOST_CENTS)))]


def _contract_rules(topic: str, where: pl.Expr | None = None) -> Rules:
    """What a topic's contract asks of every row, as far as an import has the field; `where`: of these rows only."""
    of = {rule: rule.fields[0].rpartition(ELEMENT)[2] for rule in contracts()[topic].row_rules if rule.edge}
    where = pl.lit(True) if where is None else where
    return [(f"{rule.text} (contract {topic})", where & broken(_of_column(rule, TYPED[name])))
            for rule, name in of.items() if name in TYPED and isinstance(rule, Range | Allowed)]  # fmt: skip


def _of_column(rule: Range | Allowed, column: str) -> RowRule:
    """The same rule of another column."""
    return msgspec.structs.replace(rule, field=column)


def _label_rule(name: str, most: int) -> tuple[str, pl.Expr]:
    good = (pl.col(name).str.len_chars() <= most) & ~pl.col(name).str.contains(r"[\x00-\x1f\x7f]")
    return f"{name} is longer than {most} or has control characters", _unless(name, good)
