"""The feature server as its callers see it: feature values by entity keys, over gRPC, as columns of numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio
import numpy as np

from adapters.errors import BadInput, NotFound, Overloaded, Unavailable
from adapters.rpc import features_pb2 as pb

SERVICE: Final = "minimart.features.v1.FeatureServer"
METHOD: Final = "GetFeatures"
LIST: Final = "ListFeatureServices"
STATES: Final = {v.number: v.name.removeprefix("STATE_").lower() for v in pb.State.DESCRIPTOR.values}
_REFUSED: Final = {grpc.StatusCode.INVALID_ARGUMENT: BadInput, grpc.StatusCode.NOT_FOUND: NotFound,
                   grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded}


@dataclass(frozen=True)
class Features:
    """An answer. `columns[feature]`: float64 or int64 [rows], or object where a value may be None, text or a list; [1]
    for views whose keys were all given once. `states` and `ages_ms` are per view and row."""

    feature_set: str
    feature_service: str
    stale: bool
    columns: dict[str, np.ndarray]
    states: dict[str, list[str]]
    ages_ms: dict[str, list[int]]


class FeatureClient:
    """Asks one feature server. Every method raises Unavailable, Overloaded, NotFound or BadInput."""

    def __init__(self, address: str, timeout_s: float = 0.1) -> None:
        self._address, self._timeout_s = address, timeout_s
        self._channel: Any = grpc.aio.insecure_channel(address, options=(("grpc.max_receive_message_length", -1),))
        self._ask = self._channel.unary_unary(
            f"/{SERVICE}/{METHOD}", request_serializer=pb.FeaturesRequest.SerializeToString,
            response_deserializer=pb.FeaturesResponse.FromString)
        self._list = self._channel.unary_unary(
            f"/{SERVICE}/{LIST}", request_serializer=pb.ListFeatureServicesRequest.SerializeToString,
            response_deserializer=pb.ListFeatureServicesResponse.FromString)

    async def features(self, service: str, entities: Mapping[str, Sequence[str]], *, at_ms: int | None = None,
                       features: Sequence[str] = ()) -> Features:
        """Values of a feature service (`name` or `name@version`), or of `features` where `service` is empty."""
        request = pb.FeaturesRequest(feature_service=service, features=features, at_ms=at_ms,
                                     entities={key: pb.Keys(values=values) for key, values in entities.items()})
        return _read(await self._call(self._ask, request))

    async def services(self) -> list[Any]:
        """Every feature service by version, as `pb.FeatureService`."""
        return list((await self._call(self._list, pb.ListFeatureServicesRequest())).services)

    async def close(self) -> None:
        await self._channel.close()

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            kind = _REFUSED.get(error.code())
            if kind is not None:
                raise kind(error.details() or error.code().name) from None
            raise Unavailable(f"the feature server at {self._address} did not answer: {error.code().name}") from None


def _read(response: Any) -> Features:
    columns = {c.name: _values(c) for view in response.views for c in view.columns}
    return Features(
        response.feature_set, response.feature_service, response.stale, columns,
        {v.name: [STATES[s] for s in v.states] for v in response.views},
        {v.name: list(v.ages_ms) for v in response.views})


def _values(column: Any) -> np.ndarray:
    kind = column.WhichOneof("values")
    found = getattr(column, kind).values
    if kind == "doubles":
        return np.array(found, np.float64)
    if kind == "integers" and not column.nulls:
        return np.array(found, np.int64)
    out = np.empty(len(found), dtype=object)
    out[:] = [list(t.values) for t in found] if kind == "text_lists" else found
    out[list(column.nulls)] = None
    return out
