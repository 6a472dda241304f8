"""A new version comes into use on a real Triton while requests come open loop: none fails, none is answered by another.

The version before stays, so that going back is a matter of the number that is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from adapters.bundles import Bundle, write_bundle
from adapters.model_repository import load, put_version
from adapters.model_server import TritonServer
from pipelines.stack.launch import CannotRun
from settings import ROOT
from tests.integration.conftest import Triton, triton_process

CONFIG = ROOT / "deploy" / "triton" / "ranker" / "config.pbtxt"
RATE, SECONDS, ROWS = 60.0, 5.0, 200


def bundle(folder: Path, version: str) -> Bundle:
    """A ranker that scores every row with its version."""
    number = helper.make_tensor("number", TensorProto.FLOAT, [1], [float(version)])
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [helper.make_node("ReduceSum", ["features", "axes"], ["sum"], keepdims=1),
             helper.make_node("Mul", ["sum", "zero"], ["none"]), helper.make_node("Add", ["none", "number"], ["score"])]
    graph = helper.make_graph(
        nodes, "ranker", [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", 8])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B", 1])], [number, zero, axes],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    onnx.checker.check_model(model)
    files: dict[str, bytes | Path] = {"model.onnx": model.SerializeToString()}
    return write_bundle(folder, "ranker", version, files, {}, gate="passed")


@pytest.fixture
def triton(tmp_path: Path) -> Iterator[Triton]:
    """One of its own: the model has the name that serving asks for."""
    try:
        with triton_process(tmp_path / "triton") as server:
            yield server
    except CannotRun as reason:
        pytest.skip(reason.detail)


async def test_versions_come_and_go_under_load_and_no_request_fails(triton: Triton, tmp_path: Path) -> None:
    address, repository = triton.grpc, triton.models
    put_version(repository, "ranker", CONFIG, bundle(tmp_path, "1"), "model.onnx")
    await asyncio.to_thread(load, address, "ranker")
    server, serving, wrong = TritonServer(address, timeout_s=5.0), ["1"], list[str]()
    features = np.zeros((ROWS, 8), np.float32)
    answered = {"1": 0, "2": 0, "3": 0}

    async def ask() -> None:
        version = serving[0]
        values = (await server.infer("ranker", version, {"features": features})).values
        answered[version] += 1
        wrong.extend([version] if not np.all(values == float(version)) else [])

    async def renew() -> None:
        for version in ("2", "3"):
            await asyncio.sleep(SECONDS / 4)
            put_version(repository, "ranker", CONFIG, bundle(tmp_path, version), "model.onnx", keep={serving[0]})
            await asyncio.to_thread(load, address, "ranker")
            serving[0] = version
        await asyncio.sleep(SECONDS / 8)
        serving[0] = "2"  # rolled back: it is still there

    renewing = asyncio.create_task(renew())
    asked, clock = [], asyncio.get_running_loop().time
    begun = clock()
    while not renewing.done() or clock() - begun < SECONDS:
        asked.append(asyncio.create_task(ask()))
        await asyncio.sleep(max(0.0, begun + len(asked) / RATE - clock()))
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    await renewing
    await server.close()
    failed = [outcome for outcome in outcomes if outcome is not None]
    assert failed == []
    assert wrong == []
    assert min(answered.values()) > 5, answered
    assert len(asked) > 200
