"""All tiles from the lake into Redis, and where each partition goes on in Kafka: seeding, and recovery of Redis.

The base of a partition is the end of what the lake holds of it without a gap. Tiles are computed from exactly the rows
below the base (imported history included), and the partition's progress is set to it, so that the stream worker replays
the rest of Kafka on top. Progress is written last: a rebuild that is cut off is started again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adapters import event_lake
from adapters.feature_state import Batch, FeatureState
from feature_repo import bulk
from feature_repo.distinct import hash_of
from feature_repo.facts import on_element
from feature_repo.layout import Feed, layout_of
from feature_repo.plan import ELEMENT_NAME, FeaturePlan, ViewPlan
from feature_repo.windows import CLOCK_AHEAD_MS, DEDUP_HOURS, HOUR_MS, TOO_LATE_MS

_CHUNK = 500
Say = Callable[[str], None]


def rebuild(lake: Path, plan: FeaturePlan, state: FeatureState, partitions: int, now_ms: int, *, beat: Say) -> int:
    """Write every view's tiles and every partition's progress; returns the number of keys written.

    `beat(text)` is called often, with what is being done: prolong a lock or draw progress there. Raises Unavailable.
    """
    state.forget(partitions)
    progress = {p: Batch(partition=p, token="") for p in range(partitions)}
    topics: dict[str, pa.Table] = {}
    for topic in plan.topics:
        ends = event_lake.contiguous_ends(lake, topic)
        topics[topic] = _accepted(lake, topic, _columns(plan, topic), ends, progress)
        for batch in progress.values():
            batch.offsets[topic] = ends.get(batch.partition, 0)
            for source in range(partitions):
                batch.sources[topic, source] = ends.get(source, 0)
        beat(f"{topic}: {topics[topic].num_rows} events")
    written = 0
    for view in plan.declared_views:
        chunk: dict[tuple[str, tuple[str, ...]], bytes] = {}
        for key, packed in states_of(view, topics):
            chunk[view.name, key] = packed
            if len(chunk) == _CHUNK:
                state.put(chunk, now_ms)
                written += len(chunk)
                chunk = {}
                beat(f"{view.name}: {written} keys")
        state.put(chunk, now_ms)
        written += len(chunk)
    for batch in progress.values():
        state.restart_from(batch)
    return written


def states_of(view: ViewPlan, topics: Mapping[str, pa.Table]) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """(key, packed tiles) of every key of a view from accepted events by topic."""
    layout = layout_of(view)
    rows = [_explode(feed, topics[feed.topic]) for feed in layout.feeds]
    keys, codes = _encode_keys([[r.column(k) for k in view.join_keys] for r in rows])
    feeds, start = [], 0
    for feed, table in zip(layout.feeds, rows, strict=True):
        mine = codes[start:start + table.num_rows]
        start += table.num_rows
        keep = mine >= 0
        values = tuple(_product(table, fields)[keep] for fields in feed.values)
        feeds.append(bulk.Facts(mine[keep], table["event_time"].to_numpy()[keep], table["_arrival"].to_numpy()[keep],
                                values))
    for code, packed in bulk.build(layout, feeds, len(keys)):
        yield keys[code], packed


def _columns(plan: FeaturePlan, topic: str) -> list[str]:
    """The columns of a topic that any view reads, and those that say which rows count."""
    wanted = {"event_id", "event_time", "_partition", "_offset", "_arrival"}
    for view in plan.declared_views:
        for feed in layout_of(view).feeds:
            if feed.topic == topic:
                names = {n for fields in feed.values for n in fields} | set(view.join_keys)
                wanted |= {n for n in names if not on_element(feed, n)} | ({feed.each} - {""})
    return sorted(wanted)


def _accepted(lake: Path, topic: str, columns: list[str], ends: Mapping[int, int], progress: Mapping[int, Batch]
              ) -> pa.Table:
    """Rows below the base that count; what became of the others goes into the partitions' counters and sightings."""
    table = event_lake.scan(lake, topic, columns)
    partition, offset = table["_partition"].to_numpy(), table["_offset"].to_numpy()
    limit = np.asarray([ends.get(p, 0) for p in range(max(progress, default=0) + 1)])
    table = table.filter(pa.array((partition < 0) | (offset < limit[np.maximum(partition, 0)])))
    when, arrival = table["event_time"].to_numpy(), table["_arrival"].to_numpy()
    ahead, late = when > arrival + CLOCK_AHEAD_MS, when < arrival - TOO_LATE_MS
    on_time = table.filter(pa.array(~(ahead | late)))
    duplicate = _duplicates(on_time)
    partition = table["_partition"].to_numpy()
    of_time = on_time["_partition"].to_numpy()
    for p, batch in progress.items():
        counts = {"clock_ahead": int((ahead & (partition == p)).sum()),
                  "too_late": int((late & (partition == p)).sum()),
                  "duplicate": int((duplicate & (of_time == p)).sum()),
                  "counted": int((~duplicate & (of_time == p)).sum()),
                  "poison": ends.get(p, 0) - int((partition == p).sum())}
        batch.counters |= {f"{topic}:{outcome}": n for outcome, n in counts.items() if n}
        _sightings(on_time.filter(pa.array(of_time == p)), topic, batch)
    return on_time.filter(pa.array(~duplicate))


def _duplicates(table: pa.Table) -> np.ndarray:
    """Whether each row's event id was sighted in its partition within the horizon before it."""
    ids = table["event_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    arrival, partition = table["_arrival"].to_numpy(), table["_partition"].to_numpy()
    order = np.lexsort((arrival, table["_offset"].to_numpy(), partition, ids))
    found = np.zeros(len(ids), dtype=bool)
    if len(ids):
        fresh = np.ones(len(ids), dtype=bool)
        fresh[1:] = (np.diff(ids[order]) != 0) | (np.diff(partition[order]) != 0)
        hours, one = arrival[order] // HOUR_MS, np.cumsum(fresh)
        shift = one * (int(hours.max()) + 1)  # so that a running maximum starts again with each id and partition
        newest = np.maximum.accumulate(hours + shift) - shift
        found[order[1:]] = ~fresh[1:] & (hours[1:] - newest[:-1] <= DEDUP_HOURS)
    return found


def _sightings(table: pa.Table, topic: str, batch: Batch) -> None:
    if not table.num_rows:
        return
    hours = table["_arrival"].to_numpy() // HOUR_MS
    recent = hours >= hours.max() - DEDUP_HOURS - 1  # as long as the stream worker keeps them
    ids = table["event_id"].filter(pa.array(recent)).to_pylist()
    batch.newest_hours[topic] = int(hours.max())
    for event_id, hour in zip(ids, hours[recent].tolist(), strict=True):
        batch.sighted.setdefault((topic, hour), []).append(hash_of(event_id))


def _explode(feed: Feed, table: pa.Table) -> pa.Table:
    """One row per element of the feed's list field, with the element's fields beside the event's."""
    if not feed.each:
        return table
    lists = table[feed.each].combine_chunks()
    rows = table.drop_columns([feed.each]).take(pc.list_parent_indices(lists))
    elements = pc.list_flatten(lists)
    if feed.each in ELEMENT_NAME:
        return rows.append_column(ELEMENT_NAME[feed.each], elements)
    for i, inner in enumerate(elements.type):
        rows = rows.append_column(inner.name, elements.field(i))
    return rows


def _encode_keys(feeds: list[list[pa.ChunkedArray]]) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """(the distinct keys, the code of every row of every feed in order); -1 where a part of the key is missing."""
    parts, names = [], []
    for columns in zip(*feeds, strict=True):
        whole = pa.chunked_array([c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns],
                                 type=pa.string()).combine_chunks().dictionary_encode()
        parts.append(pc.fill_null(whole.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64))
        names.append(whole.dictionary.to_pylist())
    if len(parts) == 1:
        return [(name,) for name in names[0]], parts[0]
    first, second = parts
    whole = np.where((first < 0) | (second < 0), -1, first * len(names[1]) + second)
    distinct, codes = np.unique(whole[whole >= 0], return_inverse=True)
    out = np.full(len(whole), -1, dtype=np.int64)
    out[whole >= 0] = codes
    return [(names[0][k // len(names[1])], names[1][k % len(names[1])]) for k in distinct.tolist()], out


def _product(table: pa.Table, fields: tuple[str, ...]) -> Any:
    """A value of each row: one column, or the product of two."""
    arrays = [table[name].to_numpy() for name in fields]
    return arrays[0] if len(arrays) == 1 else arrays[0] * arrays[1]
