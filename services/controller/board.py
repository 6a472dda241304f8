"""What the world is told: the pointers that serving watches, the audit log, the topic, and the registry's aliases.

Everything here may be done twice with the same outcome, so a controller that was killed in between does it again.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import structlog

from adapters import pointers
from adapters.bundles import load_bundle
from adapters.errors import MinimartError, Unavailable
from adapters.pointers import Rollout
from adapters.registry_aliases import MODELS
from feature_repo.events import ROLLOUTS
from models.rollout.state import SERVING, Lineup, State, Transition

_log = structlog.get_logger()
BY: Final = "controller"


class Sink(Protocol):
    """The part of adapters.kafka.Publisher that is needed here."""

    def publish(self, topic: str, key: str, value: bytes, *, timestamp_ms: int | None = None) -> None:
        """Never blocks. Raises Overloaded when its buffer is full."""


class Aliases(Protocol):
    """The part of adapters.registry_aliases.RegistryAliases that is needed here; each raises Unavailable."""

    def up(self) -> bool: ...

    def set(self, model: str, alias: str, version: str | None) -> None: ...

    def tag(self, model: str, version: str, tags: dict[str, str]) -> None: ...


class Board:
    """`published` is where the pointers lie, `folder` where audit log and the copy of the state go."""

    def __init__(self, published: Path, folder: Path, sink: Sink, aliases: Aliases) -> None:
        self._published, self._folder, self._sink, self._aliases = published, folder, sink, aliases
        self._marked: object = None
        self._away = False
        folder.mkdir(parents=True, exist_ok=True)

    def point(self, state: State) -> None:
        """Make the pointers say what the state says. Raises Conflict if a newer controller has written them."""
        current = pointers.read_current(self._published)
        if state.champion and (current is None or current.bundles != state.champion):
            bundles = {
                name: load_bundle(self._published / name / ref.version, expected_sha256=ref.manifest_sha256)
                for name, ref in state.champion.items()
            }
            pointers.set_current(self._published, bundles, epoch=state.epoch, by=BY)
        serving = state.name in SERVING
        pointers.set_rollout(self._published, Rollout(
            epoch=state.epoch, state=state.name, rollout=state.rollout, salt=state.rollout or "",
            challenger=state.challenger if serving else None, previous=state.previous, shadow=state.name == "shadow",
            canary_percent=state.percent, bypass=state.bypass and serving, reason=state.reason,
        ))  # fmt: skip

    def announce(self, transition: Transition) -> None:
        """Append to the audit log, then tell the topic."""
        line = msgspec.json.encode(transition)
        with (self._folder / "audit.jsonl").open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            self._sink.publish(ROLLOUTS, transition.model, line, timestamp_ms=transition.at_ms)
        except MinimartError as error:
            _log.warning("transition_not_published", id=transition.id, why=error.detail)
        _log.info("transition", **{"from": transition.from_, "to": transition.to, "reason": transition.reason})

    def last_announced(self) -> int:
        """The `seq` of the last line of the audit log, 0 when there is none."""
        history = self.history(1)
        return history[0].seq if history else 0

    def history(self, most: int) -> list[Transition]:
        """The newest transitions, newest first."""
        try:
            lines = (self._folder / "audit.jsonl").read_bytes().splitlines()
        except OSError:
            return []
        found = []
        for line in reversed(lines[-2 * most :]):
            try:
                found.append(msgspec.json.decode(line, type=Transition))
            except msgspec.DecodeError:  # a line that was cut off by a kill
                continue
        return found[:most]

    def mark(self, state: State) -> bool:
        """Make the registry's aliases follow the state; false, and to be tried again, while it does not answer."""
        wanted = (state.champion, state.challenger, state.previous, state.name)
        if wanted == self._marked:
            return True
        try:
            for model in MODELS:
                for alias, lineup in (
                    ("champion", state.champion), ("previous", state.previous), ("challenger", state.challenger),
                ):  # fmt: skip
                    self._aliases.set(model, alias, _version(lineup, model))
                if state.challenger and model in state.challenger:
                    tags = {"rollout": state.rollout or "", "rollout_state": state.name}
                    self._aliases.tag(model, state.challenger[model].version, tags)
                elif state.name in ("promoted", "rolled_back") and state.champion.get(model):
                    tags = {"rollout_state": state.name, "rollout": state.rollout or ""}
                    self._aliases.tag(model, state.champion[model].version, tags)
        except Unavailable as error:
            if not self._away:
                _log.warning("registry_not_marked", why=error.detail)
            self._away = True
            return False
        self._marked, self._away = wanted, False
        return True

    def registry_up(self) -> bool:
        return self._aliases.up()

    def keep_copy(self, state: State) -> None:
        """A copy of the state on disk, for a Redis that comes back empty."""
        staged = self._folder / ".state.json"
        staged.write_bytes(msgspec.json.encode(state))
        staged.replace(self._folder / "state.json")

    def copy(self) -> State | None:
        try:
            return msgspec.json.decode((self._folder / "state.json").read_bytes(), type=State)
        except (OSError, msgspec.DecodeError):
            return None

    def newest_epoch(self) -> int:
        """The newest token in the pointers, which a new one must exceed."""
        try:
            current, rollout = pointers.read_current(self._published), pointers.read_rollout(self._published)
        except MinimartError:
            return 0
        return max(current.epoch if current else 0, rollout.epoch)

    def found(self) -> tuple[Lineup, str]:
        """The champion of CURRENT.json, and when a person published it ("" where the controller did)."""
        current = pointers.read_current(self._published)
        if current is None:
            return {}, ""
        return current.bundles, current.published_at if current.by == pointers.BY_HAND else ""

    def versions(self) -> dict[str, list[dict[str, Any]]]:
        """Every published version by name, newest first, with its gate and its role."""
        current, rollout = pointers.read_current(self._published), pointers.read_rollout(self._published)
        roles = (("champion", current.bundles if current else None), ("challenger", rollout.challenger),
                 ("previous", rollout.previous))  # fmt: skip
        out: dict[str, list[dict[str, Any]]] = {}
        for path in sorted(self._published.glob("*/*/manifest.json")):
            try:
                raw = path.read_bytes()
                manifest = msgspec.json.decode(raw)
                name, version = str(manifest["name"]), str(manifest["version"])
                role = next((r for r, lineup in roles if _version(lineup, name) == version), None)
                row = {key: manifest[key] for key in ("version", "gate", "created_at")}
            except (OSError, msgspec.DecodeError, LookupError, TypeError):
                continue
            out.setdefault(name, []).append({**row, "manifest_sha256": hashlib.sha256(raw).hexdigest(), "role": role})
        return {name: sorted(rows, key=lambda r: r["created_at"], reverse=True) for name, rows in out.items()}


def _version(lineup: Lineup | None, name: str) -> str | None:
    ref = (lineup or {}).get(name)
    return ref.version if ref else None
