"""Which model versions read which features: from the manifests of the bundles that are in use."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from adapters.bundles import MANIFEST, Manifest
from adapters.pointers import read_current, read_rollout

COLUMNS: Final = "features.json"


class Reader(NamedTuple):
    """One version of a model in use, its role, and the features of the online store that it reads."""

    model: str
    version: str
    role: str
    reads: frozenset[str]


def readers(published: Path) -> list[Reader]:
    """The versions of champion and challenger that say what they read, by model. Files that are no manifest are left
    out: whoever serves a bundle verifies it, this only reads what it says of itself."""
    current, rollout = read_current(published), read_rollout(published)
    lineups = (("champion", current.bundles if current else {}), ("challenger", rollout.challenger or {}))
    found = []
    for role, lineup in lineups:
        for model, ref in sorted(lineup.items()):
            try:
                reads = _reads(published / model / ref.version)
            except (OSError, msgspec.DecodeError):
                continue
            if reads:
                found.append(Reader(model, ref.version, role, reads))
    return found


def _reads(folder: Path) -> frozenset[str]:
    """What the manifest says; of a bundle from before manifests said it, the columns of its features.json."""
    manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    if "reads" not in manifest.meta and COLUMNS in manifest.files:
        return frozenset(msgspec.json.decode((folder / COLUMNS).read_bytes(), type=list[str]))
    return frozenset(manifest.meta.get("reads", ()))
