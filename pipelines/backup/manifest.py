"""A backup is a folder: the database, the artifacts as one tar file, and a manifest with the digest of every file.

The folder appears under its name only when it is whole. Nothing is restored from one whose digests do not hold.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from adapters.archives import extract
from adapters.errors import BadInput, Corrupt

Stack = Literal["native", "compose"]
MANIFEST: Final = "manifest.json"
ARTIFACTS: Final = "artifacts.tar"
FORMAT: Final = 1
CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class Manifest:
    """`files` are the backup's own, `artifacts` those inside the tar file: name -> SHA-256."""

    format: int
    stack: Stack
    created_at: str
    commit: str
    database: str
    files: dict[str, str]
    artifacts: dict[str, str]
    counts: dict[str, int]


def write(folder: Path, manifest: Manifest) -> None:
    """The last file of a backup."""
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1, sort_keys=True) + "\n", encoding="utf-8")


def check(folder: Path, stack: Stack | None = None) -> Manifest:
    """The manifest of a whole backup; every byte is read. Raises BadInput (no backup, of another stack) or Corrupt."""
    path = folder / MANIFEST
    if not path.exists():
        raise BadInput(f"{folder} is no backup: it has no {MANIFEST}; `make backup` prints the folder that it wrote")
    try:
        manifest = Manifest(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise Corrupt(f"{path} cannot be read") from None
    if manifest.format != FORMAT:
        raise BadInput(f"{folder} has format {manifest.format}; this version reads {FORMAT}")
    if stack and manifest.stack != stack:
        raise BadInput(f"{folder} is a backup of STACK={manifest.stack}, and cannot be restored into STACK={stack}")
    for name, expected in manifest.files.items():
        if not (folder / name).exists() or digest(folder / name) != expected:
            raise Corrupt(f"{folder / name} is not what the manifest promises; nothing was restored")
    if (found := tar_digests(folder / ARTIFACTS)) != manifest.artifacts:
        wrong = sorted(found.items() ^ manifest.artifacts.items())[0][0]
        raise Corrupt(f"{folder / ARTIFACTS}: {wrong} is not what the manifest promises; nothing was restored")
    return manifest


def digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path there."""
    return {str(path.relative_to(folder)): digest(path) for path in _files(folder)}


def pack(folder: Path, target: Path) -> dict[str, str]:
    """All files below `folder` into a tar file; gives their digests as they were packed."""
    with tarfile.open(target, "w") as tar:
        for path in _files(folder):
            tar.add(path, arcname=str(path.relative_to(folder)), recursive=False)
    return tar_digests(target)


def unpack(source: Path, folder: Path) -> None:
    """Every file of the tar file below `folder`; names that would lead out of it are refused."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(source) as tar:
        extract(tar, folder)


def tar_digests(path: Path) -> dict[str, str]:
    """SHA-256 of every file in a tar file. Raises Corrupt where it is torn."""
    found: dict[str, str] = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile() and (content := tar.extractfile(member)) is not None:
                    found[member.name.removeprefix("./")] = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
    except (tarfile.TarError, EOFError, OSError):
        raise Corrupt(f"{path} is torn; nothing was restored") from None
    return found


def difference(before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[str]:
    """Each key that was lost or is not the same, in words; what is only in `after` was written meanwhile."""
    for key in sorted(before):
        if key not in after:
            yield f"{key}: lost"
        elif before[key] != after[key]:
            yield f"{key}: {str(before[key])[:120]} became {str(after[key])[:120]}"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []
