"""A small, complete set of published bundles with models that can be computed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from adapters.bundles import Bundle, Gate, write_bundle
from adapters.pointers import set_current
from models.ann_index import AnnIndex
from models.cooccurrence import Cooccurrence
from models.ranking_features import FEATURES

D = 64


def _model(nodes: list, inputs: list, outputs: list, constants: dict[str, np.ndarray]) -> bytes:
    kept = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "toy", inputs, outputs, kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def scorer(weight: float = 1.0) -> bytes:
    """score = weight x popularity_score (0 where it is NaN); NaN everywhere if weight is NaN."""
    weights = np.zeros((len(FEATURES), 1), np.float32)
    weights[FEATURES.index("popularity_score")] = weight
    x = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", len(FEATURES)])
    y = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1])
    nodes = [
        helper.make_node("IsNaN", ["features"], ["unknown"]),
        helper.make_node("Where", ["unknown", "zero", "features"], ["known"]),
        helper.make_node("MatMul", ["known", "w"], ["score"]),
    ]
    return _model(nodes, [x], [y], {"w": weights, "zero": np.zeros(1, np.float32)})


def user_encoder(users: int) -> bytes:
    """embedding = unit vector (user_index mod D)."""
    table = np.eye(D, dtype=np.float32)[np.arange(users + 1) % D]
    ints, out = TensorProto.INT64, helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", D])
    nodes = [
        helper.make_node("Gather", ["table", "user_index"], ["rows"]),
        helper.make_node("Cast", ["recent_items"], ["recent"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMin", ["recent"], ["least"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["least", "zero"], ["nothing"]),
        helper.make_node("Add", ["rows", "nothing"], ["embedding"]),
    ]
    inputs = [helper.make_tensor_value_info("user_index", ints, ["n"]),
              helper.make_tensor_value_info("recent_items", ints, ["n", 20])]
    return _model(nodes, inputs, [out], {"table": table, "zero": np.zeros(1, np.float32)})


def item_encoder(categories: int) -> bytes:
    """embedding = unit vector (category_index mod D); the other inputs count for nothing."""
    table = np.eye(D, dtype=np.float32)[np.arange(categories + 1) % D]
    ints = TensorProto.INT64
    nodes = [
        helper.make_node("Gather", ["table", "category_index"], ["rows"]),
        helper.make_node("Cast", ["item_index"], ["index"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["index", "log_price"], ["other"]),
        helper.make_node("Mul", ["other", "zero"], ["flat"]),
        helper.make_node("Unsqueeze", ["flat", "axis"], ["nothing"]),
        helper.make_node("Add", ["rows", "nothing"], ["embedding"]),
    ]
    inputs = [helper.make_tensor_value_info("item_index", ints, ["n"]),
              helper.make_tensor_value_info("category_index", ints, ["n"]),
              helper.make_tensor_value_info("log_price", TensorProto.FLOAT, ["n"])]
    out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", D])
    return _model(nodes, inputs, [out],
                  {"table": table, "zero": np.zeros(1, np.float32), "axis": np.array([1], np.int64)})


def publish(
    published: Path, scratch: Path, version: str, *, items: int = 60, weight: float = 1.0,
    encoder_version: str | None = None, features: tuple[str, ...] = FEATURES, gate: Gate = "passed",
    current: bool = True,
) -> dict[str, Bundle]:
    """Write and publish (if `current`) a set of `version`: items i0.., users u0..u9, popularity falling by row."""
    ids = _text([f"i{j}" for j in range(items)])
    scratch.mkdir(parents=True, exist_ok=True)
    AnnIndex.build(np.eye(D, dtype=np.float32)[np.arange(items) % D]).save(scratch / "items.faiss")
    neighbours = np.stack([(np.arange(1, 6) + j) % items for j in range(items)]).astype(np.int32)
    Cooccurrence(neighbours, np.tile(np.linspace(1, 0.2, 5, dtype=np.float32), (items, 1))).save(scratch / "n.npz")
    np.savez(scratch / "p.npz", scores=np.linspace(1, 0.01, items, dtype=np.float32))
    names = json.dumps(list(features)).encode()
    contents: dict[str, tuple[dict, dict]] = {
        "two-tower": ({"user_encoder.onnx": user_encoder(10), "item_encoder.onnx": item_encoder(5),
                       "users.txt": _text([f"u{j}" for j in range(10)]), "items.txt": ids,
                       "categories.txt": _text([f"c{j}" for j in range(5)])}, {}),
        "index": ({"items.faiss": scratch / "items.faiss", "items.txt": ids},
                  {"encoder_version": encoder_version or version}),
        "cooccurrence": ({"neighbours.npz": scratch / "n.npz", "items.txt": ids}, {}),
        "popularity": ({"popularity.npz": scratch / "p.npz", "items.txt": ids}, {}),
        "preranker": ({"model.onnx": scorer(weight), "features.json": names}, {}),
        "ranker": ({"model.onnx": scorer(weight), "features.json": names}, {}),
    }
    bundles = {name: write_bundle(published, name, version, files, meta, gate=gate)
               for name, (files, meta) in contents.items()}
    if current:
        set_current(published, bundles)
    return bundles


def _text(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()
