"""Who serves: the two small files that the recommender watches, each swapped atomically.

    <published>/CURRENT.json    the champion           written by pipelines/publish and by the controller
    <published>/ROLLOUT.json    challenger and shares  written by the controller alone

Every write carries the writer's fencing token (`epoch`). A token older than what the files hold is refused, so a
controller that was paused and has lost its lease cannot undo what its successor did.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from adapters.bundles import Bundle, load_bundle, put_file, require_passed, sync_folder
from adapters.errors import Conflict, Corrupt
from models.rollout.state import Lineup, Ref

CURRENT: Final = "CURRENT.json"
ROLLOUT: Final = "ROLLOUT.json"
LOCK: Final = ".pointers.lock"
BY_HAND: Final = "publish"


class Current(msgspec.Struct, frozen=True):
    """The champion."""

    bundles: Lineup
    published_at: str
    epoch: int = 0
    by: str = BY_HAND


class Rollout(msgspec.Struct, frozen=True):
    """The challenger and how many shoppers see it. `previous` is what a rollback of the champion goes back to."""

    epoch: int = 0
    revision: int = 0
    state: str = "healthy"
    rollout: str | None = None
    challenger: Lineup | None = None
    previous: Lineup | None = None
    shadow: bool = False
    canary_percent: int = 0
    salt: str = ""
    bypass: bool = False
    decided_at: str = ""
    reason: str = ""


def set_current(folder: Path, bundles: Mapping[str, Bundle], *, epoch: int | None = None, by: str = BY_HAND) -> None:
    """Point CURRENT.json at `bundles` in one atomic step; without `epoch` with the newest token there is.

    Raises Corrupt if a bundle is damaged or ungated, Conflict if `epoch` is older than what was written before.
    """
    for bundle in bundles.values():
        require_passed(load_bundle(bundle.folder, expected_sha256=bundle.manifest_sha256))
    refs = {name: Ref(bundle.version, bundle.manifest_sha256) for name, bundle in sorted(bundles.items())}
    with _locked(folder):
        newest = _newest(folder)
        _refuse_older(epoch, newest, CURRENT)
        _write(folder / CURRENT, Current(refs, now_text(), newest if epoch is None else epoch, by))


def set_rollout(folder: Path, pointer: Rollout) -> Rollout:
    """Write ROLLOUT.json with the next revision and return it; an unchanged pointer is not written again.

    Raises Conflict if its epoch is older than what was written before.
    """
    with _locked(folder):
        _refuse_older(pointer.epoch, _newest(folder), ROLLOUT)
        before = read_rollout(folder)
        same = msgspec.structs.replace(pointer, revision=before.revision, decided_at=before.decided_at)
        if same == before:
            return before
        new = msgspec.structs.replace(pointer, revision=before.revision + 1, decided_at=now_text())
        _write(folder / ROLLOUT, new)
        return new


def read_current(folder: Path) -> Current | None:
    """CURRENT.json, None when nothing was published yet. Raises Corrupt when it cannot be read."""
    found: Current | None = _read(folder / CURRENT, Current)
    return found


def read_rollout(folder: Path) -> Rollout:
    """ROLLOUT.json, or "no rollout" when there is none. Raises Corrupt when it cannot be read."""
    return _read(folder / ROLLOUT, Rollout) or Rollout()


def load_current(folder: Path) -> dict[str, Bundle]:
    """Every bundle of the champion by name, verified. Empty when nothing was published yet. Raises Corrupt."""
    current = read_current(folder)
    return {} if current is None else load_refs(folder, current.bundles)


def load_refs(folder: Path, refs: Lineup, *, bypass: bool = False) -> dict[str, Bundle]:
    """The bundles that `refs` name, verified. Raises Corrupt if one is damaged, another one or ungated."""
    bundles = {
        name: load_bundle(folder / name / ref.version, expected_sha256=ref.manifest_sha256)
        for name, ref in refs.items()
    }
    for name, bundle in bundles.items():
        require_passed(bundle, bypass=bypass)
        if bundle.name != name:
            raise Corrupt(f"{bundle.folder}: holds bundle {bundle.name!r}, but the pointer calls it {name!r}")
    return bundles


def in_use(folder: Path) -> dict[str, set[str]]:
    """Name -> versions that champion, challenger or previous need; none of them may be deleted."""
    current, rollout = read_current(folder), read_rollout(folder)
    used: dict[str, set[str]] = {}
    for lineup in (current.bundles if current else None, rollout.challenger, rollout.previous):
        for name, ref in (lineup or {}).items():
            used.setdefault(name, set()).add(ref.version)
    return used


def now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _read(path: Path, kind: Any) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise Corrupt(f"{path}: cannot be read: {error}") from None


def _newest(folder: Path) -> int:
    """The newest token in the files. A file that cannot be read is about to be replaced and says nothing."""
    found = 0
    for name, kind in ((CURRENT, Current), (ROLLOUT, Rollout)):
        try:
            pointer = _read(folder / name, kind)
        except Corrupt:
            continue
        found = max(found, pointer.epoch if pointer else 0)
    return found


def _refuse_older(epoch: int | None, newest: int, file: str) -> None:
    if epoch is not None and epoch < newest:
        raise Conflict(f"{file}: fencing token {epoch} is older than {newest}: another controller leads")


def _write(path: Path, value: Any) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    put_file(Path(name), msgspec.json.format(msgspec.json.encode(value), indent=2))
    Path(name).chmod(0o644)
    Path(name).replace(path)
    sync_folder(path.parent)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
