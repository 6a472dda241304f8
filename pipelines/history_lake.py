"""Writes a whole history (simulated or imported) into the lake: one file per topic and day, and `_meta.json` last.

The lake is usable when `_meta.json` is there: it says where the history came from, its data version, `as_of_ms` (its
newest event: "now" for everything that trains on it), counts per topic and what is missing in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from adapters import event_lake
from adapters.errors import Misconfigured

META: Final = "_meta.json"


def read_meta(lake: Path) -> dict[str, Any] | None:
    """What `_meta.json` says, or None when the lake holds no complete history."""
    try:
        meta: dict[str, Any] = json.loads((lake / META).read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Misconfigured(f"{lake / META} is not JSON ({error}); drop the data with `make reset`") from None
    return meta


def write_history(
    lake: Path, tables: Mapping[str, pa.Table], meta: Mapping[str, Any], said: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Replace the lake's imported history by `tables` (topic -> columns of its event type) and return the new meta.

    Live parts that came from Kafka stay. A history that was cut off half-way has no `_meta.json` and is written again.
    """
    lake.mkdir(parents=True, exist_ok=True)
    (lake / META).unlink(missing_ok=True)
    for old in lake.glob("*/date=*/hour=*/import-*.parquet"):
        old.unlink()
    for topic, table in tables.items():
        event_lake.write_import(lake, topic, table, 0)
        said(f"{topic}: {table.num_rows:,} rows")
    full = {**meta, "counts": {topic: table.num_rows for topic, table in tables.items()}}
    new = lake / f"{META}.new"
    new.write_text(json.dumps(full, indent=1))
    new.replace(lake / META)
    return full
