"""What a drill says while it runs and leaves behind: a told timeline, figures, checks, pictures; PASS or FAIL.

Everything is written to `<folder>/report.json` and `report.md` after every line, so that a drill that is killed
leaves what it saw.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from adapters.provenance import commit, hardware

Mood = Literal["plain", "good", "bad", "note"]
COLOURS: dict[Mood, str] = {"plain": "", "good": "green", "bad": "red", "note": "dim"}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Line:
    """One line of the timeline: when (Unix ms), what, and the figures that belong to it."""

    at_ms: int
    what: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One thing that had to hold, and what was seen."""

    name: str
    ok: bool
    saw: str


class Report:
    """The told story of one drill. `begun_ms` is its zero."""

    def __init__(self, folder: Path, title: str, console: Console, clock: Callable[[], int] = now_ms) -> None:
        self.folder, self.title, self._console, self._clock = folder, title, console, clock
        self.begun_ms, self.ended = clock(), False
        self.lines: list[Line] = []
        self.checks: list[Check] = []
        self.figures: dict[str, Any] = {}
        self.pictures: list[tuple[str, str]] = []
        self.tables: list[tuple[str, list[str], list[list[str]]]] = []
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def passed(self) -> bool:
        """Whether the drill came to its end, something was checked and all of it held."""
        return self.ended and bool(self.checks) and all(check.ok for check in self.checks)

    def say(self, what: str, mood: Mood = "plain", *, at_ms: int | None = None, **figures: Any) -> None:
        """One line of the story, on the screen and in the report."""
        line = Line(self._clock() if at_ms is None else at_ms, what, dict(figures))
        self.lines.append(line)
        told = f"{what}  {_figures(figures)}" if figures else what
        stamp = f"[dim]{_clock_time(line.at_ms)}  {(line.at_ms - self.begun_ms) / 1000:6.1f} s[/]  "
        colour = COLOURS[mood]
        self._console.print(stamp + (f"[{colour}]" if colour else "") + told.replace("[", "\\["), highlight=False)
        self.write()

    def check(self, name: str, ok: bool, saw: str) -> bool:
        """Note one thing that had to hold."""
        self.checks.append(Check(name, bool(ok), saw))
        return bool(ok)

    def table(self, title: str, heads: list[str], rows: list[list[str]]) -> None:
        """A table for the screen and the report."""
        self.tables.append((title, heads, rows))
        shown = Table(title=title, title_justify="left")
        for head in heads:
            shown.add_column(head)
        for row in rows:
            shown.add_row(*(cell.replace("[", "\\[") for cell in row))
        self._console.print(shown)

    def picture(self, name: str, what: str) -> Path:
        """Where a picture of that name belongs; it is shown in the report."""
        self.pictures.append((name, what))
        return self.folder / name

    def end(self) -> bool:
        """Print the verdict and write everything; gives whether the drill passed."""
        for check in self.checks:
            mark = "[green]✓[/]" if check.ok else "[red]✗[/]"
            self._console.print(f"  {mark} {check.name}: [dim]{check.saw}[/]".replace("[[", "\\[["), highlight=False)
        self.ended = True
        took = (self._clock() - self.begun_ms) / 1000
        self.figures["seconds"] = round(took, 1)
        verdict = "[bold green]PASS[/]" if self.passed else "[bold red]FAIL[/]"
        where = self.folder / "report.md"
        self._console.print(f"{verdict} {self.title}, {took:.0f} s; report: {where}", highlight=False)
        self.write()
        return self.passed

    def write(self) -> None:
        document = {
            "title": self.title, "passed": self.passed, "begun_ms": self.begun_ms, "figures": self.figures,
            "checks": [asdict(c) for c in self.checks], "timeline": [asdict(line) for line in self.lines],
            "tables": [{"title": t, "columns": h, "rows": r} for t, h, r in self.tables],
            "pictures": [name for name, _ in self.pictures], "commit": commit(), "hardware": hardware(),
        }  # fmt: skip
        (self.folder / "report.json").write_text(json.dumps(document, indent=1, default=str) + "\n")
        (self.folder / "report.md").write_text(self.markdown())

    def markdown(self) -> str:
        """The report for people."""
        verdict = ("PASS" if self.passed else "FAIL") if self.ended else "not at its end"
        out = [f"# {self.title}: {verdict}", ""]
        out += [f"Begun {datetime.fromtimestamp(self.begun_ms / 1000, UTC).isoformat(timespec='seconds')}.", ""]
        if self.checks:
            out += ["| | what had to hold | seen |", "| --- | --- | --- |"]
            out += [f"| {'✓' if c.ok else '✗'} | {c.name} | {_cell(c.saw)} |" for c in self.checks] + [""]
        out += [f"![{what}]({name})\n" for name, what in self.pictures]
        for title, heads, rows in self.tables:
            out += [f"## {title}", "", f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
            out += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows] + [""]
        out += ["## Timeline", "", "| time (UTC) | s | what happened |", "| --- | ---: | --- |"]
        for line in self.lines:
            told = f"{line.what} {_figures(line.figures)}".strip()
            out.append(f"| {_clock_time(line.at_ms)} | {(line.at_ms - self.begun_ms) / 1000:.1f} | {_cell(told)} |")
        return "\n".join(out) + "\n"


def _clock_time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%H:%M:%S")


def _figures(figures: Mapping[str, Any]) -> str:
    parts = []
    for name, value in figures.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        parts.append(f"{name.replace('_', ' ')} {shown}")
    return ", ".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
