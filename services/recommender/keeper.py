"""Keeps the shelf: loads newly published models, follows the catalogue, and puts fresh item windows on it.

One background thread. A new shelf is built and its models warmed before it takes the old one's place in one step; a
published set that does not verify is refused, the old one stays, and `refused` says why.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge

from adapters.bundles import CURRENT, load_current
from adapters.errors import MinimartError
from adapters.model_server import InProcess
from adapters.telemetry import set_model_version
from feature_repo.events import ItemListed
from services.recommender.lineup import Lineup, load_lineup
from services.recommender.shelf import Shelf, Table, activity_rows, align, build_table, stock_shelf
from services.recommender.terms import Rows

REFUSED: Final = Counter("minimart_bundles_refused_total", "Published sets of models that were refused")
SWAPPED: Final = Counter("minimart_bundles_loaded_total", "Published sets of models that came into use")
SNAPSHOT_AGE: Final = Gauge("minimart_item_snapshot_age_seconds", "Age of the item windows that answers use")
SHELF_ITEMS: Final = Gauge("minimart_shelf_items", "Products on the shelf that can be bought")
_SERVED: Final = (("two_tower_user", "two-tower"), ("preranker", "preranker"), ("ranker", "ranker"))
_log = structlog.get_logger()


class Catalogue(Protocol):
    """The part of adapters.catalogue.Catalogue that is needed here."""

    version: int

    @property
    def ready(self) -> bool: ...

    def get(self, item_id: str) -> ItemListed | None: ...

    def snapshot(self) -> tuple[ItemListed, ...]: ...


class Windows(Protocol):
    """The part of adapters.online_store.ItemSnapshot that is needed here."""

    @property
    def ready(self) -> bool: ...

    @property
    def items(self) -> tuple[str, ...]: ...

    def row_of(self, item_id: str) -> int: ...

    def columns(self, now_ms: int) -> Mapping[str, NDArray[Any]]: ...

    def age_s(self) -> float: ...


class Keeper:
    """Holds the shelf that requests are answered from; `tick` renews it, `start` does so every `every_s` seconds."""

    def __init__(
        self, published: Path, catalogue: Catalogue, windows: Windows, in_process: InProcess, *,
        clock: Callable[[], int], threads: int = 1, every_s: float = 1.0,
    ) -> None:
        self._published, self._catalogue, self._windows = published, catalogue, windows
        self._in_process, self._clock, self._threads, self._every_s = in_process, clock, threads, every_s
        self._seen: tuple[int, int] | None = None
        self._previous = Lineup()
        self._aligned: tuple[Table, int, Rows] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self.refused = ""
        self.shelf: Shelf = stock_shelf(build_table(Lineup(), (), -1), {}, clock())

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def in_stock(self, item_id: str) -> bool:
        """Whether the live catalogue says that it can be bought."""
        item = self._catalogue.get(item_id)
        return item is not None and item.stock > 0

    def missing(self) -> dict[str, str]:
        """What keeps this process from being ready: part -> reason."""
        missing = {}
        if not self._catalogue.ready or not self.shelf.table.sellable.any():
            missing["catalogue"] = "no products yet: `make demo` publishes them, or send item events to the collector"
        if not self.shelf.lineup.versions:
            missing["models"] = self.refused or "nothing is published yet: `make demo` trains and publishes"
        return missing

    def notes(self) -> dict[str, str]:
        """What an operator should know although we serve: part -> note."""
        notes = {"refused_models": self.refused} if self.refused else {}
        age = self._windows.age_s()
        return notes | ({"item_windows": f"{age:.0f} s old"} if age > 30 else {})

    def tick(self) -> None:
        """Renew the shelf once. Raises nothing that a damaged bundle could cause."""
        lineup = self._newest_lineup()
        table = self.shelf.table
        version = self._catalogue.version
        if lineup is not table.lineup or version != table.catalogue_version:
            table = build_table(lineup, self._catalogue.snapshot(), version)
        now_ms = self._clock()
        shelf = stock_shelf(table, self._activity(table, now_ms), now_ms)
        before, self.shelf = self.shelf.lineup, shelf
        if shelf.lineup is not before:
            self._swapped(before, shelf.lineup)
        SNAPSHOT_AGE.set(self._windows.age_s())
        SHELF_ITEMS.set(int(table.sellable.sum()))

    def _newest_lineup(self) -> Lineup:
        """The published set if it changed and verifies, else the one in use."""
        current = self.shelf.lineup
        try:
            status = (self._published / CURRENT).stat()
        except OSError:
            return current
        mark = (status.st_mtime_ns, status.st_ino)
        if mark == self._seen:
            return current
        self._seen = mark
        try:
            lineup = load_lineup(load_current(self._published), self._in_process, threads=self._threads)
        except (MinimartError, OSError, ValueError, KeyError) as error:
            self.refused = f"{type(error).__name__}: {error}"
            REFUSED.inc()
            _log.error("models_refused", why=self.refused, serving=dict(current.versions))
            return current
        self.refused = ""
        return lineup

    def _swapped(self, before: Lineup, after: Lineup) -> None:
        for name, version in after.versions.items():
            set_model_version(name, version, before.versions.get(name))
        SWAPPED.inc()
        keep = (after, before, self._previous)  # requests in flight, and the way back
        self._in_process.keep_only(
            {(model, lineup.versions[name]) for lineup in keep for model, name in _SERVED if name in lineup.versions}
        )
        self._previous = before
        _log.info("models_in_use", versions=dict(after.versions))

    def _activity(self, table: Table, now_ms: int) -> dict[str, NDArray[np.float64]]:
        if not self._windows.ready:
            return {}
        columns = self._windows.columns(now_ms)
        held = len(self._windows.items)
        if self._aligned is None or self._aligned[0] is not table or self._aligned[1] != held:
            self._aligned = (table, held, activity_rows(table.ids, self._windows.row_of))
        rows = self._aligned[2]
        size = min((len(column) for column in columns.values()), default=0)
        return align({name: column[:size] for name, column in columns.items()}, np.where(rows < size, rows, -1))

    def _run(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                self.tick()
            except Exception:  # noqa: BLE001 the old shelf stays; the next round tries again
                _log.exception("shelf_not_renewed")
            self._stop.wait(max(0.05, self._every_s - (time.monotonic() - begun)))
