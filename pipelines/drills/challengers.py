"""Six bad rankers, each made from the champion's own bundle by one plausible mistake. Needs LightGBM and ONNX.

Everything else about them is in order (digests, files, and where the mistake is not in the graph also the parity of
ONNX and LightGBM), so that each can only be stopped by whoever looks for that mistake.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lightgbm
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from adapters.bundles import Bundle, write_bundle
from models import onnx_export
from models.ranking_features import FEATURES

OPSET: Final = 13  # of the nodes that are appended here
WIDE, TURNS = 1024, 8  # of the useless matrix products that make a model slow
TOO_SURE: Final = 8.0  # times the log-odds of a calibrated model
OLD_MS: Final = 10 * 86_400_000
FRESH: Final = ("_1h", "_24h", "momentum", "recent_position", "recent_category_share", "same_category_as_last")

Files = dict[str, bytes]


@dataclass(frozen=True)
class Bad:
    """One kind of bad challenger. `harms`: shoppers would notice it, so traffic must too if the gate is bypassed."""

    kind: str
    mistake: str
    stopped_by: str
    """Words, any of which names the check that the gate must stop it by."""
    harms: bool
    make: Callable[[Files, int], Files]


def worse(files: Files, seed: int) -> Files:
    """Learned with the wrong sign: the best comes last, from a model whose files are all in order."""

    def turn(booster: Any) -> None:
        for tree, leaves in enumerate(_leaves(booster)):
            for leaf, value in enumerate(leaves):
                booster.set_leaf_output(tree, leaf, -float(value))

    return _changed(files, turn)


def miscalibrated(files: Files, seed: int) -> Files:
    """Far too sure: the order stays, the probabilities are wrong."""

    def inflate(booster: Any) -> None:
        for tree, leaves in enumerate(_leaves(booster)):
            for leaf, value in enumerate(leaves):
                booster.set_leaf_output(tree, leaf, TOO_SURE * float(value))

    return _changed(files, inflate)


def stale(files: Files, seed: int) -> Files:
    """Short windows and what was clicked last no longer reach its splits: as if those features had stopped."""
    names = json.loads(files["features.json"])
    frozen = {n for n, name in enumerate(names) if any(mark in name for mark in FRESH)}
    lines = files["model.txt"].decode().splitlines()
    split: list[int] = []
    for n, line in enumerate(lines):
        if line.startswith("split_feature="):
            split = [int(v) for v in line.partition("=")[2].split()]
        elif line.startswith("threshold="):
            values = line.partition("=")[2].split()
            kept = ["1e+300" if feature in frozen else value for feature, value in zip(split, values, strict=True)]
            lines[n] = "threshold=" + " ".join(kept)
    # the sizes of the trees' texts have changed; LightGBM does without this line
    text = "\n".join(line for line in lines if not line.startswith("tree_sizes=")) + "\n"
    return _exported(files, lightgbm.Booster(model_str=text))


def slow(files: Files, seed: int) -> Files:
    """The same scores, after a lot of useless arithmetic."""
    weights = np.random.default_rng(seed).normal(0, 0.01, (WIDE, WIDE)).astype(np.float32)
    nodes = [
        helper.make_node("Shape", ["features"], ["slow_shape"]),
        helper.make_node("Gather", ["slow_shape", "slow_first"], ["slow_rows"]),
        helper.make_node("Concat", ["slow_rows", "slow_width"], ["slow_size"], axis=0),
        helper.make_node("ConstantOfShape", ["slow_size"], ["slow_0"],
                         value=numpy_helper.from_array(np.ones(1, np.float32))),
        *(helper.make_node("MatMul", [f"slow_{n}", "slow_weights"], [f"slow_{n + 1}"]) for n in range(TURNS)),
        helper.make_node("ReduceSum", [f"slow_{TURNS}", "slow_axis"], ["slow_sum"], keepdims=1),
        helper.make_node("Mul", ["slow_sum", "slow_zero"], ["slow_nothing"]),
        helper.make_node("Add", ["plain_score", "slow_nothing"], ["score"]),
    ]  # fmt: skip
    constants = {
        "slow_first": np.array([0], np.int64), "slow_width": np.array([WIDE], np.int64), "slow_weights": weights,
        "slow_axis": np.array([1], np.int64), "slow_zero": np.zeros(1, np.float32),
    }  # fmt: skip
    return files | {"model.onnx": _appended(files["model.onnx"], nodes, constants)}


def nan_scores(files: Files, seed: int) -> Files:
    """No number for what costs more than about 30 euros: a root of something negative."""
    nodes = [
        helper.make_node("Gather", ["features", "nan_column"], ["nan_price"], axis=1),
        helper.make_node("Sub", ["nan_limit", "nan_price"], ["nan_room"]),
        helper.make_node("Sqrt", ["nan_room"], ["nan_root"]),
        helper.make_node("Mul", ["nan_root", "nan_zero"], ["nan_nothing"]),
        helper.make_node("Add", ["plain_score", "nan_nothing"], ["score"]),
    ]
    constants = {
        "nan_column": np.array([FEATURES.index("item_log_price")], np.int64), "nan_zero": np.zeros(1, np.float32),
        "nan_limit": np.array([np.log1p(3000.0)], np.float32),
    }  # fmt: skip
    return files | {"model.onnx": _appended(files["model.onnx"], nodes, constants)}


def wrong_schema(files: Files, seed: int) -> Files:
    """Made for another list of features: two columns have changed places."""
    names = json.loads(files["features.json"])
    first, second = names.index("item_ctr_7d"), names.index("item_log_price")
    names[first], names[second] = names[second], names[first]
    return files | {"features.json": json.dumps(names).encode()}


SIX: Final[tuple[Bad, ...]] = (
    Bad("wrong schema", "its list of features is in another order", "schema", False, wrong_schema),
    Bad("NaN scores", "no score for dear products", "answers parity", True, nan_scores),
    Bad("slow", "the same scores, far too late", "latency", True, slow),
    Bad("worse quality", "learned with the wrong sign: the best comes last", "quality", True, worse),
    Bad("miscalibrated", "far too sure of itself", "calibration", False, miscalibrated),
    Bad("stale features", "its data ended ten days ago, and short windows no longer reach it", "stale quality", False,
        stale),
)


def write(bad: Bad, champion: Bundle, folder: Path, version: str, seed: int) -> Path:
    """Write the challenger as `folder/ranker/<version>`, gate pending; gives `folder`."""
    files = {name: champion.path(name).read_bytes() for name in champion.manifest.files}
    meta = {**champion.manifest.meta, "drill": bad.kind}
    if bad.make is stale and "until_ms" in meta:
        meta["until_ms"] = int(meta["until_ms"]) - OLD_MS
    made = bad.make(files, seed)
    if made["model.txt"] != files["model.txt"]:
        meta["form"] = "trees"  # such mistakes are made in trees, which then serve themselves
    write_bundle(folder, "ranker", version, dict(made), meta, gate="pending")
    return folder


def _leaves(booster: Any) -> list[list[float]]:
    """Leaf values by tree, read from the model's text."""
    text = booster.model_to_string()
    rows = [line.partition("=")[2] for line in text.splitlines() if line.startswith("leaf_value=")]
    return [[float(v) for v in row.split()] for row in rows]


def _changed(files: Files, change: Callable[[Any], None]) -> Files:
    booster = lightgbm.Booster(model_str=files["model.txt"].decode())
    change(booster)
    return _exported(files, booster)


def _exported(files: Files, booster: Any) -> Files:
    text = booster.model_to_string()
    written = lightgbm.Booster(model_str=text)
    return files | {"model.txt": text.encode(), "model.onnx": onnx_export.trees(written, len(FEATURES))}


def _appended(graph: bytes, nodes: Sequence[Any], constants: dict[str, Any]) -> bytes:
    """A graph whose `score` is now called `plain_score`, with nodes after it that give the new `score`."""
    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        for n, name in enumerate(node.output):
            if name == "score":
                node.output[n] = "plain_score"
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    for opset in model.opset_import:
        if opset.domain == "":
            opset.version = max(opset.version, OPSET)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1]))
    return bytes(model.SerializeToString())
