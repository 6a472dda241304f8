"""Published model bundles: folders of files with a manifest of digests, and one pointer that is swapped atomically.

    <published>/<name>/<version>/{files, manifest.json}
    <published>/CURRENT.json, ROLLOUT.json      who serves: see adapters/pointers.py

A version is immutable. Whoever loads a bundle checks every digest and that its gate was passed, so a torn, swapped or
ungated artifact never serves. Knows nothing of models: it moves named bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from adapters.errors import Corrupt, Misconfigured

MANIFEST: Final = "manifest.json"
Gate = Literal["passed", "failed", "pending", "bypassed"]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle is: `files` maps each file's name to its SHA-256; `meta` is free for the maker (JSON values)."""

    name: str
    version: str
    created_at: str
    gate: Gate
    files: dict[str, str]
    meta: dict[str, Any] = {}

    def encode(self) -> bytes:
        """The canonical bytes that `manifest_sha256` is taken over."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2)


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk. `load_bundle` returns only verified ones."""

    folder: Path
    manifest: Manifest
    manifest_sha256: str

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> str:
        return self.manifest.version

    def path(self, file: str) -> Path:
        """Where `file` lies. Raises Corrupt if the manifest does not list it."""
        if file not in self.manifest.files:
            listed = sorted(self.manifest.files)
            raise Corrupt(f"bundle {self.name} {self.version} has no file {file!r}; it lists {listed}")
        return self.folder / file


def write_bundle(
    folder: Path, name: str, version: str, files: Mapping[str, bytes | Path], meta: Mapping[str, Any], *, gate: Gate
) -> Bundle:
    """Write `folder/name/version` in one rename and return it. An existing version with these files stays.

    Raises Misconfigured if `version` was written before with other content: versions are never rewritten.
    """
    target = folder / name / version
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{version}.", dir=target.parent))
    try:
        for file, content in files.items():
            put_file(staging / file, content)
        manifest = Manifest(
            name=name,
            version=version,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            gate=gate,
            files={file: _digest(staging / file) for file in sorted(files)},
            meta=dict(meta),
        )
        put_file(staging / MANIFEST, manifest.encode())
        staging.chmod(0o755)
        if target.exists():
            return _same_as_before(target, manifest)
        staging.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Bundle(target, manifest, hashlib.sha256(manifest.encode()).hexdigest())


def load_bundle(folder: Path, *, expected_sha256: str | None = None) -> Bundle:
    """Read one version's folder and verify its manifest and every digest. Raises Corrupt."""
    try:
        raw = (folder / MANIFEST).read_bytes()
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise Corrupt(f"{folder / MANIFEST}: not a bundle manifest: {error}") from None
    sha = hashlib.sha256(raw).hexdigest()
    if expected_sha256 is not None and sha != expected_sha256:
        raise Corrupt(f"{folder / MANIFEST}: digest {sha[:12]} is not the published {expected_sha256[:12]}")
    for file, promised in manifest.files.items():
        try:
            found = _digest(folder / file)
        except OSError as error:
            raise Corrupt(f"{folder / file}: {error.strerror}; publish again") from None
        if found != promised:
            raise Corrupt(f"{folder / file}: digest {found[:12]} is not the manifest's {promised[:12]}; publish again")
    return Bundle(folder, manifest, sha)


def require_passed(bundle: Bundle, *, bypass: bool = False) -> None:
    """Raise Corrupt unless the gate was passed; `bypass` also lets a bundle through that a drill sent around it."""
    gate = bundle.manifest.gate
    if gate != "passed" and not (bypass and gate == "bypassed"):
        raise Corrupt(f"bundle {bundle.name} {bundle.version}: gate is {gate!r}, only 'passed' may serve")


def _same_as_before(target: Path, manifest: Manifest) -> Bundle:
    before = load_bundle(target)
    old, new = ((m.files, m.gate) for m in (before.manifest, manifest))
    if old != new:
        raise Misconfigured(f"{target} exists with other content; versions are immutable, choose a new version")
    return before


def put_file(path: Path, content: bytes | Path) -> None:
    """Write (or copy) a file and have the disk keep it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Have the disk keep the names in a folder, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
