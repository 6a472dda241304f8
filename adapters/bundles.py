"""Published model bundles: folders of files with a manifest of digests, and one pointer that is swapped atomically.

    <published>/<name>/<version>/{files, manifest.json}
    <published>/CURRENT.json        {"bundles": {name: {"version", "manifest_sha256"}}, "published_at"}

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
CURRENT: Final = "CURRENT.json"
Gate = Literal["passed", "failed", "pending"]


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
    """A bundle on disk. `load_bundle` and `load_current` return only verified ones."""

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
            _put(staging / file, content)
        manifest = Manifest(
            name=name,
            version=version,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            gate=gate,
            files={file: _digest(staging / file) for file in sorted(files)},
            meta=dict(meta),
        )
        _put(staging / MANIFEST, manifest.encode())
        staging.chmod(0o755)
        if target.exists():
            return _same_as_before(target, manifest)
        staging.rename(target)
        _sync(target.parent)
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


def set_current(folder: Path, bundles: Mapping[str, Bundle]) -> None:
    """Point CURRENT.json at `bundles` in one atomic step. Raises Corrupt if one is damaged or ungated."""
    for bundle in bundles.values():
        _require_passed(load_bundle(bundle.folder, expected_sha256=bundle.manifest_sha256))
    entries = {n: {"version": b.version, "manifest_sha256": b.manifest_sha256} for n, b in sorted(bundles.items())}
    current = {"bundles": entries, "published_at": datetime.now(UTC).isoformat(timespec="milliseconds")}
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{CURRENT}.", dir=folder)
    os.close(handle)
    _put(Path(name), msgspec.json.format(msgspec.json.encode(current), indent=2))
    Path(name).chmod(0o644)
    Path(name).replace(folder / CURRENT)
    _sync(folder)


def load_current(folder: Path) -> dict[str, Bundle]:
    """Every current bundle by name, verified. Empty when nothing was published yet. Raises Corrupt."""
    try:
        current = msgspec.json.decode((folder / CURRENT).read_bytes(), type=dict[str, Any])
        wanted = {n: (b["version"], b["manifest_sha256"]) for n, b in current["bundles"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, LookupError, TypeError, AttributeError) as error:
        raise Corrupt(f"{folder / CURRENT}: cannot be read: {error}") from None
    bundles = {n: load_bundle(folder / n / version, expected_sha256=sha) for n, (version, sha) in wanted.items()}
    for name, bundle in bundles.items():
        _require_passed(bundle)
        if bundle.name != name:
            raise Corrupt(f"{bundle.folder}: holds bundle {bundle.name!r}, but {CURRENT} calls it {name!r}")
    return bundles


def _require_passed(bundle: Bundle) -> None:
    if bundle.manifest.gate != "passed":
        gate = bundle.manifest.gate
        raise Corrupt(f"bundle {bundle.name} {bundle.version}: gate is {gate!r}, only 'passed' may serve")


def _same_as_before(target: Path, manifest: Manifest) -> Bundle:
    before = load_bundle(target)
    old, new = ((m.files, m.gate) for m in (before.manifest, manifest))
    if old != new:
        raise Misconfigured(f"{target} exists with other content; versions are immutable, choose a new version")
    return before


def _put(path: Path, content: bytes | Path) -> None:
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


def _sync(folder: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
