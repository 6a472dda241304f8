"""Incident files: what went wrong, when, what was seen and done. `<id>.json` for machines, `<id>.md` for people.

The monitor opens one for each alert that fires and closes it when the alert clears; the drills write theirs alike.
Several processes may write at once: each change happens under a lock and replaces the file in one rename.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from adapters.errors import NotFound

State = Literal["open", "closed"]
ID_PATTERN: Final = r"^[0-9]{8}T[0-9]{6}-[a-z0-9-]{1,60}-[0-9a-f]{8}$"
MOST_ENTRIES: Final = 500  # of a timeline; beyond, the newest are kept


@dataclass(frozen=True)
class Entry:
    """One moment: when (ms since 1970, UTC), who says it, what happened."""

    at_ms: int
    by: str
    what: str


@dataclass(frozen=True)
class Evidence:
    """What was seen, as Markdown; `picture` is a file beside the incident's."""

    title: str
    text: str
    picture: str | None = None


@dataclass(frozen=True)
class Incident:
    """`key` says which trouble it is (an alert's fingerprint): at most one incident with a key is open at a time."""

    id: str
    key: str
    kind: str
    title: str
    severity: str
    state: State
    opened_at_ms: int
    closed_at_ms: int | None = None
    labels: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    look: str = ""
    runbook: str = ""
    timeline: tuple[Entry, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    resolution: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as the JSON file has it."""
        return asdict(self) | {
            "timeline": [asdict(entry) for entry in self.timeline],
            "evidence": [asdict(one) for one in self.evidence],
        }

    def brief(self) -> dict[str, Any]:
        """What a list of incidents shows of it."""
        keys = ("id", "kind", "title", "severity", "state", "opened_at_ms", "closed_at_ms", "summary", "runbook")
        return {key: getattr(self, key) for key in keys}


def incident_id(kind: str, key: str, at_ms: int) -> str:
    """The same trouble beginning at the same second has the same id, however often it is told."""
    slug = re.sub(r"[^a-z0-9]+", "-", _dashed(kind).lower())[:60].strip("-") or "incident"
    digest = hashlib.blake2b(key.encode(), digest_size=4).hexdigest()
    return f"{_time(at_ms):%Y%m%dT%H%M%S}-{slug}-{digest}"


class Incidents:
    """The incidents of one platform, as files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(
        self,
        title: str,
        *,
        kind: str,
        at_ms: int,
        severity: str = "warn",
        labels: Mapping[str, str] | None = None,
        summary: str = "",
        look: str = "",
        runbook: str = "",
        key: str | None = None,
        by: str = "monitor",
    ) -> Incident:
        """The open incident with this key; else a new one that began at `at_ms`; else, where that one ended, it."""
        key = key or kind
        with self._locked():
            name = incident_id(kind, key, at_ms)
            if found := next((one for one in self._read_all() if one.key == key and one.state == "open"), None):
                return found
            if self._path(name).exists():
                return self._read(name)
            return self._write(
                Incident(
                    name, key, kind, title, severity, "open", at_ms, None, dict(labels or {}), summary, look, runbook,
                    (Entry(at_ms, by, f"began: {summary or title}"),),
                )
            )  # fmt: skip

    def note(self, name: str, what: str, *, at_ms: int, by: str = "monitor") -> Incident:
        """Add a moment to the timeline. Raises NotFound."""
        return self._change(name, lambda one: _with_entry(one, Entry(at_ms, by, what)))

    def evidence(self, name: str, title: str, text: str, *, picture: str | None = None) -> Incident:
        """Add what was seen; evidence of the same title is replaced. Raises NotFound."""
        added = Evidence(title, text, picture)
        return self._change(
            name, lambda one: replace(one, evidence=(*(e for e in one.evidence if e.title != title), added))
        )

    def close(self, name: str, resolution: str, *, at_ms: int, by: str = "monitor") -> Incident:
        """End it; an incident that has ended stays as it is. Raises NotFound."""

        def ended(one: Incident) -> Incident:
            if one.state == "closed":
                return one
            told = _with_entry(one, Entry(at_ms, by, f"ended: {resolution}"))
            return replace(told, state="closed", closed_at_ms=at_ms, resolution=resolution)

        return self._change(name, ended)

    def find_open(self, key: str) -> Incident | None:
        """The open incident with this key."""
        return next((one for one in self.all("open") if one.key == key), None)

    def get(self, name: str) -> Incident:
        """Raises NotFound."""
        if not re.match(ID_PATTERN, name) or not self._path(name).exists():
            raise NotFound(f"there is no incident {name!r}", field="incident_id")
        return self._read(name)

    def all(self, state: State | None = None) -> list[Incident]:
        """Newest first."""
        found = [one for one in self._read_all() if state is None or one.state == state]
        return sorted(found, key=lambda one: (one.opened_at_ms, one.id), reverse=True)

    def _change(self, name: str, how: Any) -> Incident:
        with self._locked():
            before = self.get(name)
            after: Incident = how(before)
            return before if after == before else self._write(after)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, name: str) -> Incident:
        data = json.loads(self._path(name).read_text(encoding="utf-8"))
        data["timeline"] = tuple(Entry(**entry) for entry in data["timeline"])
        data["evidence"] = tuple(Evidence(**one) for one in data["evidence"])
        return Incident(**data)

    def _read_all(self) -> list[Incident]:
        return [self._read(path.stem) for path in self.folder.glob("*.json") if re.match(ID_PATTERN, path.stem)]

    def _write(self, incident: Incident) -> Incident:
        _replace(self._path(incident.id), json.dumps(incident.as_dict(), indent=1, ensure_ascii=False) + "\n")
        _replace(self.folder / f"{incident.id}.md", report(incident))
        return incident

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def report(incident: Incident) -> str:
    """The incident as a page for people, in Markdown."""
    state = "open" if incident.closed_at_ms is None else f"closed after {_lasted(incident)}"
    began = _shown(incident.opened_at_ms)
    lines = [f"# {incident.title}", "", f"**{incident.severity}** · {state} · began {began}", ""]
    if incident.summary:
        lines += [incident.summary, ""]
    if incident.look:
        lines += [f"**Look at:** {incident.look}", ""]
    if incident.runbook:
        lines += [f"**Runbook:** {incident.runbook}", ""]
    if incident.labels:
        lines += ["| label | value |", "|---|---|"]
        lines += [f"| {_cell(key)} | {_cell(value)} |" for key, value in sorted(incident.labels.items())] + [""]
    lines += ["## Timeline", ""]
    lines += [f"- {_shown(e.at_ms)} · {e.by}: {_line(e.what)}" for e in incident.timeline]
    for one in incident.evidence:
        lines += ["", f"## {_line(one.title)}", "", one.text]
        lines += ["", f"![{_line(one.title)}]({one.picture})"] if one.picture else []
    if incident.resolution:
        lines += ["", "## Resolution", "", incident.resolution]
    return "\n".join(lines) + "\n"


def _with_entry(incident: Incident, entry: Entry) -> Incident:
    ordered = sorted((*incident.timeline, entry), key=lambda one: one.at_ms)
    return replace(incident, timeline=tuple(ordered[-MOST_ENTRIES:]))


def _replace(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(name).chmod(0o644)
    Path(name).replace(path)


def _dashed(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name)


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _shown(at_ms: int) -> str:
    return f"{_time(at_ms):%Y-%m-%d %H:%M:%S} UTC"


def _lasted(incident: Incident) -> str:
    seconds = max(0, ((incident.closed_at_ms or 0) - incident.opened_at_ms) // 1000)
    hours, rest = divmod(seconds, 3600)
    words = [f"{hours} h"] if hours else []
    words += [f"{rest // 60} min"] if rest >= 60 else []
    return " ".join(words) if words else f"{rest} s"


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")
