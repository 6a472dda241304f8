"""The plan as Flink SQL: the same tiles, kept by a cluster instead of by our worker. Pure: builds text, runs nothing.

    topic        a table per topic, read as JSON; what is no event is left out
    events       those neither late nor seen before, as the stream worker decides it
    elements     a row per element of an exploded list
    partials     for every tile that a row counts in, what it adds there: all views, levels and columns in one relation
    tiles        its plain GROUP BY, no window function: late events find their tile as long as its state lives
    newest       the k newest values of a key and day, a Top-N

The last two go to one compacted topic, keyed by tile: the newest record of a key is that tile. `flink_tiles.py` turns
them into the packed tiles that `tiles.py` reads. State outlives the latest event that may still count in a tile, not
the longest window: windows are merged when they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from feature_repo import flink_events as source
from feature_repo.aggregations.base import Kind
from feature_repo.aggregations.family import AGGREGATIONS
from feature_repo.facts import on_element
from feature_repo.layout import Feed, Layout, layout_of
from feature_repo.plan import FeaturePlan
from feature_repo.windows import CLOCK_AHEAD_MS, DAY_MS, DEDUP_HOURS, MINUTE_MS, TOO_LATE_MS, WINDOWS

STATE_TTL_MS: Final = TOO_LATE_MS + 2 * DAY_MS
"""An open tile, at most a day long, gets its last event TOO_LATE_MS after its end; sightings matter for a day."""
RETENTION_MS: Final = max(w.length_ms + w.tile_ms for w in WINDOWS.values()) + STATE_TTL_MS
NEWEST_TILE_MS: Final = DAY_MS
KEY: Final = ("view", "entity", "part", "tile_ms", "tile", "of_value")
PARTIAL: Final[Mapping[Kind, tuple[str, str, str]]] = {
    "count": ("n", "BIGINT", "SUM"), "sum": ("n", "BIGINT", "SUM"), "min": ("lo", "BIGINT", "MIN"),
    "max": ("hi", "BIGINT", "MAX"), "squares": ("sq", "DECIMAL(38, 0)", "SUM")}
"""Kind of partial -> the prefix of its columns in `tiles`, their type, and how two of them are merged."""

TILES, DISTINCT, TOP, NEWEST = "tiles", "distinct", "top", "newest"

_TILE: Final = "GROUP BY key and tile: "
EXPRESSIBLE: Final[Mapping[str, str]] = {
    "count": _TILE + "SUM(1)",
    "sum": _TILE + "SUM(x)",
    "mean": _TILE + "SUM(x) and the number of x",
    "min": _TILE + "MIN(x)",
    "max": _TILE + "MAX(x)",
    "std": _TILE + "SUM(x), the number of x, and SUM(x * x) as DECIMAL(38, 0)",
    "ratio": _TILE + "both columns, divided when read",
    "decayed": _TILE + "SUM(x) or SUM(1), weighted by age when read",
    "distinct": "GROUP BY key, tile and x: one record per value; exact or HyperLogLog when it is written to Redis",
    "top_k": "GROUP BY key, tile and x: SUM(1) per value, ranked when read",
    "last": "Top-1 by event time and x, per key and day",
    "last_k": "Top-k by event time and x, per key and day, ARRAY_AGG",
}
"""Function -> what the SQL keeps for it. A function that is not here cannot be expressed, and `why_not` says so."""


_NO_SQL: Final = "has no Flink SQL"


def topic_of(plan: FeaturePlan) -> str:
    """The topic of tiles of a feature set: another set has other tiles."""
    return f"features.tiles.{plan.version}"


@dataclass(frozen=True)
class Job:
    """How the compiled job runs. `bounded`: it ends at what is in Kafka when it starts."""

    bootstrap: str
    topic: str
    name: str = "minimart-features"
    bounded: bool = False
    parallelism: int = 2
    checkpoint_ms: int = 5_000
    checkpoints: str = ""
    resume_from: str = ""
    transaction_timeout_ms: int = 900_000
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, low in (("parallelism", 1), ("checkpoint_ms", 100), ("transaction_timeout_ms", 10_000)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} = {getattr(self, name)}: at least {low} is needed")
        if not self.bootstrap or not self.topic:
            raise ValueError("a job needs the address of Kafka and the topic of its tiles")


def statements(plan: FeaturePlan, job: Job) -> list[str]:
    """The whole job: settings, tables, views, and last the one statement that starts it. Raises ValueError."""
    if refused := why_not(plan):
        raise ValueError("; ".join(f"{name}: {reason}" for name, reason in refused.items()))
    return [*settings(job), *tables(plan, job), *views(plan), start(plan)]


def table_of_functions() -> str:
    """EXPRESSIBLE as a Markdown table; a function that is missing there says so."""
    rows = [f"| `{a.name}` | {a.formula} | {EXPRESSIBLE.get(a.name, 'no: ' + _NO_SQL)} |" for a in AGGREGATIONS.values()]
    return "\n".join(["| function | value | what the SQL keeps |", "| --- | --- | --- |", *rows])


def why_not(plan: FeaturePlan) -> dict[str, str]:
    """Feature -> why SQL cannot keep it; empty for the functions of EXPRESSIBLE."""
    return {f.name: f"{f.function} {_NO_SQL}" for view in plan.declared_views for f in view.declared
            if f.function not in EXPRESSIBLE}


def settings(job: Job) -> list[str]:
    """SET statements. Without upsert materialisation, because rows of one tile never change their order: they are
    grouped and written by the same subtask."""
    values = {
        "pipeline.name": job.name,
        "parallelism.default": str(job.parallelism),
        "execution.checkpointing.interval": f"{job.checkpoint_ms} ms",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "table.exec.state.ttl": f"{STATE_TTL_MS} ms",
        "table.exec.mini-batch.enabled": "true",
        "table.exec.mini-batch.allow-latency": "500 ms",
        "table.exec.mini-batch.size": "5000",
        "table.exec.sink.upsert-materialize": "NONE",
        "table.local-time-zone": "UTC",
    }
    if job.checkpoints:
        values |= {"execution.checkpointing.dir": job.checkpoints,
                   "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION"}
    if job.resume_from:
        values["execution.state-recovery.path"] = job.resume_from
    return [f"SET {_text(name)} = {_text(value)}" for name, value in (values | dict(job.options)).items()]


def tables(plan: FeaturePlan, job: Job) -> list[str]:
    """The topics that are read, and the two writers of the topic of tiles."""
    read = {"connector": "kafka", "properties.bootstrap.servers": job.bootstrap,
            "properties.group.id": job.name, "scan.startup.mode": "earliest-offset",
            "value.format": "json", "value.json.ignore-parse-errors": "true"}
    if job.bounded:
        read["scan.bounded.mode"] = "latest-offset"
    made = [source.table(topic, read | {"topic": topic}) for topic in plan.topics]
    write = {"connector": "upsert-kafka", "properties.bootstrap.servers": job.bootstrap, "topic": job.topic,
             "key.format": "json", "value.format": "json", "value.fields-include": "EXCEPT_KEY",
             "value.json.encode.ignore-null-fields": "true", "sink.delivery-guarantee": "exactly-once",
             "properties.transaction.timeout.ms": str(job.transaction_timeout_ms),
             "properties.compression.type": "lz4"}
    squares = {name: "STRING" for name in columns(plan) if name.startswith("sq")}
    numbers = {name: kind for name, (kind, _) in columns(plan).items()} | squares
    facts = {"facts": "ARRAY<ROW<event_time BIGINT, of_value STRING>>"}
    for name, own in (("tiles", numbers), ("newest", facts)):
        if name == "tiles" or has_newest(plan):
            made.append(_sink(name, own, write | {"sink.transactional-id-prefix": f"{job.name}-{name}"}))
    return made


def views(plan: FeaturePlan) -> list[str]:
    """Events that count, their elements, and what they add to which tiles."""
    made = [_events(topic) for topic in plan.topics]
    exploded = sorted({feed for v in plan.declared_views for feed in v.feeds if feed[1]})
    made += [source.elements(topic, each) for topic, each in exploded]
    made.append(_union("partials", partials(plan)))
    if has_newest(plan):
        made.append(_union("facts", newest(plan)))
    return made


def start(plan: FeaturePlan) -> str:
    """The statement set that is the job."""
    key = ", ".join(f"`{name}`" for name in KEY)
    merged = ", ".join(
        f"CAST({how}({name}) AS STRING)" if name.startswith("sq") else f"{how}({name})"
        for name, (_, how) in columns(plan).items())
    inserts = [f"INSERT INTO tiles SELECT {key}, MAX(arrival), {merged}\nFROM partials GROUP BY {key}"]  # noqa: S608
    if has_newest(plan):
        inserts.append(_newest_of_day(sorted({k for v in plan.declared_views for k in lists(layout_of(v)).values()})))
    body = ";\n".join(inserts)
    return f"EXECUTE STATEMENT SET BEGIN\n{body};\nEND"


def columns(plan: FeaturePlan) -> dict[str, tuple[str, str]]:
    """The columns of partial results in `tiles`: name -> (type, how two are merged); as many as the widest tile."""
    found: dict[str, tuple[str, str]] = {}
    for view in plan.declared_views:
        for level in layout_of(view).levels:
            for name, slot in zip(names_of(slot.kind for slot in level.slots), level.slots, strict=True):
                _, kind, how = PARTIAL[slot.kind]
                found[name] = kind, how
    order = list(dict.fromkeys(prefix for prefix, _, _ in PARTIAL.values()))
    found.setdefault("n0", ("BIGINT", "SUM"))
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0].rstrip("0123456789")),
                                                        int(item[0].lstrip("nlohisq")))))


def names_of(kinds: Iterable[Kind]) -> list[str]:
    """The column of `tiles` that holds each slot of a level: n0, n1, ... for counts and sums, lo0, ... for minima."""
    used: dict[str, int] = {}
    names = []
    for kind in kinds:
        prefix = PARTIAL[kind][0]
        names.append(f"{prefix}{used.setdefault(prefix, 0)}")
        used[prefix] += 1
    return names


def partials(plan: FeaturePlan) -> Iterator[str]:
    """One SELECT per (view, feed) and level, distinct or top slot: what a row adds to a tile."""
    for view in plan.declared_views:
        layout = layout_of(view)
        for feed in layout.feeds:
            for at, level in enumerate(layout.levels):
                if feed.level_ops[at]:
                    names = names_of(slot.kind for slot in level.slots)
                    adds = {names[slot]: _added(kind, value(feed, feed.values[i]) if i >= 0 else None)
                            for slot, kind, i in feed.level_ops[at]}
                    yield _partial(plan, layout, feed, TILES, level.tile_ms, adds)
            for name, slots, ops in ((DISTINCT, layout.distinct, feed.distinct_ops), (TOP, layout.top, feed.top_ops)):
                for at, i in ops:
                    yield _partial(plan, layout, feed, f"{name}:{slots[at].column}", slots[at].tile_ms, {"n0": "1"},
                                   value(feed, feed.values[i]))


def newest(plan: FeaturePlan) -> Iterator[str]:
    """One SELECT per (view, feed) and slot of newest values: the facts that compete."""
    for view in plan.declared_views:
        layout = layout_of(view)
        for feed in layout.feeds:
            for at, i in feed.last_ops:
                slot, of = layout.last[at], value(feed, feed.values[i])
                if lists(layout)[slot.column] != slot.k:
                    continue  # read from the longer list of the same column
                yield (f"SELECT {_where(layout, feed)}, {_text(f'{NEWEST}:{slot.column}')} AS part, "  # noqa: S608
                       f"{slot.k} AS k, event_time / {NEWEST_TILE_MS} AS tile, event_time, "
                       f"CAST({of} AS STRING) AS of_value, arrival\n"
                       f"FROM {source.relation(feed.topic, feed.each)} WHERE {_present(layout, feed, of)}")


def lists(layout: Layout) -> dict[str, int]:
    """Column -> the length of the longest list of its newest values."""
    return {slot.column: slot.k for slot in sorted(layout.last, key=lambda slot: slot.k)}


def has_newest(plan: FeaturePlan) -> bool:
    return any(layout_of(view).last for view in plan.declared_views)


def value(feed: Feed, fields: tuple[str, ...]) -> str:
    """A value of a row of a feed: one field, or the product of two. Raises ValueError for a field that is not there."""
    for name in fields:
        on_element(feed, name)
    return " * ".join(f"`{name}`" for name in fields)


def _added(kind: Kind, of: str | None) -> str:
    """What one row adds to a partial; NULL adds nothing."""
    if of is None:
        return "1"
    if kind == "count":
        return f"CASE WHEN {of} IS NOT NULL THEN 1 END"
    if kind == "squares":
        return f"CAST({of} AS DECIMAL(19, 0)) * CAST({of} AS DECIMAL(19, 0))"
    return of


def _partial(plan: FeaturePlan, layout: Layout, feed: Feed, part: str, tile_ms: int, adds: Mapping[str, str],
             of: str = "") -> str:
    added = ", ".join(f"CAST({adds.get(name, 'NULL')} AS {kind}) AS {name}" for name, (kind, _) in columns(plan).items())
    of_value = f"CAST({of} AS STRING)" if of else "''"
    return (f"SELECT {_where(layout, feed)}, {_text(part)} AS part, CAST({tile_ms} AS BIGINT) AS tile_ms, "  # noqa: S608
            f"event_time / {tile_ms} AS tile, {of_value} AS of_value, arrival,\n    {added}\n"
            f"FROM {source.relation(feed.topic, feed.each)} WHERE {_present(layout, feed, of)}")


def _where(layout: Layout, feed: Feed) -> str:
    """The view and the key of a row: ids and labels hold no control characters, so that one may stand between them."""
    keys = " || CHR(31) || ".join(value(feed, (name,)) for name in layout.view.join_keys)
    return f"{_text(layout.view.name)} AS `view`, {keys} AS entity"


def _present(layout: Layout, feed: Feed, of: str) -> str:
    wanted = [value(feed, (name,)) for name in layout.view.join_keys] + ([of] if of else [])
    return " AND ".join(f"{name} IS NOT NULL" for name in wanted)


def _events(topic: str) -> str:
    """The late rule, then the rule of duplicates: LAG in order of processing, which is the order of offsets within a
    partition, gives the hour of the last sighting."""
    seconds = "EXTRACT(EPOCH FROM _arrival)"
    plain = source.fields(topic)
    return (f"CREATE TEMPORARY VIEW {source.relation(topic)} AS\n"  # noqa: S608
            f"SELECT {plain}, _arrival_ms AS arrival FROM (\n"
            f"  SELECT *, LAG(_hour) OVER (PARTITION BY _partition, event_id ORDER BY _now) AS _before FROM (\n"
            f"    SELECT *, {seconds} / 3600 AS _hour,\n"
            f"           {seconds} * 1000 + EXTRACT(MILLISECOND FROM _arrival) AS _arrival_ms\n"
            f"    FROM {source.relation(topic)}_in WHERE {source.checks(topic)})\n"
            f"  WHERE event_time BETWEEN _arrival_ms - {TOO_LATE_MS} AND _arrival_ms + {CLOCK_AHEAD_MS})\n"
            f"WHERE _before IS NULL OR _hour - _before > {DEDUP_HOURS}")


def _newest_of_day(lengths: Iterable[int]) -> str:
    """The lists of a day, so that the state of a day can be dropped once no late event can reach it."""
    key = "`view`, entity, part, tile"
    ranked = (f"SELECT *, ROW_NUMBER() OVER (PARTITION BY {key} ORDER BY event_time DESC, of_value DESC) AS _rank "
              f"FROM facts WHERE k = ")
    best = "\n  UNION ALL ".join(f"SELECT * FROM ({ranked}{k}) WHERE _rank <= {k}" for k in lengths)  # noqa: S608
    return (f"INSERT INTO newest SELECT `view`, entity, part, {NEWEST_TILE_MS}, tile, '', MAX(arrival),\n"  # noqa: S608
            f"  ARRAY_AGG(CAST(ROW(event_time, of_value) AS ROW<event_time BIGINT, of_value STRING>))\n"
            f"FROM ({best})\nGROUP BY {key}")


def _sink(name: str, own: Mapping[str, str], options: Mapping[str, str]) -> str:
    kinds = {"tile_ms": "BIGINT", "tile": "BIGINT"}
    listed = [f"`{k}` {kinds.get(k, 'STRING')}" for k in KEY] + ["arrival BIGINT"] + [f"{n} {t}" for n, t in own.items()]
    key = ", ".join(f"`{k}`" for k in KEY)
    return source.create(name, [*listed, f"PRIMARY KEY ({key}) NOT ENFORCED"], options)


def _union(name: str, selects: Iterable[str]) -> str:
    return f"CREATE TEMPORARY VIEW {name} AS\n" + "\nUNION ALL\n".join(selects)


def _text(value: str) -> str:
    return source.text(value)
