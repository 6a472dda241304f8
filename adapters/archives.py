"""Tar files from elsewhere, unpacked without trusting their names: the same on Pythons with and without filters."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

from adapters.errors import Corrupt

_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Every folder and file of `archive` below `folder`. Raises Corrupt, before anything is written, where a member is
    neither, or would lie elsewhere."""
    root = folder.resolve()
    members = archive.getmembers()
    for member in members:
        if not (member.isfile() or member.isdir()) or not (root / member.name).resolve().is_relative_to(root):
            raise Corrupt(f"member {member.name!r} is not a plain file below the folder")
    archive.extractall(root, members, **_FILTER)
