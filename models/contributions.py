"""What each feature added to a score: SHAP values of a LightGBM model (Lundberg et al. 2018, TreeSHAP)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import numpy as np
from numpy.typing import NDArray


class Contributions(NamedTuple):
    """`by_feature` [n, F] adds up with `base` to the score of each row."""

    by_feature: NDArray[np.float64]
    base: float


class Explained:
    """A ranker's trees, kept open."""

    def __init__(self, model: Path) -> None:
        """`model` is LightGBM's text. Raises ValueError if it is not."""
        try:
            self._booster: Any = lightgbm.Booster(model_file=str(model))
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(f"{model}: not a LightGBM model: {error}") from None

    def of(self, rows: NDArray[np.float32]) -> Contributions:
        """What lifted and lowered each of `rows` [n, F], against the average row of training."""
        values = np.asarray(self._booster.predict(rows, pred_contrib=True, num_threads=1), np.float64)
        return Contributions(values[:, :-1], float(values[0, -1]) if len(values) else 0.0)
