"""A torn, swapped, ungated or rewritten bundle never loads; the pointer is swapped whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.bundles import MANIFEST, Bundle, Gate, load_bundle, write_bundle
from adapters.errors import Corrupt, Misconfigured
from adapters.pointers import CURRENT, LOCK, load_current, set_current


def make(folder: Path, version: str = "1", content: bytes = b"weights", gate: Gate = "passed") -> Bundle:
    files: dict[str, bytes | Path] = {"model.onnx": content, "features.json": b"[]"}
    return write_bundle(folder, "ranker", version, files, {"auc": 0.5}, gate=gate)


def test_round_trip(tmp_path: Path) -> None:
    set_current(tmp_path, {"ranker": make(tmp_path)})
    bundle = load_current(tmp_path)["ranker"]
    assert (bundle.version, bundle.manifest.meta) == ("1", {"auc": 0.5})
    assert bundle.path("model.onnx").read_bytes() == b"weights"
    with pytest.raises(Corrupt, match="has no file"):
        bundle.path("other")


def test_files_may_come_from_paths(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    bundle = write_bundle(tmp_path / "p", "index", "3", {"items.faiss": tmp_path / "x"}, {}, gate="passed")
    assert load_bundle(bundle.folder).path("items.faiss").read_bytes() == b"abc"


def test_nothing_published_is_empty(tmp_path: Path) -> None:
    assert load_current(tmp_path) == {}


@pytest.mark.parametrize("gate", ["failed", "pending"])
def test_ungated_is_refused(tmp_path: Path, gate: Gate) -> None:
    bundle = make(tmp_path, gate=gate)
    with pytest.raises(Corrupt, match="gate"):
        set_current(tmp_path, {"ranker": bundle})
    pointer = {"bundles": {"ranker": {"version": "1", "manifest_sha256": bundle.manifest_sha256}}}
    (tmp_path / CURRENT).write_text(json.dumps(pointer))
    with pytest.raises(Corrupt, match="gate"):
        load_current(tmp_path)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest", "pointer", "rename"])
def test_damage_is_seen(tmp_path: Path, damage: str) -> None:
    bundle = make(tmp_path)
    set_current(tmp_path, {"ranker": bundle})
    model, manifest = bundle.path("model.onnx"), bundle.folder / MANIFEST
    match damage:
        case "flip":
            model.write_bytes(b"Weights")
        case "truncate":
            model.write_bytes(b"weigh")
        case "remove":
            model.unlink()
        case "manifest":
            manifest.write_text(manifest.read_text().replace("0.5", "0.6"))
        case "pointer":
            (tmp_path / CURRENT).write_text("{")
        case "rename":
            (tmp_path / "other").mkdir()
            bundle.folder.rename(tmp_path / "other" / "1")
            text = (tmp_path / CURRENT).read_text()
            (tmp_path / CURRENT).write_text(text.replace('"ranker"', '"other"'))
    with pytest.raises(Corrupt):
        load_current(tmp_path)


def test_a_version_is_never_rewritten(tmp_path: Path) -> None:
    first = make(tmp_path)
    assert make(tmp_path).manifest_sha256 == first.manifest_sha256
    with pytest.raises(Misconfigured, match="immutable"):
        make(tmp_path, content=b"other")
    assert load_bundle(first.folder).path("model.onnx").read_bytes() == b"weights"


def test_the_pointer_moves_and_leaves_nothing_behind(tmp_path: Path) -> None:
    first, second = make(tmp_path), make(tmp_path, "2", b"new")
    set_current(tmp_path, {"ranker": first})
    set_current(tmp_path, {"ranker": second})
    assert load_current(tmp_path)["ranker"].version == "2"
    assert sorted(p.name for p in tmp_path.iterdir()) == [LOCK, CURRENT, "ranker"]
    assert sorted(p.name for p in (tmp_path / "ranker").iterdir()) == ["1", "2"]
