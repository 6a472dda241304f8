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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from feature_repo import flink_events as source
from feature_repo.flink_partials import (
    KEY,
    NEWEST_TILE_MS,
    columns,
    has_newest,
    lists,
    newest,
    partials,
    why_not,
)
from feature_repo.layout import layout_of
from feature_repo.plan import FeaturePlan
from feature_repo.windows import CLOCK_AHEAD_MS, DAY_MS, DEDUP_HOURS, TOO_LATE_MS, WINDOWS

STATE_TTL_MS: Final = TOO_LATE_MS + 2 * DAY_MS
"""An open tile, at most a day long, gets its last event TOO_LATE_MS after its end; sightings matter for a day."""
RETENTION_MS: Final = max(w.length_ms + w.tile_ms for w in WINDOWS.values()) + STATE_TTL_MS


def topic_of(plan: FeaturePlan) -> str:
    """The topic of tiles of a feature set: another set has other tiles."""
    return f"features.tiles.{plan.version}"


@dataclass(frozen=True)
class Job:
    """How the compiled job runs: until somebody stops it. `attempts`: how often it starts again after a failure of its
    own before it gives up; None for as long as it takes."""

    bootstrap: str
    topic: str
    name: str = "minimart-features"
    attempts: int | None = None
    parallelism: int = 2
    checkpoint_ms: int = 5_000
    checkpoints: str = ""
    resume_from: str = ""
    transaction_timeout_ms: int = 900_000

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
    if job.attempts is not None:
        values |= {"restart-strategy.type": "fixed-delay", "restart-strategy.fixed-delay.attempts": str(job.attempts),
                   "restart-strategy.fixed-delay.delay": "2 s"}
    if job.checkpoints:
        values |= {"execution.checkpointing.dir": job.checkpoints,
                   "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION"}
    if job.resume_from:
        values["execution.state-recovery.path"] = job.resume_from
    return [f"SET {_text(name)} = {_text(value)}" for name, value in values.items()]


def tables(plan: FeaturePlan, job: Job) -> list[str]:
    """The topics that are read, and the two writers of the topic of tiles."""
    read = {"connector": "kafka", "properties.bootstrap.servers": job.bootstrap,
            "properties.group.id": job.name, "scan.startup.mode": "earliest-offset",
            "value.format": "json", "value.json.ignore-parse-errors": "true",
            "value.json.decode.json-parser.enabled": "false"}  # reads a record to its end before it believes any of it
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
            made.append(_sink(name, own, write | {"sink.transactional-id-prefix": f"{job.topic}.{name}"}))
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
    inserts = [f"INSERT INTO tiles SELECT {key}, MAX(arrival), {merged}\nFROM partials GROUP BY {key}"]
    if has_newest(plan):
        inserts.append(_newest_of_day(sorted({k for v in plan.declared_views for k in lists(layout_of(v)).values()})))
    body = ";\n".join(inserts)
    return f"EXECUTE STATEMENT SET BEGIN\n{body};\nEND"


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
    ranked = (f"SELECT *, ROW_NUMBER() OVER (PARTITION BY {key} ORDER BY event_time DESC, of_value DESC) AS _rank "  # noqa: S608
              "FROM facts WHERE k = ")
    best = "\n  UNION ALL ".join(f"SELECT * FROM ({ranked}{k}) WHERE _rank <= {k}" for k in lengths)  # noqa: S608
    return (f"INSERT INTO newest SELECT `view`, entity, part, {NEWEST_TILE_MS}, tile, '', MAX(arrival),\n"
            f"  ARRAY_AGG(CAST(ROW(event_time, of_value) AS ROW<event_time BIGINT, of_value STRING>))\n"
            f"FROM ({best})\nGROUP BY {key}")


def _sink(name: str, own: Mapping[str, str], options: Mapping[str, str]) -> str:
    kinds = {"tile_ms": "BIGINT", "tile": "BIGINT"}
    listed = [f"`{k}` {kinds.get(k, 'STRING')}" for k in KEY]
    listed += ["arrival BIGINT", *(f"{n} {t}" for n, t in own.items())]
    key = ", ".join(f"`{k}`" for k in KEY)
    return source.create(name, [*listed, f"PRIMARY KEY ({key}) NOT ENFORCED"], options)


def _union(name: str, selects: Iterable[str]) -> str:
    return f"CREATE TEMPORARY VIEW {name} AS\n" + "\nUNION ALL\n".join(selects)


def _text(value: str) -> str:
    return source.text(value)
