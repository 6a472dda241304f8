"""The gRPC edge: decode, ask, encode. The contract is adapters/rpc/features.proto."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
import structlog

from adapters.errors import BadInput, MinimartError, Misconfigured, NotFound, Overloaded, Unavailable
from adapters.feature_client import LIST, METHOD, SERVICE
from adapters.problems import INTERNAL
from adapters.rpc import features_pb2 as pb
from adapters.web import uuid7
from feature_repo.events import is_id
from services.feature_server import metrics
from services.feature_server.answer import Answers
from services.feature_server.asks import Asks
from services.feature_server.listing import Listed
from services.feature_server.terms import Answer, Column, ViewAnswer

T = TypeVar("T")
MOST_BYTES: Final = 1 << 20  # of a request
CODES: Final[tuple[tuple[type[MinimartError], grpc.StatusCode], ...]] = (
    (NotFound, grpc.StatusCode.NOT_FOUND), (BadInput, grpc.StatusCode.INVALID_ARGUMENT),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED), (Unavailable, grpc.StatusCode.UNAVAILABLE),
)  # fmt: skip
log = structlog.get_logger()


class FeatureRpc:
    """The methods of the service."""

    def __init__(self, asks: Asks, answers: Answers, *, clock: Callable[[], int],
                 services: Callable[[], list[Listed]], feature_set: str) -> None:
        self._asks, self._answers, self._clock = asks, answers, clock
        self._services, self._feature_set = services, feature_set

    def handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(SERVICE, {
            METHOD: grpc.unary_unary_rpc_method_handler(
                self._watched(METHOD, self._features), request_deserializer=pb.FeaturesRequest.FromString,
                response_serializer=pb.FeaturesResponse.SerializeToString),
            LIST: grpc.unary_unary_rpc_method_handler(
                self._watched(LIST, self._list), request_deserializer=pb.ListFeatureServicesRequest.FromString,
                response_serializer=pb.ListFeatureServicesResponse.SerializeToString),
        })  # fmt: skip

    async def _features(self, request: pb.FeaturesRequest, request_id: str) -> pb.FeaturesResponse:
        entities = {key: keys.values for key, keys in request.entities.items()}
        at_ms = request.at_ms if request.HasField("at_ms") else None
        ask = self._asks.ask(request.feature_service, request.features, entities, at_ms, self._clock())
        return encode(await self._answers.answer(ask), request_id)

    async def _list(self, request: pb.ListFeatureServicesRequest, request_id: str) -> pb.ListFeatureServicesResponse:
        found = await asyncio.to_thread(self._services)
        return pb.ListFeatureServicesResponse(
            feature_set=self._feature_set, services=[pb.FeatureService(**s.model_dump()) for s in found])

    def _watched(self, method: str, answer: Callable[[Any, str], Awaitable[T]]) -> Callable[[Any, Any], Awaitable[T]]:
        """Request ids, times by code, and our errors as status codes."""

        async def call(request: Any, context: Any) -> T:
            started, code = time.perf_counter(), grpc.StatusCode.OK
            request_id = _request_id(context.invocation_metadata())
            context.set_trailing_metadata((("x-request-id", request_id),))
            try:
                return await answer(request, request_id)
            except MinimartError as error:
                code = next((c for kind, c in CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
                detail = error.detail if error.status != 500 else INTERNAL
                await context.abort(code, f"{error.field}: {detail}" if error.field else detail)
            except Exception as error:
                if isinstance(error, grpc.aio.AbortError):
                    raise
                code = grpc.StatusCode.INTERNAL
                log.error("unexpected_error", request_id=request_id, method=method, exc_info=error)
                await context.abort(code, INTERNAL)
            finally:
                metrics.RPC_SECONDS.labels(metrics.NAME, method, code.name).observe(time.perf_counter() - started)
            raise AssertionError("abort raises")

        return call


async def start(rpc: FeatureRpc, address: str) -> grpc.aio.Server:
    """A server that listens. Raises Misconfigured where the port is taken."""
    server = grpc.aio.server(options=(
        ("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MOST_BYTES),
        ("grpc.max_send_message_length", -1),
    ))  # fmt: skip
    server.add_generic_rpc_handlers((rpc.handlers(),))
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        raise Misconfigured(f"feature_server: cannot listen on {address} for gRPC. Stop what uses the port, or set "
                            "MINIMART_FEATURE_SERVER_GRPC_PORT to another one") from None
    await server.start()
    return server


def encode(answer: Answer, request_id: str) -> pb.FeaturesResponse:
    """The reply as a message."""
    ask = answer.ask
    return pb.FeaturesResponse(
        request_id=request_id, feature_set=answer.feature_set, feature_service=ask.ref, at_ms=ask.at_ms,
        rows=ask.rows, stale=answer.stale, degraded=answer.degraded, views=[_view(v) for v in answer.views],
    )  # fmt: skip


def _view(view: ViewAnswer) -> pb.View:
    return pb.View(name=view.name, states=view.states.tolist(), ages_ms=view.ages_ms.tolist(),
                   reads_ms_ago=view.reads_ms_ago.tolist(), columns=[_column(c) for c in view.columns])


def _column(column: Column) -> pb.Column:
    values = column.values.tolist()
    if column.kind == "float64":
        return pb.Column(name=column.name, doubles=pb.Doubles(values=[float("nan") if v is None else v for v in values]
                                                             if column.values.dtype == object else values))
    nulls = [i for i, v in enumerate(values) if v is None] if column.values.dtype == object else []
    if column.kind == "int64":
        return pb.Column(name=column.name, integers=pb.Integers(values=_filled(values, nulls, 0)), nulls=nulls)
    if column.kind == "bool":
        return pb.Column(name=column.name, flags=pb.Flags(values=_filled(values, nulls, False)), nulls=nulls)
    if column.kind == "string":
        return pb.Column(name=column.name, texts=pb.Texts(values=_filled(values, nulls, "")), nulls=nulls)
    lists = [pb.Texts(values=v or ()) for v in values]
    return pb.Column(name=column.name, text_lists=pb.TextLists(values=lists), nulls=nulls)


def _filled(values: list[Any], nulls: list[int], empty: object) -> list[Any]:
    return [empty if v is None else v for v in values] if nulls else values


def _request_id(metadata: Iterable[tuple[str, Any]] | None) -> str:
    """The caller's x-request-id where it is valid, else a new one."""
    offered = next((value for key, value in metadata or () if key == "x-request-id"), "")
    return offered if isinstance(offered, str) and is_id(offered) else uuid7()
