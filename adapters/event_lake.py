"""The event lake: Parquet files by topic, arrival date and hour. The offline store and the truth after Kafka.

    <lake>/<topic>/date=YYYY-MM-DD/hour=HH/part-<partition>-<first offset>-<last offset>.parquet   from Kafka
    <lake>/<topic>/date=YYYY-MM-DD/hour=00/import-<n>[-30d].parquet                                 seeded or imported

A file is written under another name, synced and renamed, so that it is there whole or not at all. Its name says which
offsets it covers, poison included: where to go on after a crash is read from the names, and a file whose range lies
within a larger one of its folder (a compaction that was cut off) is ignored. A partition's hour never goes back.
"""

from __future__ import annotations

import base64
import os
import re
import time
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args, get_type_hints

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adapters.kafka import Record
from feature_repo import events
from feature_repo.windows import CLOCK_AHEAD_MS, DAY_MS, HOUR_MS, TOO_LATE_MS

_PART: Final = re.compile(r"part-(\d+)-(\d+)-(\d+)\.parquet")
_PLACE: Final = [pa.field("_partition", pa.int32()), pa.field("_offset", pa.int64()), pa.field("_arrival", pa.int64())]
_PLAIN: Final[dict[Any, pa.DataType]] = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_IMPORTED: Final = -1
_MANY_DAYS: Final = 120
_MONTH_MS: Final = 30 * DAY_MS


class Part(NamedTuple):
    """One file from Kafka: offsets `first` to `last`, both inclusive."""

    path: Path
    partition: int
    first: int
    last: int


class Poison(NamedTuple):
    """A record that is no event of its topic, and why."""

    record: Record
    reason: str


def schema(topic: str) -> pa.Schema:
    """The columns of a topic's files: the event's fields, then _partition (-1: imported), _offset, _arrival (ms)."""
    if topic == events.DECISIONS:
        return pa.schema([("request_id", pa.string()), ("user_id", pa.string()), ("event_time", pa.int64()),
                          ("payload", pa.string()), *_PLACE])
    hints = get_type_hints(_event_type(topic))
    own = [(name, _arrow(hints[name])) for name in _event_type(topic).__struct_fields__]
    return pa.schema([("type", pa.string()), *own, *_PLACE])


def to_table(topic: str, records: Sequence[Record]) -> tuple[pa.Table, list[Poison]]:
    """Records of one topic as rows of its schema, and those that could not be read."""
    good: list[tuple[Record, Any]] = []
    poison: list[Poison] = []
    for record in records:
        try:
            good.append((record, _decode(topic, record.value or b"")))
        except events.EventRejected as error:
            poison.append(Poison(record, f"not_an_event: {error}"))
    kind = schema(topic)
    place = {"_partition": [r.partition for r, _ in good], "_offset": [r.offset for r, _ in good],
             "_arrival": [r.timestamp_ms for r, _ in good]}
    columns = [pa.array(place[f.name] if f.name in place else [_field(e, f.name) for _, e in good], f.type)
               for f in kind]
    return pa.Table.from_arrays(columns, schema=kind), poison


def write_part(lake: Path, topic: str, partition: int, first: int, last: int, hour_ms: int, table: pa.Table) -> Path:
    """Write the rows of offsets `first`..`last`, which arrived in the hour that starts at `hour_ms`."""
    path = _folder(lake, topic, hour_ms) / f"part-{partition}-{first}-{last}.parquet"
    _write(path, table)
    return path


def write_import(lake: Path, topic: str, table: pa.Table, n: int) -> list[Path]:
    """Write imported or seeded events, one file a day of event_time (30 days a file when the history is long).

    Writing the same table as (topic, n) again replaces its files.

    `table` has the event's own columns; `type`, `version` and missing optional columns are filled in. Raises
    pa.ArrowInvalid when a column has the wrong type.
    """
    rows = table.num_rows
    constant: dict[str, Any] = {"version": 1, "_partition": _IMPORTED, "_offset": _IMPORTED}
    if topic != events.DECISIONS:
        constant["type"] = _event_type(topic).__struct_config__.tag
    columns = []
    for field in schema(topic):
        if field.name == "_arrival":
            columns.append(table["event_time"].cast(pa.int64()))
        elif field.name in table.column_names:
            columns.append(table[field.name].cast(field.type))
        else:
            columns.append(pa.repeat(pa.scalar(constant.get(field.name), field.type), rows))
    full = pa.Table.from_arrays(columns, schema=schema(topic))
    extent = pc.min_max(full["event_time"]).as_py()
    long = rows > 0 and extent["max"] - extent["min"] > _MANY_DAYS * DAY_MS
    span, name = (_MONTH_MS, f"import-{n}-30d.parquet") if long else (DAY_MS, f"import-{n}.parquet")
    bucket = pc.multiply(pc.divide(full["event_time"], span), span)
    written = []
    for start in sorted(pc.unique(bucket).to_pylist()):
        path = _folder(lake, topic, start) / name
        _write(path, full.filter(pc.equal(bucket, start)).sort_by("event_time"))
        written.append(path)
    return written


def parts(lake: Path, topic: str) -> list[Part]:
    """The live files from Kafka, by partition and offset."""
    found = []
    for folder in sorted((lake / topic).glob("date=*/hour=*")):
        found += _live(p for p in map(_part, folder.glob("part-*.parquet")) if p is not None)
    return sorted(found, key=lambda p: (p.partition, p.first))


def contiguous_ends(lake: Path, topic: str) -> dict[int, int]:
    """Per partition the first offset that is not in the lake yet; partitions without files are left out."""
    ends: dict[int, int] = {}
    for part in parts(lake, topic):
        ends[part.partition] = max(ends.get(part.partition, 0), part.last + 1)
    return ends


def files(lake: Path, topic: str, since_ms: int | None = None, until_ms: int | None = None) -> list[Path]:
    """The files that may hold events with since <= event_time < until, given how early or late an event may arrive."""
    first = None if since_ms is None else since_ms - CLOCK_AHEAD_MS
    last = None if until_ms is None else until_ms + TOO_LATE_MS
    found: list[Path] = []
    for folder in sorted((lake / topic).glob("date=*/hour=*")):
        start = hour_of(folder)
        if last is not None and start > last:
            continue
        for path in sorted(folder.glob("import-*.parquet")):
            span = _MONTH_MS if path.stem.endswith("-30d") else DAY_MS
            if since_ms is None or start + span > since_ms:
                found.append(path)
        if first is None or start + HOUR_MS > first:
            live = _live(p for p in map(_part, folder.glob("part-*.parquet")) if p is not None)
            found += [p.path for p in live]
    return found


def scan(lake: Path, topic: str, columns: Sequence[str] | None = None, since_ms: int | None = None,
         until_ms: int | None = None) -> pa.Table:
    """Events with since <= event_time < until as a table; empty, with the topic's schema, if there are none."""
    kind = schema(topic)
    wanted = list(columns) if columns is not None else kind.names
    read = list(dict.fromkeys([*wanted, "event_time"]))
    for attempt in range(5):
        try:
            tables = [_read(p, read) for p in files(lake, topic, since_ms, until_ms)]
            break
        except FileNotFoundError:  # a compaction replaced the file between listing and reading
            if attempt == 4:
                raise
            time.sleep(0.05)
    empty = pa.schema([kind.field(name) for name in read]).empty_table()
    table = pa.concat_tables([empty, *tables], promote_options="default")
    if since_ms is not None:
        table = table.filter(pc.greater_equal(table["event_time"], since_ms))
    if until_ms is not None:
        table = table.filter(pc.less(table["event_time"], until_ms))
    return table.select(wanted)


def find_decision(lake: Path, request_id: str) -> dict[str, Any] | None:
    """The decision record of a request, or None. The id's own clock (UUIDv7) says which hours to look in."""
    folders = sorted((lake / events.DECISIONS).glob("date=*/hour=*"))
    hour = _uuid7_hour(request_id)
    if hour is not None:
        folders = [f for f in folders if hour_of(f) >= hour][:48]
    for folder in folders:
        live = _live(p for p in map(_part, folder.glob("part-*.parquet")) if p is not None)
        for path in [p.path for p in live] + sorted(folder.glob("import-*.parquet")):
            try:
                found = pq.read_table(path, columns=["payload"], partitioning=None,
                                      filters=[("request_id", "=", request_id)])
            except FileNotFoundError:
                return find_decision(lake, request_id)
            if found.num_rows:
                decision: dict[str, Any] = msgspec.json.decode(found["payload"][0].as_py())
                return decision
    return None


def compact(lake: Path, topic: str, *, at_least: int = 16) -> int:
    """Merge the newest files of every partition that has `at_least` of them in one hour's folder; returns how many.

    A file that is larger than all after it together stays as it is, so that a row is rewritten only each time its file
    at least doubles: the work of an hour grows as n log n, not as n squared.
    """
    merged = 0
    for folder in (lake / topic).glob("date=*/hour=*"):
        every = [p for p in map(_part, folder.glob("part-*.parquet")) if p is not None]
        live = _live(every)
        for dead in set(every) - set(live):
            dead.path.unlink(missing_ok=True)
        for partition in {p.partition for p in live}:
            mine = sorted((p for p in live if p.partition == partition), key=lambda p: p.first)
            if len(mine) >= at_least:
                mine = mine[_first_to_merge([p.last - p.first + 1 for p in mine]):]
                whole = pa.concat_tables([_read(p.path, schema(topic).names) for p in mine], promote_options="default")
                name = f"part-{partition}-{mine[0].first}-{mine[-1].last}.parquet"
                _write(folder / name, whole)
                for part in mine:
                    part.path.unlink(missing_ok=True)
                merged += len(mine)
    return merged


def _first_to_merge(sizes: Sequence[int]) -> int:
    """Where the files to merge begin: behind the last one that is larger than all after it together. Two at least."""
    first, behind = len(sizes) - 2, sum(sizes[-2:])
    while first > 0 and sizes[first - 1] <= behind:
        first -= 1
        behind += sizes[first]
    return first


def _event_type(topic: str) -> type[events.Event]:
    return next(e for e in events.EVENTS if e.topic == topic)


def _arrow(hint: Any) -> pa.DataType:
    """The Arrow type of a field's Python type."""
    choices = [a for a in get_args(hint) if a is not type(None)]
    if getattr(hint, "__origin__", None) is list:
        return pa.list_(_arrow(choices[0]))
    if choices:
        return _arrow(choices[0])
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        inner = get_type_hints(hint)
        return pa.struct([(name, _arrow(inner[name])) for name in hint.__struct_fields__])
    return _PLAIN[hint]


def _decode(topic: str, payload: bytes) -> Any:
    if topic != events.DECISIONS:
        return events.decode(topic, payload)
    try:
        found = msgspec.json.decode(payload, type=dict[str, Any])
        return {"request_id": str(found["request_id"]), "user_id": str(found["user_id"]),
                "event_time": int(found["event_time"]), "payload": payload.decode()}
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        raise events.EventRejected(f"not a decision: {error!r}") from None


def _field(event: Any, name: str) -> Any:
    if isinstance(event, dict):
        return event[name]
    if name == "type":
        return event.__struct_config__.tag
    value = getattr(event, name)
    return msgspec.to_builtins(value) if isinstance(value, list) else value


def _folder(lake: Path, topic: str, at_ms: int) -> Path:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return lake / topic / f"date={at:%Y-%m-%d}" / f"hour={at:%H}"


def hour_of(folder: Path) -> int:
    """The start (ms) of the hour that a folder is for."""
    text = f"{folder.parent.name.removeprefix('date=')} {folder.name.removeprefix('hour=')}"
    return int(datetime.strptime(text, "%Y-%m-%d %H").replace(tzinfo=UTC).timestamp() * 1000)


def _uuid7_hour(request_id: str) -> int | None:
    try:
        parsed = uuid.UUID(request_id)
    except ValueError:
        return None
    return (parsed.int >> 80) // HOUR_MS * HOUR_MS if parsed.version == 7 else None


def _part(path: Path) -> Part | None:
    match = _PART.fullmatch(path.name)
    return Part(path, *(int(g) for g in match.groups())) if match else None


def _live(every: Iterable[Part]) -> list[Part]:
    """Without the files whose range lies within another's."""
    kept: list[Part] = []
    for part in sorted(every, key=lambda p: (p.partition, p.first, -p.last)):
        before = kept[-1] if kept and kept[-1].partition == part.partition else None
        if before is None or part.last > before.last:
            kept.append(part)
    return kept


def _read(path: Path, columns: list[str]) -> pa.Table:
    """One file, without the cost of a dataset; a column that a file of an older schema lacks is left out."""
    with pq.ParquetFile(path) as file:
        return file.read(columns=columns)


def _write(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{base64.b32encode(os.urandom(5)).decode()}.tmp")
    try:
        with part.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
