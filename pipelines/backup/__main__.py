"""`make backup`, `make restore`, `make drill-restore`: save MLflow's store, put it back, and prove that it works."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from adapters.errors import MinimartError, Misconfigured
from adapters.provenance import commit
from pipelines.backup import inventory
from pipelines.backup import manifest as files
from pipelines.backup.compose import ComposeStore
from pipelines.backup.native import NativeStore
from settings import Settings, load_settings

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
StackName = Annotated[str, typer.Option(help="native or compose")]


class Store(Protocol):
    """Where MLflow keeps its database and artifacts."""

    stack: files.Stack
    database: str

    def url(self) -> str: ...
    def save(self, target: Path) -> tuple[dict[str, str], dict[str, int]]: ...
    def stopped(self) -> AbstractContextManager[None]: ...
    def put_back(self, source: Path) -> str: ...
    def destroy(self) -> None: ...
    def remains(self) -> int: ...
    def artifacts(self) -> dict[str, str]: ...


def store_of(stack: str, settings: Settings) -> Store:
    """The store of a running platform. Raises Misconfigured."""
    match stack:
        case "native":
            return NativeStore(settings)
        case "compose":
            return ComposeStore(settings)
        case other:
            raise Misconfigured(f"STACK={other!r}: there are native and compose")


def save(store: Store, parent: Path) -> Path:
    """A new backup below `parent`; gives its folder, which appears only when the backup is whole."""
    now = datetime.now(UTC)
    final = parent / f"mlflow-{now:%Y%m%dT%H%M%S%f}"
    staging = parent / f".{final.name}"
    staging.mkdir(parents=True)
    try:
        artifacts, counts = store.save(staging)
        own = {name: files.digest(staging / name) for name in (store.database, files.ARTIFACTS)}
        found = files.Manifest(
            files.FORMAT, store.stack, now.isoformat(), commit(), store.database, own, artifacts, counts
        )
        files.write(staging, found)
        return staging.rename(final)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def restore(store: Store, source: Path) -> str:
    """Put a backup back, after its digests were checked; gives a sentence about what was there before."""
    files.check(source, store.stack)
    with store.stopped():
        return store.put_back(source)


def drill(store: Store, parent: Path, say: Callable[[str], None] = print) -> list[str]:
    """Save, destroy, restore, and compare what MLflow says and every artifact's digest; gives the differences."""
    began = time.monotonic()
    before, stored = inventory.take(store.url()), store.artifacts()
    say(f"before: {_counted(before)}, {len(stored)} artifacts")
    source = save(store, parent)
    files.check(source, store.stack)
    say(f"saved and checked: {source} ({time.monotonic() - began:.1f} s)")
    begun = time.monotonic()
    with store.stopped():
        store.destroy()
        if left := store.remains():
            return [f"{left} tables or artifacts were not destroyed, so this proves nothing"]
        say("destroyed: no table and no artifact is left")
        store.put_back(source)
    say(f"restored; MLflow was away for {time.monotonic() - begun:.1f} s")
    wrong = [*files.difference(before, inventory.take(store.url())), *files.difference(stored, store.artifacts())]
    say("every run, version, alias and artifact is as before" if not wrong else f"{len(wrong)} differences")
    return wrong


def _counted(found: dict[str, Any]) -> str:
    kinds = [key.split(" ", 1)[0] for key in found]
    return ", ".join(f"{kinds.count(kind)} {kind}s".replace("aliass", "aliases") for kind in dict.fromkeys(kinds))


@app.command("save")
def save_command(
    out: Annotated[str, typer.Option(help="folder for backups")] = "", stack: StackName = "native"
) -> None:
    """Save MLflow's database and artifacts while it runs; prints the backup's folder."""
    settings = load_settings()
    folder = save(store_of(stack, settings), _parent(out, settings))
    found = files.check(folder)
    counts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in found.counts.items())
    print(f"{counts}; {len(found.artifacts)} artifacts, all digests checked", file=sys.stderr)
    print(folder)


@app.command("restore")
def restore_command(
    source: Annotated[Path, typer.Option("--from", help="a backup's folder")], stack: StackName = "native"
) -> None:
    """Put a backup back. MLflow is stopped meanwhile; serving goes on."""
    print(restore(store_of(stack, load_settings()), source))


@app.command("drill")
def drill_command(out: str = "", stack: StackName = "native") -> None:
    """Save, destroy, restore and compare on the platform that runs; PASS or FAIL. The backup is kept."""
    settings = load_settings()
    wrong = drill(store_of(stack, settings), _parent(out, settings))
    for line in wrong[:20]:
        print(f"  {line}")
    print("PASS" if not wrong else "FAIL")
    raise typer.Exit(1 if wrong else 0)


def _parent(out: str, settings: Settings) -> Path:
    return Path(out) if out else settings.home / "backups"


def main() -> None:
    """Run the command; a known error is one line and an exit code."""
    try:
        app()
    except MinimartError as error:
        print(f"minimart: {error.detail}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, Misconfigured) else 1) from None


if __name__ == "__main__":
    main()
