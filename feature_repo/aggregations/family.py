"""All aggregations by name. To add one: a file beside this one, a line here, one in `test_aggregations.py`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from feature_repo.aggregations.base import Aggregation
from feature_repo.aggregations.count import Count
from feature_repo.aggregations.decayed import Decayed
from feature_repo.aggregations.distinct import Distinct
from feature_repo.aggregations.largest import Max
from feature_repo.aggregations.last import Last
from feature_repo.aggregations.last_k import LastK
from feature_repo.aggregations.mean import Mean
from feature_repo.aggregations.ratio import Ratio
from feature_repo.aggregations.smallest import Min
from feature_repo.aggregations.std import Std
from feature_repo.aggregations.top_k import TopK
from feature_repo.aggregations.total import Sum
from feature_repo.windows import duration_ms

AGGREGATIONS: Final[Mapping[str, Aggregation]] = MappingProxyType({a.name: a for a in (
    Count(), Sum(), Mean(), Min(), Max(), Std(), Distinct(), TopK(), Ratio(), Decayed(), Last(), LastK())})
_SPELLED: Final = {(a.spelled or a.name, bool(a.argument)): a for a in AGGREGATIONS.values()}


def parse(text: str) -> dict[str, str | int]:
    """A declared function as the fields of a feature: `top_3` -> function top_k, k 3. Raises ValueError."""
    kind, _, rest = text.partition("_")
    found = _SPELLED.get((kind, bool(rest)))
    if found is None:
        raise ValueError(f"{text!r} is no aggregation; there are {', '.join(spellings())}")
    if not found.argument:
        return {"function": found.name}
    if found.argument == "other":
        return {"function": found.name, "other": rest}
    if found.argument == "half_life_ms":
        return {"function": found.name, "half_life_ms": duration_ms(rest)}
    if not (rest.isdecimal() and int(rest) > 0):
        raise ValueError(f"{text!r}: {rest!r} must be a number above 0, as in {kind}_3")
    return {"function": found.name, "k": int(rest)}


def spellings() -> list[str]:
    """How each is declared."""
    hints = {"": "", "k": "_<k>", "other": "_<other column>", "half_life_ms": "_<half-life>"}
    return [(a.spelled or a.name) + hints[a.argument] for a in AGGREGATIONS.values()]
