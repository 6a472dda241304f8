"""The locks: hashes everywhere, no index addresses, one version of a package in all sets, serving without training."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from settings import ROOT

FOLDER = ROOT / "requirements"
LOCKS = sorted(FOLDER.glob("*.txt"))
PIN = re.compile(r"^([A-Za-z0-9_.\-]+(?:\[[^\]]*\])?)==(\S+)( ; [^\\]+)?", re.MULTILINE)


def pins(name: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for package, version, _ in PIN.findall((FOLDER / name).read_text()):
        found.setdefault(package.split("[")[0], set()).add(version)
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_pin_has_a_hash_and_no_index_is_named(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert "--index" not in text
    for block in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE):
        if "==" in block:
            assert "--hash=sha256:" in block, block.splitlines()[0]


@pytest.mark.parametrize("name", ["serving.txt", "platform.txt", "training.txt", "triton.txt"])
def test_a_set_runs_the_versions_that_are_tested(name: str) -> None:
    tested = pins("dev.txt")
    assert {package: versions for package, versions in pins(name).items() if not versions <= tested[package]} == {}


def test_serving_brings_neither_torch_nor_feast_nor_mlflow_nor_pandas() -> None:
    for name in ("serving.txt", "platform.txt"):
        assert not {"torch", "feast", "mlflow", "pandas", "duckdb"} & pins(name).keys()
