"""The archive of every model version that ever served, so that its decisions can be made again after it was replaced.

    <published>/archive/<name>/<manifest_sha256>/{files, manifest.json}

Copies, not links: what happens to the published folder does not happen here. Nothing is taken out of it; a set of all
bundles is a few MB (`make reset` drops it with the rest).
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from adapters.bundles import MANIFEST, Bundle, Manifest, load_bundle
from adapters.errors import Corrupt, NotFound

ARCHIVE: Final = "archive"


def keep(published: Path, bundles: Mapping[str, Bundle]) -> None:
    """Copy each bundle into the archive under its manifest's digest, in one rename; one that is there stays."""
    for bundle in bundles.values():
        target = published / ARCHIVE / bundle.name / bundle.manifest_sha256
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".staging.", dir=target.parent))
        try:
            shutil.copytree(bundle.folder, staging, dirs_exist_ok=True)
            load_bundle(staging, expected_sha256=bundle.manifest_sha256)
            staging.chmod(0o755)
            with contextlib.suppress(FileExistsError, OSError):  # another one was first
                staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def find(published: Path, name: str, version: str, manifest_sha256: str | None = None) -> Bundle:
    """That version with every digest checked, from the archive or from what is published.

    Without `manifest_sha256` (records of old) the version's name must do. Raises NotFound, or Corrupt if bytes differ.
    """
    published_one = published / name / version
    if manifest_sha256 is not None:
        kept = published / ARCHIVE / name / manifest_sha256
        folder = kept if kept.exists() else published_one
    else:
        folder = published_one if published_one.exists() else _by_version(published / ARCHIVE / name, version)
    if not (folder / MANIFEST).exists():
        raise NotFound(
            f"{name} {version} is neither published nor archived under {published / ARCHIVE / name}: it served before "
            "versions were archived, or the archive was emptied",
            field=name,
        )
    bundle = load_bundle(folder, expected_sha256=manifest_sha256)
    if (bundle.name, bundle.version) != (name, version):
        raise Corrupt(f"{folder} holds {bundle.name} {bundle.version}, not {name} {version}")
    return bundle


def _by_version(folder: Path, version: str) -> Path:
    for manifest in sorted(folder.glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime, reverse=True):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            if msgspec.json.decode(manifest.read_bytes(), type=Manifest).version == version:
                return manifest.parent
    return folder / version
