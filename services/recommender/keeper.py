"""Keeps the shelves: follows who serves, the catalogue and the item windows.

One background thread. It looks at the pointers four times a second; a new shelf is built and its models warmed before
it takes the old one's place in one step. Champion, challenger and the champion before stay loaded, so that going back
is a matter of the pointer. A set that does not verify is refused, what served goes on, and `refused` says why.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import structlog
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge

from adapters import pointers
from adapters.errors import Corrupt, MinimartError
from adapters.model_server import InProcess
from adapters.pointers import CURRENT, ROLLOUT, Rollout
from adapters.telemetry import set_model_version
from feature_repo.events import ItemListed
from models.rollout.state import Lineup as Refs
from services.recommender.lineup import Lineup, load_lineup
from services.recommender.roles import Choice, Roles
from services.recommender.shelf import Activity, Shelf, Table, activity_of, amended, build_table, stock_shelf

REFUSED: Final = Counter("minimart_bundles_refused_total", "Published sets of models that were refused")
SWAPPED: Final = Counter("minimart_bundles_loaded_total", "Published sets of models that came into use")
SNAPSHOT_AGE: Final = Gauge(
    "minimart_item_snapshot_age_seconds", "Age of the item windows that answers use", multiprocess_mode="livemax"
)
SHELF_ITEMS: Final = Gauge(
    "minimart_shelf_items", "Products on the shelf that can be bought", multiprocess_mode="livemin"
)
CANARY: Final = Gauge(
    "minimart_canary_percent", "Share of the shoppers whom the challenger answers here, in percent",
    multiprocess_mode="livemin",
)  # fmt: skip
LINEUP: Final = Gauge(
    "minimart_lineup_info", "1 for each loaded version, by role", ["role", "model", "version"],
    multiprocess_mode="livemax",
)  # fmt: skip
_SERVED: Final = (("two_tower_user", "two-tower"), ("preranker", "preranker"), ("ranker", "ranker"))
_log = structlog.get_logger()


class Catalogue(Protocol):
    """The part of adapters.catalogue.Catalogue that is needed here."""

    version: int

    @property
    def ready(self) -> bool: ...

    def get(self, item_id: str) -> ItemListed | None: ...

    def snapshot(self) -> tuple[ItemListed, ...]: ...

    def changes_since(self, version: int) -> Mapping[str, ItemListed | None] | None: ...


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
    """Holds the shelves that requests are answered from; `tick` renews them, `start` does so until `close`."""

    def __init__(
        self, published: Path, catalogue: Catalogue, windows: Windows, in_process: InProcess, *,
        clock: Callable[[], int], threads: int = 1, every_s: float = 1.0, look_s: float = 0.25, bypass: bool = False,
    ) -> None:  # fmt: skip
        """`look_s`: how often the pointers are looked at; `every_s`: how often item windows and stock are renewed.

        `bypass` lets a challenger serve that a drill sent around the gate.
        """
        self._published, self._catalogue, self._windows = published, catalogue, windows
        self._in_process, self._clock, self._threads = in_process, clock, threads
        self._every_s, self._look_s, self._bypass = every_s, look_s, bypass
        self._seen: tuple[object, object] = (None, None)
        self._lineups: dict[tuple[tuple[str, str], ...], Lineup] = {}
        self._leaving: tuple[Lineup, ...] = ()
        self._previous: Lineup | None = None
        self._shown: set[tuple[str, str, str]] = set()
        self._rollout = Rollout()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._refused: dict[str, str] = {}
        self.roles = Roles(stock_shelf(build_table(Lineup(), (), -1), Activity(), clock()))

    @property
    def shelf(self) -> Shelf:
        """The champion's."""
        return self.roles.champion

    @property
    def refused(self) -> Mapping[str, str]:
        """Role -> why its models are not served."""
        return dict(self._refused)

    def choose(self, user_id: str) -> Choice:
        """The shelf that answers this shopper."""
        return self.roles.choose(user_id)

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
            missing["models"] = self._refused.get("champion", "nothing is published yet: `make demo` does it")
        return missing

    def notes(self) -> dict[str, str]:
        """What an operator should know although we serve: part -> note."""
        names = {"champion": "refused_models"}
        notes = {names.get(role, f"refused_{role}"): why for role, why in self._refused.items()}
        age = self._windows.age_s()
        return notes | ({"item_windows": f"{age:.0f} s old"} if age > 30 else {})

    def describe(self) -> dict[str, Any]:
        """Who serves whom, for people and the controller."""
        roles, previous = self.roles, self._previous
        pointer, challenger = roles.rollout, roles.challenger
        return {
            "champion": dict(roles.champion.lineup.versions),
            "challenger": None if challenger is None else dict(challenger.lineup.versions),
            "previous": None if previous is None else dict(previous.versions),
            "rollout": pointer.rollout, "state": pointer.state, "canary_percent": pointer.canary_percent,
            "shadow": pointer.shadow, "epoch": pointer.epoch, "revision": pointer.revision,
            "refused": dict(self._refused),
        }  # fmt: skip

    def tick(self) -> None:
        """Renew the shelves once. Raises nothing that a damaged bundle could cause."""
        before = self.roles
        champion, challenger = self._follow()
        now_ms = self._clock()
        first = self._stocked(before.champion, champion, now_ms)
        second = None
        if challenger is not None:
            second = self._stocked(before.challenger or before.champion, challenger, now_ms)
        self.roles = Roles(first, second, self._rollout)
        if first.lineup is not before.champion.lineup:
            self._swapped(before.champion.lineup, first.lineup)
        CANARY.set(self._rollout.canary_percent if second is not None else 0)
        SNAPSHOT_AGE.set(self._windows.age_s())
        SHELF_ITEMS.set(int(first.table.sellable.sum()))

    def _follow(self) -> tuple[Lineup, Lineup | None]:
        """The lineups that the pointers ask for now: champion and challenger."""
        marks = (_mark(self._published / CURRENT), _mark(self._published / ROLLOUT))
        roles = self.roles
        if marks == self._seen:
            return roles.champion.lineup, roles.challenger.lineup if roles.challenger else None
        self._seen, self._refused = marks, {}
        self._rollout = self._read_rollout()
        held = dict(self._lineups)
        champion = self._champion(roles.champion.lineup)
        wanted = self._rollout
        challenger = self._load("challenger", wanted.challenger, bypass=wanted.bypass and self._bypass)
        if challenger is not None and not challenger.complete:
            lacks = sorted(champion.versions.keys() - challenger.versions.keys())
            self._refuse("challenger", Corrupt(f"the challenger lacks {', '.join(lacks)}"))
            challenger = None
        self._previous = self._load("previous", wanted.previous)
        self._keep_only(champion, challenger, held)
        return champion, challenger

    def _read_rollout(self) -> Rollout:
        try:
            return pointers.read_rollout(self._published)
        except MinimartError as error:
            self._refuse("rollout", error)
            return Rollout()

    def _champion(self, serving: Lineup) -> Lineup:
        """The published set if it verifies, else the one that serves."""
        try:
            current = pointers.read_current(self._published)
        except MinimartError as error:
            self._refuse("champion", error)
            return serving
        return self._load("champion", current.bundles if current else None) or serving

    def _load(self, role: str, refs: Refs | None, *, bypass: bool = False) -> Lineup | None:
        """The lineup of `refs`, from memory where it is loaded; None, and noted, if it does not verify."""
        if not refs:
            return None
        key = tuple((name, ref.manifest_sha256) for name, ref in sorted(refs.items()))
        if key not in self._lineups:
            try:
                bundles = pointers.load_refs(self._published, refs, bypass=bypass)
                self._lineups[key] = load_lineup(bundles, self._in_process, threads=self._threads)
            except (MinimartError, OSError, ValueError, KeyError) as error:
                self._refuse(role, error)
                return None
        return self._lineups[key]

    def _refuse(self, role: str, error: Exception) -> None:
        self._refused[role] = f"{type(error).__name__}: {error}"
        REFUSED.inc()
        _log.error("models_refused", role=role, why=str(error), serving=dict(self.shelf.lineup.versions))

    def _keep_only(self, champion: Lineup, challenger: Lineup | None, held: Mapping[Any, Lineup]) -> None:
        """Forget lineups that have no role. What served until now stays for the requests in flight, one change long."""
        roles = {"champion": champion, "challenger": challenger, "previous": self._previous}
        kept = [lineup for lineup in roles.values() if lineup is not None]
        self._lineups = {key: lineup for key, lineup in self._lineups.items() if any(lineup is one for one in kept)}
        self._leaving = tuple(one for one in held.values() if all(one is not other for other in kept))
        needed = (*kept, *self._leaving)
        self._in_process.keep_only(
            {(model, lineup.versions[name]) for lineup in needed for model, name in _SERVED if name in lineup.versions}
        )
        loaded = {(r, *ref) for r, lineup in roles.items() if lineup is not None for ref in lineup.versions.items()}
        for labels in self._shown - loaded:
            LINEUP.labels(*labels).set(0)  # first: several workers' metrics are merged, where nothing can be removed
            LINEUP.remove(*labels)
        for labels in loaded:
            LINEUP.labels(*labels).set(1)
        self._shown = loaded

    def _swapped(self, before: Lineup, after: Lineup) -> None:
        for name, version in after.versions.items():
            set_model_version(name, version, before.versions.get(name))
        SWAPPED.inc()
        _log.info("models_in_use", versions=dict(after.versions))

    def _stocked(self, before: Shelf, lineup: Lineup, now_ms: int) -> Shelf:
        """A shelf of `lineup`: that of `before` with what has changed since, where it is of the same models."""
        table, amends = self._table(before.table, lineup)
        activity = before.activity if amends else Activity()
        if self._windows.ready:
            columns = self._windows.columns(now_ms)
            activity = activity_of(table, columns, self._windows.items, self._windows.row_of, activity)
        return stock_shelf(table, activity, now_ms, before)

    def _table(self, before: Table, lineup: Lineup) -> tuple[Table, bool]:
        """The table of `lineup` now, and whether it is `before` or that one amended, with rows where they were."""
        version = self._catalogue.version
        if lineup is before.lineup:
            if version == before.catalogue_version:
                return before, True
            changes = self._catalogue.changes_since(before.catalogue_version)
            if changes is not None and (table := amended(before, changes, version)) is not None:
                return table, True
        return build_table(lineup, self._catalogue.snapshot(), version), False

    def _run(self) -> None:
        renewed = -self._every_s
        while not self._stop.is_set():
            begun = time.monotonic()
            marks = (_mark(self._published / CURRENT), _mark(self._published / ROLLOUT))
            if marks != self._seen or begun - renewed >= self._every_s:
                renewed = begun
                try:
                    self.tick()
                except Exception:  # noqa: BLE001 the old shelves stay; the next round tries again
                    self._seen = ("a tick failed", None)  # else what the pointers ask for waits for their next change
                    _log.exception("shelf_not_renewed")
            self._stop.wait(max(0.05, self._look_s - (time.monotonic() - begun)))


def _mark(path: Path) -> tuple[int, int] | None:
    """Changes whenever the file is replaced; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
