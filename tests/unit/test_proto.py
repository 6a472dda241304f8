"""The message classes are those that protoc makes of the contract."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpc_tools import protoc

from adapters.rpc import features_pb2 as pb
from services.feature_server.terms import State
from settings import ROOT

FOLDER = ROOT / "adapters" / "rpc"


@pytest.mark.parametrize("contract", sorted(FOLDER.glob("*.proto")), ids=lambda path: path.name)
def test_the_generated_code_is_current(contract: Path, tmp_path: Path) -> None:
    flags = [f"-I{FOLDER}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    assert protoc.main(["protoc", *flags, contract.name]) == 0
    for made in tmp_path.iterdir():
        assert made.read_text() == (FOLDER / made.name).read_text(), "run `make proto`"


def test_states_have_one_number_everywhere() -> None:
    assert {s.name: s.value for s in State} == {
        name.removeprefix("STATE_"): number for name, number in pb.State.items() if number}
