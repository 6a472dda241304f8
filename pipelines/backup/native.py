"""MLflow's native store: a SQLite file and a folder. The copy is consistent while MLflow runs and writes."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx

from adapters.errors import Corrupt, Unavailable
from pipelines.backup import manifest as files
from pipelines.stack.supervisor import Supervisor
from settings import Settings

DATABASE: Final = "mlflow.db"
STORE: Final = "artifacts"
TABLES: Final = ("experiments", "runs", "registered_models", "model_versions", "registered_model_aliases")
READY_S: Final = 120.0


class NativeStore:
    """`folder` holds mlflow.db and artifacts/."""

    stack: files.Stack = "native"
    database = DATABASE

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = settings.home / "mlflow"

    def url(self) -> str:
        """MLflow's address."""
        return self.settings.mlflow

    def save(self, target: Path) -> tuple[dict[str, str], dict[str, int]]:
        """Database first: whatever it names is in the artifacts then. Gives artifacts' digests and rows by table."""
        if not (self.folder / DATABASE).exists():
            raise Unavailable(f"there is no {self.folder / DATABASE} to back up; make demo writes one")
        source, copy = sqlite3.connect(self.folder / DATABASE), sqlite3.connect(target / DATABASE)
        with closing(source), closing(copy):
            try:
                source.backup(copy)
            except sqlite3.DatabaseError as error:
                raise Corrupt(f"{self.folder / DATABASE} cannot be copied: {error}") from None
            counts = _checked(copy, target / DATABASE)
        return files.pack(self.folder / STORE, target / files.ARTIFACTS), counts

    def put_back(self, source: Path) -> str:
        """Replace the store of a stopped MLflow by a checked backup; what was there is kept beside it."""
        fresh = self.folder.with_name(f".mlflow-restoring-{_stamp()}")
        fresh.mkdir(parents=True)
        shutil.copyfile(source / DATABASE, fresh / DATABASE)
        with closing(sqlite3.connect(fresh / DATABASE)) as copy:
            _checked(copy, fresh / DATABASE)
        files.unpack(source / files.ARTIFACTS, fresh / STORE)
        aside = self.folder.with_name(f"mlflow-before-{_stamp()}")
        if self.folder.exists():
            self.folder.rename(aside)
        fresh.rename(self.folder)
        return f"what was there before is in {aside}" if aside.exists() else "there was nothing before"

    def destroy(self) -> None:
        """Drop database and artifacts of a stopped MLflow; a drill does this."""
        shutil.rmtree(self.folder)

    def remains(self) -> int:
        """How many files there are, the database's among them."""
        return sum(path.is_file() for path in self.folder.rglob("*")) if self.folder.exists() else 0

    def artifacts(self) -> dict[str, str]:
        """Digest of every artifact as it lies there now."""
        return files.digests(self.folder / STORE)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """MLflow does not run within the block; it runs again after it, and answers, if it ran before."""
        supervisor = Supervisor(self.settings.home)
        process = supervisor.processes().get("mlflow")
        runs = bool(process and process.pid)
        if runs:
            supervisor.stop_part("mlflow")
        elif _answers(self.settings.mlflow):
            raise Unavailable(f"an MLflow that is not ours to stop answers at {self.settings.mlflow}; stop it first")
        try:
            yield
        finally:
            if runs:
                supervisor.start_part("mlflow")
                _await(self.settings.mlflow)


def _checked(database: sqlite3.Connection, path: Path) -> dict[str, int]:
    """Rows by table. Raises Corrupt where the file is no whole database."""
    try:
        (found,) = database.execute("PRAGMA integrity_check").fetchone()
        if found != "ok":
            raise Corrupt(f"{path}: {found}")
        return {table: int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in TABLES}  # noqa: S608
    except sqlite3.DatabaseError:
        raise Corrupt(f"{path} is not MLflow's database") from None


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _await(url: str) -> None:
    deadline = time.monotonic() + READY_S
    while not _answers(url):
        if time.monotonic() > deadline:
            raise Unavailable(f"MLflow does not answer at {url} after {READY_S:.0f} s; see make logs S=mlflow")
        time.sleep(0.3)


def _stamp() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
