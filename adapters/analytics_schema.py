"""The tables of the analytical store: SQL files applied in order, each once, with what was applied kept in the store.

Every statement may run again (IF NOT EXISTS, OR REPLACE), so that a crash between a file and its record does no harm.
"""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path
from typing import Final

from adapters.analytics import Analytics
from adapters.errors import Misconfigured
from settings import ROOT

FOLDER: Final = ROOT / "deploy" / "clickhouse"
_APPLIED: Final = """
CREATE TABLE IF NOT EXISTS migrations (name String, sha256 String, applied_ms Int64)
ENGINE = ReplacingMergeTree(applied_ms) ORDER BY name"""


def migrate(store: Analytics, folder: Path = FOLDER) -> list[str]:
    """Make the database and apply the files that are not applied yet; returns their names.

    Raises Misconfigured when a file differs from what was applied under its name (write a new file instead) or when the
    store was made by a newer Minimart; Unavailable and BadInput as `Analytics` does.
    """
    files = {path.name: path.read_text() for path in sorted(folder.glob("[0-9]*.sql"))}
    store.create_database()
    store.execute(_APPLIED)
    applied = {str(row["name"]): str(row["sha256"]) for row in store.query("SELECT name, sha256 FROM migrations FINAL")}
    if unknown := sorted(set(applied) - set(files)):
        raise Misconfigured(f"the analytical store at {store.url} was made by a newer version (it has {unknown[-1]}, "
                            f"{folder} has not); use that version, or another volume")
    done = []
    for name, text in files.items():
        digest = hashlib.sha256(text.encode()).hexdigest()
        if name in applied:
            if applied[name] != digest:
                raise Misconfigured(f"{folder / name} was changed after it was applied to {store.url}; undo that and "
                                    "put the change into a file of the next number, or drop the store")
            continue
        for statement in statements(text):
            store.execute(statement)
        store.insert("migrations", [{"name": name, "sha256": digest, "applied_ms": int(time.time() * 1000)}])
        done.append(name)
    return done


def statements(text: str) -> list[str]:
    """The statements of an SQL file: each ends with a semicolon at the end of a line; comments are whole lines."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    parts = re.split(r";[ \t]*(?:\n|$)", "\n".join(lines))
    return [part.strip() for part in parts if part.strip()]
