"""All detectors by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from models.drift.adwin import ADWIN
from models.drift.base import Comparison, RateComparison, Sequential
from models.drift.calibration_error import CalibrationError
from models.drift.ddm import DDM
from models.drift.jensen_shannon import JensenShannon
from models.drift.ks import KS
from models.drift.label_share import LabelShare
from models.drift.new_categories import NewCategories
from models.drift.null_share import NullShare
from models.drift.out_of_range import OutOfRange
from models.drift.page_hinkley import PageHinkley
from models.drift.psi import PSI
from models.drift.silence import Silence
from models.drift.tail_shift import TailShift
from models.drift.volume import Volume
from models.drift.wasserstein import Wasserstein

COMPARISONS: Final[dict[str, Comparison]] = {
    d.name: d
    for d in (PSI(), KS(), Wasserstein(), JensenShannon(), NullShare(), NewCategories(), OutOfRange(), TailShift())
}
RATES: Final[dict[str, RateComparison]] = {d.name: d for d in (Volume(), Silence(), LabelShare(), CalibrationError())}
SEQUENTIAL: Final[dict[str, Callable[[], Sequential]]] = {
    d.name: d for d in (ADWIN, PageHinkley, DDM)
}  # fresh for each stream
