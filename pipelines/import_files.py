"""Reads the user's files as text columns under our names; rows that are no rows of the file go to quarantine."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from adapters.errors import BadInput
from pipelines.import_mapping import OPTIONAL, REQUIRED, SUFFIXES, Source

ROW: Final = "_row"
EMPTY: Final = ["", "NA", "NULL", "null"]


@dataclass(slots=True)
class Quarantine:
    """Rows that were not taken: file, row (1 is the header of a CSV file), reason and values of each."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, file: str, row: int | None, reason: str, values: object) -> None:
        self.rows.append({"file": file, "row": row, "reason": reason, "values": values})

    def counts(self) -> dict[str, int]:
        """How many rows by `file: reason`, most first."""
        return dict(Counter(f"{r['file']}: {r['reason']}" for r in self.rows).most_common())

    def write(self, path: Path) -> None:
        """One CSV row per bad row; no file when there is none."""
        path.unlink(missing_ok=True)
        if self.rows:
            path.parent.mkdir(parents=True, exist_ok=True)
            told = [{**r, "values": json.dumps(r["values"], ensure_ascii=False, default=str)} for r in self.rows]
            schema = {"file": pl.String, "row": pl.Int64, "reason": pl.String, "values": pl.String}
            pl.DataFrame(told, schema=schema).write_csv(path)


def read(folder: Path, kind: str, source: Source, quarantine: Quarantine) -> pl.DataFrame:
    """The file's columns under our names, all as text (null if empty), and `_row`. Raises BadInput if unusable."""
    path = folder / source.file
    if path.suffix not in SUFFIXES:
        raise BadInput(f"{path}: the file must end in {', '.join(SUFFIXES)}", field="file")
    try:
        table = _parquet(path) if path.suffix == ".parquet" else _csv(path, source, quarantine)
    except (pa.ArrowInvalid, pl.exceptions.PolarsError, OSError, UnicodeDecodeError, LookupError) as error:
        raise BadInput(
            f"{path}: cannot be read ({str(error).splitlines()[0]}); check `separator` and `encoding` in the mapping",
            field="file",
        ) from None
    ours = (*REQUIRED[kind], *OPTIONAL[kind])
    names = {name: source.columns.get(name, name) for name in ours}
    for name in ours:
        needed = name in REQUIRED[kind] or name in source.columns
        if needed and names[name] not in table.columns:
            there = ", ".join(c for c in table.columns if c != ROW)
            raise BadInput(
                f"{path}: column {names[name]!r} (our {name}) is not there; its columns are: {there}. Name the right "
                f"one in a mapping.toml: [{kind}.columns] {name} = \"...\"", field=name,
            )  # fmt: skip
    kept = [pl.col(theirs).alias(name) for name, theirs in names.items() if theirs in table.columns]
    table = table.select(ROW, *kept)
    if not table.height:
        raise BadInput(f"{path}: it has no rows", field="file")
    text = pl.exclude(ROW).str.strip_chars()
    return table.with_columns(pl.when(text != "").then(text))


def _csv(path: Path, source: Source, quarantine: Quarantine) -> pl.DataFrame:
    bad: list[int] = []

    def ragged(row: Any) -> str:
        reason = f"it has {row.actual_columns} fields, the header has {row.expected_columns}"
        quarantine.add(path.name, row.number, reason, row.text)
        bad.append(row.number or 0)
        return "skip"

    separator = source.separator or ("\t" if path.suffix == ".tsv" else ",")
    encoding = "utf-8-sig" if source.encoding == "utf8" else source.encoding
    with path.open("rb") as file:
        header = file.readline().decode(encoding).rstrip("\r\n")
    first_line = pa.BufferReader(f"{header}\n".encode())
    columns = pyarrow.csv.read_csv(first_line, parse_options=_parsing(separator)).schema.names
    table = pyarrow.csv.read_csv(
        path, read_options=pyarrow.csv.ReadOptions(use_threads=False, encoding=source.encoding),
        parse_options=_parsing(separator, ragged),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=True, null_values=EMPTY,
        ),
    )  # fmt: skip
    skipped = set(bad)
    rows = [n for n in range(2, table.num_rows + len(skipped) + 2) if n not in skipped][: table.num_rows]
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(pl.Series(ROW, rows, pl.Int64))


def _parsing(separator: str, ragged: Any = None) -> Any:
    return pyarrow.csv.ParseOptions(delimiter=separator, invalid_row_handler=ragged)


def _parquet(path: Path) -> pl.DataFrame:
    frame = pl.from_arrow(pyarrow.parquet.read_table(path))
    assert isinstance(frame, pl.DataFrame)
    columns = []
    for name, kind in frame.schema.items():
        column = pl.col(name)
        if kind.is_temporal():
            column = column.cast(pl.Datetime("ms")).cast(pl.Int64)
        elif kind.is_float() and frame[name].drop_nulls().is_finite().all():
            whole = (frame[name].drop_nulls() % 1 == 0).all()
            column = column.cast(pl.Int64) if whole else column
        columns.append(column.cast(pl.String) if not kind.is_nested() else pl.lit(None, pl.String).alias(name))
    return frame.select(columns).with_row_index(ROW, 1).with_columns(pl.col(ROW).cast(pl.Int64))
