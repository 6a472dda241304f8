"""What an evaluation says while it runs: a bar for the stage it is in, and a line for each that is done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars


class Say(Protocol):
    """Reports within a stage: words, and how much is done where that is not seconds."""

    def __call__(self, words: str, done: float | None = None) -> None: ...


class Progress:
    """Bars on a terminal, lines elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._began = time.monotonic()

    def say(self, line: str) -> None:
        self._console.print(f"[{time.monotonic() - self._began:6.0f} s] {line}", markup=False)

    @contextmanager
    def stage(self, title: str, total: float) -> Iterator[Say]:
        """A bar of `total` seconds, or of what `done` counts."""
        began = time.monotonic()
        columns: tuple[Any, ...] = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        if not self._console.is_terminal:
            self.say(f"{title} ...")
        with Bars(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as bars:
            task = bars.add_task(title, total=total)

            def say(words: str, done: float | None = None) -> None:
                completed = time.monotonic() - began if done is None else done
                bars.update(task, description=f"{title}: {words}", completed=min(completed, total))

            yield say
