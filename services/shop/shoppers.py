"""Shoppers worth trying: a handful from the event log whose tastes differ, found in a background thread."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
import structlog

from adapters import event_lake
from adapters.errors import MinimartError

HANDFUL: Final = 8
RECENT: Final = 3
DAYS: Final = 2
CLICKS: Final = "shop.clicks"
log = structlog.get_logger()


@dataclass(frozen=True)
class Suggestion:
    user_id: str
    tastes: tuple[str, ...]  # categories, most clicked first, at most two
    recent: tuple[str, ...]  # item ids, newest first
    clicks: int


def pick(clicks: pa.Table) -> tuple[Suggestion, ...]:
    """Busy shoppers with differing favourite categories. `clicks`: user_id, item_id, category, event_time (ms)."""
    by_user: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
    columns = [clicks[name].to_pylist() for name in ("user_id", "event_time", "item_id", "category")]
    for user_id, moment, item_id, category in zip(*columns, strict=True):
        by_user[user_id].append((moment, item_id, category))
    differ = len(set(columns[3])) > 1
    busy = sorted(by_user.items(), key=lambda pair: (-min(len(pair[1]), 40), pair[0]))
    found: list[Suggestion] = []
    for user_id, rows in busy:
        tastes = tuple(c for c, _ in Counter(category for _, _, category in rows).most_common(2))
        if differ and any(tastes[0] == other.tastes[0] for other in found):
            continue
        recent = tuple(dict.fromkeys(item_id for _, item_id, _ in sorted(rows, reverse=True)))[:RECENT]
        found.append(Suggestion(user_id, tastes, recent, len(rows)))
        if len(found) == HANDFUL:
            break
    return tuple(found)


class Suggestions:
    """The handful, empty until the event log has clicks; looked for again every few seconds until then."""

    def __init__(self, lake: Path, retry_s: float = 5.0) -> None:
        self._lake, self._retry_s = lake, retry_s
        self._found: tuple[Suggestion, ...] = ()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._search, name="suggestions", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()

    def all(self) -> tuple[Suggestion, ...]:
        return self._found

    def _search(self) -> None:
        while not self._found:
            try:
                self._found = self._look()
            except (MinimartError, OSError, pa.ArrowException) as error:
                log.info("no_suggestions_yet", reason=str(error))
            if self._stop.wait(self._retry_s):
                return

    def _look(self) -> tuple[Suggestion, ...]:
        columns = ["user_id", "item_id", "category", "event_time"]
        newest = _newest_day(self._lake)
        return pick(event_lake.scan(self._lake, CLICKS, columns=columns, since_ms=newest)) if newest else ()


def _newest_day(lake: Path) -> int | None:
    """Unix ms at which the last DAYS days of clicks in the lake begin, None where there are none."""
    days = sorted(p.name.removeprefix("date=") for p in (lake / CLICKS).glob("date=*"))
    if not days:
        return None
    return int(datetime.fromisoformat(days[-min(DAYS, len(days))]).replace(tzinfo=UTC).timestamp() * 1000)
