"""Who serves: pointers are swapped whole, an older token is refused, and what is ungated cannot be pointed at."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from adapters.bundles import Bundle, Gate, write_bundle
from adapters.errors import Conflict, Corrupt
from adapters.model_repository import put_version
from adapters.pointers import (
    CURRENT,
    ROLLOUT,
    Rollout,
    in_use,
    load_current,
    load_refs,
    read_current,
    read_rollout,
    set_current,
    set_rollout,
)
from models.rollout.state import Ref


def make(folder: Path, version: str = "1", gate: Gate = "passed") -> Bundle:
    return write_bundle(folder, "ranker", version, {"model.onnx": version.encode()}, {}, gate=gate)


def test_an_older_token_is_refused_by_both_pointers(tmp_path: Path) -> None:
    bundle = make(tmp_path)
    set_rollout(tmp_path, Rollout(epoch=7))
    with pytest.raises(Conflict, match="6 is older than 7"):
        set_current(tmp_path, {"ranker": bundle}, epoch=6, by="controller")
    assert load_current(tmp_path) == {}
    set_current(tmp_path, {"ranker": bundle}, epoch=8, by="controller")
    with pytest.raises(Conflict, match="7 is older than 8"):
        set_rollout(tmp_path, Rollout(epoch=7, canary_percent=50))
    assert read_rollout(tmp_path).canary_percent == 0


def test_publishing_by_hand_keeps_the_newest_token_and_says_that_it_was_by_hand(tmp_path: Path) -> None:
    set_rollout(tmp_path, Rollout(epoch=7))
    set_current(tmp_path, {"ranker": make(tmp_path)})
    current = read_current(tmp_path)
    assert current is not None
    assert (current.epoch, current.by) == (7, "publish")


def test_each_change_has_a_revision_and_no_change_has_none(tmp_path: Path) -> None:
    first = set_rollout(tmp_path, Rollout(epoch=1, state="shadow", shadow=True))
    again = set_rollout(tmp_path, Rollout(epoch=1, state="shadow", shadow=True))
    second = set_rollout(tmp_path, replace(first, state="canary_5", shadow=False, canary_percent=5))
    assert (first.revision, again, second.revision) == (1, first, 2)


@pytest.mark.parametrize("gate", ["pending", "failed", "bypassed"])
def test_what_did_not_pass_the_gate_is_served_by_no_path(tmp_path: Path, gate: Gate) -> None:
    bundle = make(tmp_path, gate=gate)
    refs = {"ranker": Ref(bundle.version, bundle.manifest_sha256)}
    config = tmp_path / "config.pbtxt"
    config.write_text("")
    with pytest.raises(Corrupt, match="gate"):
        set_current(tmp_path, {"ranker": bundle})
    with pytest.raises(Corrupt, match="gate"):
        load_refs(tmp_path, refs)
    with pytest.raises(Corrupt, match="gate"):
        put_version(tmp_path / "triton", "ranker", config, bundle, "model.onnx")
    assert not (tmp_path / "triton" / "ranker").exists()


def test_only_a_bypassed_bundle_gets_through_where_a_drill_asks_for_it(tmp_path: Path) -> None:
    bypassed, failed = make(tmp_path, "2", "bypassed"), make(tmp_path, "3", "failed")
    assert load_refs(tmp_path, {"ranker": Ref("2", bypassed.manifest_sha256)}, bypass=True)["ranker"].version == "2"
    with pytest.raises(Corrupt):
        load_refs(tmp_path, {"ranker": Ref("3", failed.manifest_sha256)}, bypass=True)


def test_triton_keeps_the_newest_and_what_is_in_use_and_takes_nothing_damaged(tmp_path: Path) -> None:
    config = tmp_path / "config.pbtxt"
    config.write_text("")
    for version in ("1", "2", "3", "4"):
        put_version(tmp_path / "triton", "ranker", config, make(tmp_path, version), "model.onnx", keep={"1"})
    assert sorted(p.name for p in (tmp_path / "triton" / "ranker").iterdir() if p.is_dir()) == ["1", "3", "4"]
    torn = make(tmp_path, "5")
    torn.path("model.onnx").write_bytes(b"torn")
    with pytest.raises(Corrupt, match="digest"):
        put_version(tmp_path / "triton", "ranker", config, torn, "model.onnx")


def test_what_a_pointer_names_is_in_use(tmp_path: Path) -> None:
    set_current(tmp_path, {"ranker": make(tmp_path)})
    set_rollout(tmp_path, Rollout(challenger={"ranker": Ref("2", "b")}, previous={"ranker": Ref("3", "c")}))
    assert in_use(tmp_path) == {"ranker": {"1", "2", "3"}}


def test_a_pointer_that_cannot_be_read_is_corrupt_and_can_be_written_again(tmp_path: Path) -> None:
    (tmp_path / ROLLOUT).write_text("{")
    with pytest.raises(Corrupt):
        read_rollout(tmp_path)
    (tmp_path / CURRENT).write_text("[]")
    with pytest.raises(Corrupt):
        read_current(tmp_path)
    set_current(tmp_path, {"ranker": make(tmp_path)})
    assert load_current(tmp_path)["ranker"].version == "1"


def test_writers_at_once_leave_the_newest_token(tmp_path: Path) -> None:
    def write(epoch: int) -> None:
        with contextlib.suppress(Conflict):
            set_rollout(tmp_path, Rollout(epoch=epoch, canary_percent=epoch))

    threads = [threading.Thread(target=write, args=(epoch,)) for epoch in range(1, 21)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (read_rollout(tmp_path).epoch, read_rollout(tmp_path).canary_percent) == (20, 20)
