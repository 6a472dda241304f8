"""Whatever runs the models keeps one contract: the tests' fake, this process, Triton, and one behind the other."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from adapters.errors import Corrupt, Unavailable
from adapters.model_server import FallingBack, InProcess, ModelServer, TritonServer, checked
from pipelines.stack.launch import CannotRun
from tests.integration.conftest import triton_process
from tests.unit.recommender_world import FakeModels

FEATURES = 7
ROOT = Path(__file__).resolve().parent.parent.parent


def linear(weight: float) -> bytes:
    """score = weight x sum of features; NaN if weight is NaN."""
    weights = np.full((FEATURES, 1), weight, np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["features", "w"], ["score"])], "linear",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1])], [numpy_helper.from_array(weights, "w")],
    )
    return onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def tower() -> bytes:
    """embedding = row `user_index` of a table of 4 unit vectors; recent_items are only counted in."""
    table = np.eye(4, 64, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "user_index"], ["rows"]),
            helper.make_node("Cast", ["recent_items"], ["recent"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMin", ["recent"], ["least"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["least", "zero"], ["nothing"]),
            helper.make_node("Add", ["rows", "nothing"], ["embedding"]),
        ],
        "tower",
        [helper.make_tensor_value_info("user_index", TensorProto.INT64, ["n"]),
         helper.make_tensor_value_info("recent_items", TensorProto.INT64, ["n", 20])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 64])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.zeros(1, np.float32), "zero")],
    )
    return onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


MODELS = {("ranker", "1"): linear(1.0), ("ranker", "2"): linear(2.0), ("preranker", "1"): linear(float("nan")),
          ("two_tower_user", "1"): tower()}


def publish(folder: Path) -> None:
    """The models as a Triton repository under `folder`, with the configurations that we ship."""
    for (model, version), content in MODELS.items():
        (folder / model / version).mkdir(parents=True, exist_ok=True)
        (folder / model / version / "model.onnx").write_bytes(content)
        shutil.copy(ROOT / "deploy" / "triton" / model / "config.pbtxt", folder / model / "config.pbtxt")


def in_process(folder: Path) -> InProcess:
    publish(folder)
    server = InProcess()
    for model, version in MODELS:
        server.put(model, version, folder / model / version / "model.onnx")
    return server


@pytest.fixture(scope="module")
def loaded_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """gRPC address of a Triton that serves MODELS."""
    try:
        with triton_process(tmp_path_factory.mktemp("triton")) as triton:
            publish(triton.models)
            for model in {model for model, _ in MODELS}:
                httpx.post(f"{triton.http}/v2/repository/models/{model}/load", timeout=60).raise_for_status()
            yield triton.grpc
    except CannotRun as reason:
        pytest.skip(reason.detail)


@pytest.fixture(params=["process", "triton", "triton then process", "process behind a dead triton"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ModelServer]:
    def live() -> TritonServer:
        return TritonServer(request.getfixturevalue("loaded_triton"), timeout_s=2.0)

    match request.param:
        case "process":
            made: ModelServer = in_process(tmp_path)
        case "triton":
            made = live()
        case "triton then process":
            made = FallingBack(live(), in_process(tmp_path))
        case _:
            made = FallingBack(TritonServer("127.0.0.1:9", timeout_s=0.2), in_process(tmp_path))
    yield made
    await made.close()


async def test_a_version_scores_every_row(server: ModelServer) -> None:
    rows = np.arange(3 * FEATURES, dtype=np.float32).reshape(3, FEATURES)
    for version, weight in (("1", 1.0), ("2", 2.0)):
        answer = await server.infer("ranker", version, {"features": rows})
        assert answer.values.dtype == np.float32
        np.testing.assert_allclose(answer.values[:, 0], weight * rows.sum(axis=1))


async def test_a_model_with_two_inputs_and_scalars(server: ModelServer) -> None:
    inputs = {"user_index": np.array([2, 0]), "recent_items": np.zeros((2, 20), np.int64)}
    answer = await server.infer("two_tower_user", "1", inputs)
    np.testing.assert_array_equal(answer.values, np.eye(4, 64, dtype=np.float32)[[2, 0]])


async def test_a_version_that_is_not_there_is_unavailable(server: ModelServer) -> None:
    with pytest.raises(Unavailable):
        await server.infer("ranker", "77", {"features": np.zeros((1, FEATURES), np.float32)})


async def test_nan_counts_as_a_failure(server: ModelServer) -> None:
    with pytest.raises(Unavailable, match="NaN"):
        await server.infer("preranker", "1", {"features": np.ones((2, FEATURES), np.float32)})


async def test_rows_of_the_wrong_width_are_a_failure(server: ModelServer) -> None:
    with pytest.raises(Unavailable):
        await server.infer("ranker", "1", {"features": np.zeros((2, FEATURES + 1), np.float32)})


async def test_many_at_once_do_not_mix(server: ModelServer) -> None:
    async def one(i: int) -> bool:
        rows = np.full((1 + i % 5, FEATURES), i, np.float32)
        answer = await server.infer("ranker", "1", {"features": rows})
        return bool(np.allclose(answer.values, i * FEATURES)) and len(answer.values) == len(rows)

    assert all(await asyncio.gather(*(one(i) for i in range(40))))


async def test_the_fake_keeps_the_contract_on_shapes_and_failures() -> None:
    rows = {"features": np.zeros((3, FEATURES), np.float32)}
    assert (await FakeModels().infer("ranker", "1", rows)).values.shape == (3, 1)
    for how in ("away", "nan", "shape"):
        with pytest.raises(Unavailable):
            await FakeModels({"ranker": how}).infer("ranker", "1", rows)


async def test_the_fallback_says_so_and_runs_the_same_version(tmp_path: Path) -> None:
    behind = FallingBack(FakeModels({"ranker": "away"}), in_process(tmp_path))
    answer = await behind.infer("ranker", "2", {"features": np.ones((1, FEATURES), np.float32)})
    assert answer.fell_back
    assert answer.values[0, 0] == 2 * FEATURES
    first = await FallingBack(FakeModels(), FakeModels()).infer("ranker", "1", {"features": np.ones((1, 7))})
    assert not first.fell_back
    await behind.close()


async def test_a_dead_triton_costs_next_to_nothing_after_the_first_failures() -> None:
    dead = TritonServer("127.0.0.1:9", timeout_s=0.2, rest_s=60)
    rows = {"features": np.zeros((1, FEATURES), np.float32)}
    for _ in range(3):
        with pytest.raises(Unavailable):
            await dead.infer("ranker", "1", rows)
    begun = time.thread_time()
    for _ in range(200):
        with pytest.raises(Unavailable):
            await dead.infer("ranker", "1", rows)
    assert (time.thread_time() - begun) / 200 < 0.001
    await dead.close()


async def test_a_hung_triton_costs_its_time_out_then_nothing() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    hung = TritonServer(f"127.0.0.1:{listener.sockets[0].getsockname()[1]}", timeout_s=0.1, rest_s=60)
    begun = time.perf_counter()
    for _ in range(20):
        with pytest.raises(Unavailable):
            await hung.infer("ranker", "1", {"features": np.zeros((1, FEATURES), np.float32)})
    assert time.perf_counter() - begun < 2.0, "three time-outs of 0.1 s, then the breaker"
    await hung.close()
    listener.close()


def test_a_file_that_is_no_model_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(Corrupt):
        InProcess().put("ranker", "1", tmp_path / "model.onnx")


def test_dropped_versions_are_gone(tmp_path: Path) -> None:
    server = in_process(tmp_path)
    server.keep_only({("ranker", "2")})
    rows = {"features": np.ones((1, FEATURES), np.float32)}
    assert server.infer_now("ranker", "2", rows).values[0, 0] == 2 * FEATURES
    with pytest.raises(Unavailable):
        server.infer_now("ranker", "1", rows)


@pytest.mark.parametrize("values", [None, np.zeros((2, 2)), np.zeros(2), np.full((2, 1), np.inf)])
def test_checked_refuses(values: Any) -> None:
    with pytest.raises(Unavailable):
        checked("ranker", 2, values, "test")
