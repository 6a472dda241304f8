"""The import contract: which files and columns are read, how they may be renamed, what each missing one costs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from adapters.errors import BadInput

EXAMPLES: Final = Path(__file__).resolve().parent.parent / "docs" / "examples"
SUFFIXES: Final = (".csv", ".tsv", ".parquet")
TIME_UNITS: Final = ("auto", "s", "ms", "us", "iso")
PRICE_UNITS: Final = ("cents", "major")
TYPES: Final = ("click", "cart", "order")
REQUIRED: Final = {"events": ("user_id", "item_id", "time"), "items": ("item_id",)}
# Optional columns, and what it costs not to have them
OPTIONAL: Final[Mapping[str, Mapping[str, str]]] = {
    "events": {
        "type": "every row counts as the one `type` of the mapping; intent (click) and purchase cannot be told apart",
        "price": "the item's price is taken; without that too, spend and price features stay 0",
        "quantity": "every order line counts as one unit",
        "session_id": "visits are not known; co-occurrence falls back to a shopper's events that lie close in time",
        "country": "no country slices",
        "device": "no device slices, and the ranker's device feature is missing",
    },
    "items": {
        "title": "titles are derived, like `Item 123 (category 7)`",
        "category": "all items share the category `uncategorised`: category features and diversity do nothing",
        "price": "price_cents is 0, which means unknown: price features, spend and revenue are empty",
        "seller_id": "all items belong to `seller-unknown`",
        "listed_at": "an item counts as new from its first event on",
        "stock": "every item counts as in stock",
        "adult": "no item is marked as for adults",
        "promoted": "no item is promoted",
    },
}
NEVER_THERE: Final = {
    "impressions": "what was shown is not known: no position bias is learned, the ranker trains on sampled negatives",
}


@dataclass(frozen=True, slots=True)
class Source:
    """One file: our column -> its column, and how to read it. `type` and `types` only say something for events."""

    file: str
    columns: Mapping[str, str] = field(default_factory=dict)
    separator: str | None = None
    encoding: str = "utf8"
    time_unit: str = "auto"
    price_unit: str = "major"
    type: str = "click"
    types: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What an import reads. `items` is None when there is no such file; `origin` says where the mapping came from."""

    events: Source
    items: Source | None
    origin: str


def find_plan(folder: Path, mapping: Path | None) -> Plan:
    """The mapping that was given, the folder's mapping.toml, plainly named files, or a shipped example that fits.

    Raises BadInput that names the file, the key and the fix.
    """
    if not folder.is_dir():
        raise BadInput(f"DATA = {folder}: there is no such folder", field="data")
    if mapping is not None or (folder / "mapping.toml").exists():
        path = mapping or folder / "mapping.toml"
        return _parse(path, folder)
    named = {kind: next((n for s in SUFFIXES if (folder / (n := kind + s)).exists()), None) for kind in REQUIRED}
    if named["events"]:
        items = Source(named["items"]) if named["items"] else None
        return Plan(Source(named["events"]), items, "the files' own column names")
    for example in sorted(EXAMPLES.glob("*.toml")):
        plan = _parse(example, None)
        if all((folder / s.file).exists() for s in (plan.events, plan.items) if s is not None):
            return plan
    there = ", ".join(sorted(p.name for p in folder.iterdir())[:20]) or "nothing"
    raise BadInput(
        f"{folder} has no events.csv, events.tsv or events.parquet (it has: {there}); name your file like that, or "
        "write a mapping.toml (docs/data.md shows one)", field="data",
    )  # fmt: skip


def _parse(path: Path, folder: Path | None) -> Plan:
    try:
        raw = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise BadInput(f"MAPPING = {path}: there is no such file", field="mapping") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not TOML: {error}", field="mapping") from None
    if unknown := raw.keys() - REQUIRED.keys():
        raise BadInput(f"{path}: [{min(unknown)}] is unknown; allowed: [events], [items]", field="mapping")
    if "events" not in raw:
        raise BadInput(f"{path}: [events] is missing; it needs at least file = \"...\"", field="mapping")
    events = _source(path, "events", raw["events"], folder)
    return Plan(events, _source(path, "items", raw["items"], folder) if "items" in raw else None, str(path))


def _source(path: Path, kind: str, raw: Any, folder: Path | None) -> Source:
    at = f"{path}: [{kind}]"
    try:
        source = msgspec.convert(raw, Source)
    except msgspec.ValidationError as error:
        raise BadInput(f"{at}: {error}", field="mapping") from None
    keys = set(Source.__dataclass_fields__)
    if unknown := raw.keys() - keys:
        raise BadInput(f"{at} {min(unknown)} is unknown; allowed: {', '.join(sorted(keys))}", field="mapping")
    ours = {*REQUIRED[kind], *OPTIONAL[kind]}
    if wrong := source.columns.keys() - ours:
        raise BadInput(f"{at} columns.{min(wrong)} is unknown; allowed: {', '.join(sorted(ours))}", field="mapping")
    for name, value, allowed in (
        ("time_unit", source.time_unit, TIME_UNITS), ("price_unit", source.price_unit, PRICE_UNITS),
        ("type", source.type, TYPES), *(("types." + k, v, TYPES) for k, v in source.types.items()),
    ):  # fmt: skip
        if value not in allowed:
            raise BadInput(f"{at} {name} = {value!r}; allowed: {', '.join(allowed)}", field="mapping")
    if source.separator is not None and len(source.separator.encode()) != 1:
        raise BadInput(f"{at} separator = {source.separator!r}; it must be one character", field="mapping")
    if folder is not None and not (folder / source.file).is_file():
        raise BadInput(f"{at} file = {source.file!r} is not in {folder}", field="mapping")
    return source
