"""Models as ONNX bytes, and how far ONNX's answers are from the original's."""

from __future__ import annotations

import io
import warnings
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as onnx

from models.two_tower import TwoTower

OPSET: Final = 17


def user_encoder(model: TwoTower) -> bytes:
    """user_index int64 [B], recent_items int64 [B, recent] -> embedding float32 [B, dim]."""
    sample = (torch.zeros(2, dtype=torch.int64), torch.zeros((2, model.config.recent), dtype=torch.int64))
    return export(model.user_tower, sample, ["user_index", "recent_items"], "embedding")


def item_encoder(model: TwoTower) -> bytes:
    """item_index int64 [B], category_index int64 [B], log_price float32 [B] -> embedding float32 [B, dim]."""
    sample = (torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), torch.zeros(2))
    return export(model.item_tower, sample, ["item_index", "category_index", "log_price"], "embedding")


def export(module: torch.nn.Module, sample: tuple[torch.Tensor, ...], names: list[str], output: str) -> bytes:
    """A network with inputs `names` and one output, all with the batch as their first dimension."""
    module.eval()
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the tracing exporter gives the smaller, plainer graph
        torch.onnx.export(
            module, sample, out, input_names=names, output_names=[output], opset_version=OPSET, dynamo=False,
            dynamic_axes={name: {0: "batch"} for name in [*names, output]},
        )
    return out.getvalue()


def trees(booster: Any, n_features: int) -> bytes:
    """A LightGBM booster: features float32 [B, n_features] -> score float32 [B, 1]."""
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    # Named, since the default name is a random one: the same trees shall give the same bytes.
    graph = convert_lightgbm(
        booster, name="trees", initial_types=[("features", FloatTensorType([None, n_features]))], target_opset=15,
        zipmap=False,
    )  # fmt: skip
    produced = graph.graph.output[0].name
    for node in graph.graph.node:
        for i, name in enumerate(node.output):
            if name == produced:
                node.output[i] = "score"
    graph.graph.output[0].name = "score"
    graph.opset_import.sort(key=lambda one: one.domain)  # they come out of a set: one hash seed in thirteen turns them
    return bytes(graph.SerializeToString())


def session(model: bytes, *, threads: int = 1) -> onnxruntime.InferenceSession:
    """The model on the CPU, nothing caught: for running it often, as timing does."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: bytes, inputs: dict[str, NDArray[Any]], *, threads: int = 1) -> NDArray[np.float32]:
    """The first output of an ONNX model for these inputs. Raises ValueError if it cannot give one."""
    try:
        return np.asarray(session(model, threads=threads).run(None, inputs)[0], dtype=np.float32)
    except (onnx.Fail, onnx.InvalidArgument, onnx.InvalidGraph, onnx.InvalidProtobuf, onnx.RuntimeException) as error:
        raise ValueError(f"the ONNX model cannot answer: {error}") from None


def max_difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Largest absolute difference; infinity where the shapes differ or one is not finite."""
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    return float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)), initial=0.0))
