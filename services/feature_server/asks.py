"""From what a caller says to a question that can be answered; what cannot be is refused by the name of the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adapters.errors import BadInput, NotFound, TooLarge
from feature_repo.plan import FeaturePlan
from feature_repo.service_versions import FeatureServices, Projection, chosen
from feature_repo.windows import CLOCK_AHEAD_MS, HOUR_MS
from services.feature_server.terms import Ask

MOST_ROWS = 2_000
MOST_FEATURES = 2_000
LONGEST_KEY = 128  # characters
BACK_MS = HOUR_MS  # how far before now windows may be read


class Asks:
    """Makes questions. Raises BadInput, NotFound, TooLarge."""

    def __init__(self, plan: FeaturePlan, services: FeatureServices) -> None:
        self._plan, self._services = plan, services
        self._join_keys = {v.name: v.join_keys for v in plan.declared_views}
        self._join_keys |= {v.name: v.join_keys for v in plan.attribute_views}

    def ask(self, service: str, features: Sequence[str], entities: Mapping[str, Sequence[str]], at_ms: int | None,
            now_ms: int) -> Ask:
        ref, projections = self._wanted(service, features)
        needed = self.join_keys(projections)
        rows = self._rows(needed, entities)
        return Ask(ref, projections, {key: tuple(entities[key]) for key in needed}, rows, _moment(at_ms, now_ms))

    def join_keys(self, projections: Sequence[Projection]) -> tuple[str, ...]:
        """What must be given to read these."""
        return tuple(dict.fromkeys(key for p in projections for key in self._join_keys[p.view]))

    def _wanted(self, service: str, features: Sequence[str]) -> tuple[str, tuple[Projection, ...]]:
        if bool(service) == bool(features):
            raise BadInput("give either a feature_service (name or name@version) or a list of features (view or "
                           "view:feature), and not both", field="feature_service")
        if len(features) > MOST_FEATURES:
            raise TooLarge(f"{len(features)} features; at most {MOST_FEATURES} in one request", field="features")
        try:
            if service:
                found = self._services.resolve(service)
                return found.ref, found.projections
        except LookupError as error:
            raise NotFound(str(error.args[0]), field="feature_service") from None
        try:
            return "", chosen(self._plan, features)
        except ValueError as error:
            raise NotFound(str(error), field="features") from None

    def _rows(self, needed: Sequence[str], entities: Mapping[str, Sequence[str]]) -> int:
        for key in entities:
            if key not in needed:
                raise BadInput(f"{key!r} is no join key of what is asked for; they are {', '.join(needed)}",
                               field="entities")
        for key in needed:
            if not entities.get(key):
                raise BadInput(f"{key!r} has no values; every one of {', '.join(needed)} must be given, once for all "
                               f"rows or once per row", field=f"entities.{key}")
        rows = max(len(entities[key]) for key in needed)
        if rows > MOST_ROWS:
            raise TooLarge(f"{rows} rows; at most {MOST_ROWS} in one request", field="entities")
        for key in needed:
            values = entities[key]
            if len(values) not in (1, rows):
                raise BadInput(f"{key!r} has {len(values)} values where others have {rows}; allowed: 1 or {rows}",
                               field=f"entities.{key}")
            if not all(0 < len(v) <= LONGEST_KEY for v in values):
                raise BadInput(f"{key!r} holds an empty value or one of more than {LONGEST_KEY} characters",
                               field=f"entities.{key}")
        return rows


def _moment(at_ms: int | None, now_ms: int) -> int:
    if at_ms is None:
        return now_ms
    if not now_ms - BACK_MS <= at_ms <= now_ms + CLOCK_AHEAD_MS:
        raise BadInput(f"at_ms = {at_ms} is too far from now ({now_ms}); allowed: {BACK_MS // 60_000} minutes before "
                       f"to {CLOCK_AHEAD_MS // 60_000} after. pipelines.point_in_time answers older moments",
                       field="at_ms")
    return at_ms
