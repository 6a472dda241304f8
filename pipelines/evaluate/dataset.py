"""Any data as sequences of items: a folder in the import contract, or a text file with `user item item ...` a line."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from adapters.errors import BadInput
from models.recommenders.base import Catalogue, Ints, Sequences
from pipelines.import_data import UNCATEGORISED, catalogue_of, checked
from pipelines.import_files import Quarantine
from pipelines.import_mapping import find_plan

_DERIVED = r"^Item \S+ \("  # titles that the import makes up


@dataclass(frozen=True)
class Dataset:
    """One sequence per user in order of time, and the catalogue; `notes` say what loading did."""

    sequences: Sequences
    catalogue: Catalogue
    notes: dict[str, int | str]
    version: str

    @property
    def has_times(self) -> bool:
        return self.sequences.time_ms is not None


def load(path: Path) -> Dataset:
    """Read `path`. Raises BadInput that says what is wrong, where, and the fix."""
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _text(path)
    raise BadInput(f"--data {path}: there is no such file or folder", field="data")


def _folder(folder: Path) -> Dataset:
    plan, quarantine = find_plan(folder, None), Quarantine()
    items, rows = checked(folder, plan, int(time.time() * 1000), quarantine)
    known = catalogue_of(items, rows).sort("item_id")
    place = pl.DataFrame({"item_id": known["item_id"], "row": np.arange(known.height)})
    rows = rows.join(place, on="item_id", how="inner", maintain_order="left")
    users, user = np.unique(rows["user_id"].to_numpy(), return_inverse=True)
    item, when = rows["row"].to_numpy().astype(np.int64), rows["time_ms"].to_numpy().astype(np.int64)
    order = np.lexsort((np.arange(len(user)), when, user))  # events of one moment stay in the order of the file
    user, item, when = user[order], item[order], when[order]
    same_moment = int(np.sum((user[1:] == user[:-1]) & (when[1:] == when[:-1])))
    notes: dict[str, int | str] = {
        "quarantined": sum(quarantine.counts().values()), "events_at_the_moment_of_the_one_before": same_moment,
        "columns_by": plan.origin if "/" not in plan.origin else Path(plan.origin).name,
    }  # fmt: skip
    return _made(len(users), user, item, when, _described(known), notes)


def _described(known: pl.DataFrame) -> Catalogue:
    category, price = known["category"], known["price_cents"].to_numpy().astype(np.float64)
    codes = None
    if category.n_unique() > 1:
        codes = np.unique(category.fill_null(UNCATEGORISED).to_numpy(), return_inverse=True)[1].astype(np.int64)
    priced = price > 0
    log_price = np.where(priced, np.log1p(price), np.nan).astype(np.float32) if priced.any() else None
    derived = known["title"].str.contains(_DERIVED).all()
    return Catalogue(known.height, codes, log_price, None if derived else known["title"].to_list())


def _text(path: Path) -> Dataset:
    with path.open(encoding="utf-8", errors="strict") as file:
        try:
            parsed = list(_lines(path, file))
        except UnicodeDecodeError as error:
            raise BadInput(
                f"{path}: not UTF-8 text ({error.reason}); give a text file with `user item item ...` a line, or a "
                "folder with events.csv (docs/data.md)", field="data",
            ) from None  # fmt: skip
    if not parsed:
        raise BadInput(f"{path}: it has no lines; each is `user item item ...` in order of time", field="data")
    names, codes = np.unique(np.array([item for _, items in parsed for item in items]), return_inverse=True)
    user = np.repeat(np.arange(len(parsed)), [len(items) for _, items in parsed])
    return _made(len(parsed), user, codes.astype(np.int64), None, Catalogue(len(names)), {})


def _lines(path: Path, file: Iterable[str]) -> Iterable[tuple[str, list[str]]]:
    seen: dict[str, int] = {}
    for number, line in enumerate(file, start=1):
        fields = line.replace("\t", " ").split()
        if not fields:
            continue
        if len(fields) < 2 or "," in line:
            raise BadInput(
                f"{path}: line {number} is {line.strip()[:60]!r}; a line is `user item item ...` in order of time, "
                "separated by spaces or tabs. A table of events belongs into a folder as events.csv (docs/data.md)",
                field="data",
            )  # fmt: skip
        if fields[0] in seen:
            raise BadInput(
                f"{path}: line {number} is about user {fields[0]!r} as line {seen[fields[0]]} was; put all items of a "
                "user on one line, or give a folder with events.csv (docs/data.md)", field="data",
            )  # fmt: skip
        seen[fields[0]] = number
        yield fields[0], fields[1:]


def _made(
    n_users: int, user: Ints, item: Ints, when: Ints | None, catalogue: Catalogue, notes: dict[str, int | str]
) -> Dataset:
    """Sequences without immediate repetitions: a click, a cart and an order of one item are one interaction."""
    again = np.zeros(len(item), dtype=bool)
    again[1:] = (item[1:] == item[:-1]) & (user[1:] == user[:-1])
    user, item, when = user[~again], item[~again], None if when is None else when[~again]
    starts = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=n_users))])
    sequences = Sequences(starts.astype(np.int64), item, when)
    counts = {
        "users": n_users, "items": catalogue.n_items, "interactions": len(item),
        "immediate_repetitions_dropped": int(again.sum()),
        "repeated_pairs_kept": len(item) - len(np.unique(user.astype(np.int64) * catalogue.n_items + item)),
    }  # fmt: skip
    digest = hashlib.sha256(starts.tobytes() + item.tobytes() + (b"" if when is None else when.tobytes()))
    return Dataset(sequences, catalogue, {**counts, **notes}, digest.hexdigest())
