"""Smaller and quicker forms of a model: fewer trees, a student network that learned from the trees, 8-bit integers.

A student is distilled as in Hinton, Vinyals and Dean (2015), for scores: it regresses the teacher's score of every row,
centred within its request, since only differences within a request order anything. Its scores are on the teacher's
scale. INT8 is onnxruntime's quantisation: dynamic measures activations in every run, static once on a sample.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from torch import Tensor, nn

from models import onnx_export
from models.ranker import RankingRows
from models.scaling import Scaling

Inputs = Mapping[str, NDArray[Any]]
_BATCH: Final = 4096
_PRODUCTS: Final = ("MatMul", "Gemm")  # not what squeezes raw features: prices would share 256 steps


@dataclass(frozen=True)
class StudentConfig:
    hidden: tuple[int, ...] = (128, 64)
    epochs: int = 8
    most_rows: int = 2_000_000
    """Rows to learn from in all epochs together, so that a large history does not take longer."""
    learning_rate: float = 2e-3
    seed: int = 7


STUDENTS: Final = {"preranker": StudentConfig(hidden=(32,)), "ranker": StudentConfig()}


class Student(nn.Module):  # type: ignore[misc]
    """features float32 [B, F] -> score float32 [B, 1]; missing values count as the mean."""

    def __init__(self, features: NDArray[np.float32], config: StudentConfig) -> None:
        super().__init__()
        self.scaling = Scaling(features)
        layers: list[nn.Module] = []
        width = features.shape[1]
        for hidden in config.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU()]
            width = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(self.scaling(features))


    def rescale(self, scale: float, offset: float) -> None:
        """Scores from now on: `scale` times what they were, plus `offset`."""
        last = self.layers[-1]
        with torch.no_grad():
            last.weight *= scale
            last.bias.mul_(scale).add_(offset)

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores float32 [R]."""
        with torch.no_grad():
            return np.asarray(self(torch.from_numpy(features))[:, 0])

    def onnx(self) -> bytes:
        """features float32 [B, F] -> score float32 [B, 1]."""
        return onnx_export.export(self, (torch.zeros(2, len(self.scaling.mean)),), ["features"], "score")


def distil(rows: RankingRows, scores: NDArray[np.floating[Any]], config: StudentConfig, *, threads: int = 2) -> Student:
    """A student of `scores` [R], the teacher's."""
    torch.manual_seed(config.seed)
    torch.set_num_threads(threads)
    owner = np.repeat(np.arange(len(rows.groups)), rows.groups)
    centred = scores - (np.bincount(owner, scores) / rows.groups)[owner]
    spread = max(float(centred.std()), 1e-9)
    target = torch.from_numpy((centred / spread).astype(np.float32))[:, None]
    features, student = torch.from_numpy(rows.features), Student(rows.features, config)
    optimiser = torch.optim.Adam(student.parameters(), lr=config.learning_rate)
    epochs = min(config.epochs, max(1, round(config.most_rows / len(target))))
    steps = epochs * -(-len(target) // _BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    shuffled = torch.Generator().manual_seed(config.seed)
    for _ in range(epochs):
        for chosen in torch.randperm(len(target), generator=shuffled).split(_BATCH):
            optimiser.zero_grad()
            nn.functional.mse_loss(student(features[chosen]), target[chosen]).backward()
            optimiser.step()
            schedule.step()
    student.rescale(spread, float(scores.mean()))
    return student


def int8_dynamic(model: bytes) -> bytes:
    """Weights of matrix products as 8-bit integers, their inputs quantised in every run."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "int8.onnx"
        quantize_dynamic(onnx.load_from_string(model), str(out), weight_type=QuantType.QInt8,
                         op_types_to_quantize=list(_PRODUCTS))
        return out.read_bytes()


def int8_static(model: bytes, sample: Inputs, *, rows: int = 512) -> bytes:
    """Matrix products in 8-bit integers, with the ranges of their inputs as they are on `sample`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "int8.onnx"
        quantize_static(
            onnx.load_from_string(model), str(out), _Sample(sample, rows), quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True,
            op_types_to_quantize=list(_PRODUCTS),
        )  # fmt: skip
        return out.read_bytes()


class _Sample(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, sample: Inputs, rows: int) -> None:
        size = len(next(iter(sample.values())))
        self._parts: Iterator[dict[str, NDArray[Any]]] = (
            {name: values[at : at + rows] for name, values in sample.items()} for at in range(0, size, rows)
        )

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._parts, None)
