"""Features as networks want them: squeezed, standardised, missing values at the mean. Trees do not need it."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_CLIP: Final = 6.0  # standard deviations


class Scaling(nn.Module):  # type: ignore[misc]
    """features float32 [B, F], NaN where missing -> float32 [B, F] of mean 0 and deviation 1, by the rows given first.

    Prices and counts span orders of magnitude: what is above 0 becomes ln(1 + x) first.
    """

    def __init__(self, features: NDArray[np.float32]) -> None:
        super().__init__()
        squeezed = _squeeze(torch.from_numpy(features))
        known = torch.isfinite(squeezed)
        count = known.sum(0).clamp(min=1)
        mean = torch.where(known, squeezed, 0.0).sum(0) / count
        spread = torch.where(known, (squeezed - mean) ** 2, 0.0).sum(0) / count
        self.register_buffer("mean", mean)
        self.register_buffer("scale", spread.sqrt().clamp(min=1e-3))

    def forward(self, features: Tensor) -> Tensor:
        scaled = (_squeeze(features) - self.mean) / self.scale
        return torch.where(torch.isnan(scaled), torch.zeros_like(scaled), scaled).clamp(-_CLIP, _CLIP)


def _squeeze(features: Tensor) -> Tensor:
    return torch.log1p(features.clamp(min=0)) + features.clamp(max=0)
