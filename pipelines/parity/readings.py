"""The same questions to everyone who claims to know: the stream's engine, offline SQL, and what was logged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from adapters import event_lake
from adapters.errors import Unavailable
from feature_repo import events
from pipelines.parity.compare import Asked
from pipelines.parity.engines import Engine
from pipelines.parity.sample import Sample
from pipelines.parity.servers import Servers
from pipelines.point_in_time import features_at

Row = dict[str, Any]
LISTS: Final = frozenset({"last_k", "top_k"})


@dataclass
class Readings:
    """Questions of one view in order, and the rows that each asked gave for them."""

    asked: list[Asked] = field(default_factory=list)
    rows: dict[str, list[Row]] = field(default_factory=dict)


def from_engine(name: str, engine: Engine, servers: Servers, sample: Sample, times: Sequence[int]
                ) -> dict[str, Readings]:
    """View -> what the engine says of all sampled keys at all times. Raises Unavailable where it leaves out a feature
    that it does not refuse."""
    found = {}
    refused = set(engine.refused())
    for view, keys in sample.items():
        declared = set(servers.plan.view(view).features) - refused
        mine = found[view] = Readings(rows={name: []})
        for at, columns in zip(times, engine.read(view, keys, times), strict=True):
            if missing := declared - set(columns):
                raise Unavailable(f"{name} left out {', '.join(sorted(missing))} of {view} and does not refuse them")
            mine.asked += [Asked(view, key, at) for key in keys]
            mine.rows[name] += as_rows({f: c for f, c in columns.items() if f in declared}, len(keys))
    return found


def from_sql(servers: Servers, view: str, asked: Sequence[Asked]) -> list[Row]:
    """What the point-in-time join over the lake says of the same keys and times."""
    names = servers.plan.view(view).join_keys
    keys = {name: np.array([one.key[at] for one in asked], dtype=object) for at, name in enumerate(names)}
    found = features_at(servers.lake, servers.plan, view, keys, np.array([one.at_ms for one in asked]))
    return as_rows(found, len(asked))


def logged(servers: Servers) -> dict[str, Readings]:
    """View -> the vectors of the decision log in the lake, each with how far the stream had counted."""
    found: dict[str, Readings] = {}
    for payload in event_lake.scan(servers.lake, events.DECISIONS, ["payload"])["payload"].to_pylist():
        record = json.loads(payload)
        view = record["view"]
        upto = {(topic, partition): end for topic, partition, end in record["position"]}
        mine = found.setdefault(view, Readings(rows={"logged": []}))
        mine.asked.append(Asked(view, tuple(record["key"]), record["now_ms"], upto))
        kinds = {f.name: f.function for f in servers.plan.view(view).declared}
        mine.rows["logged"].append({name: math.nan if value is None and kinds[name] != "last" else value
                                    for name, value in record["features"].items()})
    return found


def as_rows(columns: Mapping[str, Any], n: int) -> list[Row]:
    """Columns [n] as one dictionary per question."""
    lists = {name: column.tolist() if isinstance(column, np.ndarray) else list(column)
             for name, column in columns.items()}
    return [{name: column[at] for name, column in lists.items()} for at in range(n)]
