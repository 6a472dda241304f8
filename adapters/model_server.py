"""Where models run: on Triton, or in this process from the same verified bundle when Triton cannot answer.

The fallback runs the same version or nothing: another version is never served silently. An answer that is late, holds
NaN or has the wrong shape counts as a failure of the server that gave it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import grpc
import numpy as np
import onnxruntime
import tritonclient.grpc.aio as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from adapters.breaker import Breaker
from adapters.errors import Corrupt, Unavailable
from adapters.telemetry import NEIGHBOUR_ERRORS

Inputs = Mapping[str, NDArray[Any]]
_MOST_VERSIONS: Final = 32


class Served(NamedTuple):
    """What a model promises: the name of its output and how many columns it has."""

    output: str
    width: int


SERVED: Final[Mapping[str, Served]] = {
    "two_tower_user": Served("embedding", 64),
    "preranker": Served("score", 1),
    "ranker": Served("score", 1),
}


class Inference(NamedTuple):
    """`values` float32 [rows, width]; `fell_back` is true if not the first choice of server gave them."""

    values: NDArray[np.float32]
    fell_back: bool = False


class ModelServer(Protocol):
    """Runs one version of one model of SERVED over a batch."""

    async def infer(self, model: str, version: str, inputs: Inputs) -> Inference:
        """`inputs` share their first dimension. Raises Unavailable: away, late, not that version, NaN, wrong shape."""

    async def close(self) -> None:
        """Release connections and threads."""


def checked(model: str, rows: int, values: NDArray[Any] | None, who: str) -> NDArray[np.float32]:
    """`values` if they are finite float32 [rows, width] as SERVED promises. Raises Unavailable."""
    expected = (rows, SERVED[model].width)
    if values is None or values.shape != expected:
        shape = None if values is None else values.shape
        raise Unavailable(f"{who}: {model} answered with shape {shape}, expected {expected}")
    if not np.isfinite(values).all():
        raise Unavailable(f"{who}: {model} answered with NaN or infinite values")
    return values.astype(np.float32, copy=False)


class TritonServer:
    """Models on Triton over gRPC. A breaker per version makes a dead or broken one cost microseconds, not time-outs."""

    _CHANNEL: Final = (
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.max_receive_message_length", 16 << 20),
        ("grpc.max_send_message_length", 16 << 20),
    )

    def __init__(self, address: str, *, timeout_s: float, rest_s: float = 1.0) -> None:
        self._address, self._timeout_s = address, timeout_s
        self._client: triton.InferenceServerClient | None = None
        self._rest_s = rest_s
        self._breakers: OrderedDict[tuple[str, str], Breaker] = OrderedDict()

    async def infer(self, model: str, version: str, inputs: Inputs) -> Inference:
        breaker = self._breaker(model, version)
        if not breaker.allows():
            raise Unavailable(f"Triton at {self._address}: {model} failed before; waiting before the next trial")
        try:
            async with asyncio.timeout(self._timeout_s):
                values = await self._ask(model, version, inputs)
            values = checked(model, len(next(iter(inputs.values()))), values, "Triton")
        except (InferenceServerException, grpc.RpcError, TimeoutError, Unavailable) as error:
            breaker.failed()
            NEIGHBOUR_ERRORS.labels("recommender", "triton").inc()
            raise Unavailable(f"Triton at {self._address}: {model} {version}: {_reason(error)}") from None
        breaker.succeeded()
        return Inference(values)

    def _breaker(self, model: str, version: str) -> Breaker:
        """A challenger that fails must not keep the champion off Triton. Versions of long ago are forgotten."""
        if (model, version) not in self._breakers:
            self._breakers[model, version] = Breaker(threshold=3, rest_s=self._rest_s)
            while len(self._breakers) > _MOST_VERSIONS:
                self._breakers.popitem(last=False)
        return self._breakers[model, version]

    async def _ask(self, model: str, version: str, inputs: Inputs) -> NDArray[Any] | None:
        if self._client is None:  # made on first use, so that it belongs to the running loop
            self._client = triton.InferenceServerClient(self._address, channel_args=list(self._CHANNEL))
        tensors = [_tensor(name, array) for name, array in inputs.items()]
        output = SERVED[model].output
        answer = await self._client.infer(
            model, tensors, model_version=version, outputs=[triton.InferRequestedOutput(output)]
        )
        values: NDArray[Any] | None = answer.as_numpy(output)
        return values

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


class InProcess:
    """Models in this process. `put` a version before it is asked for; it stays until it is dropped.

    With one thread a model runs on the loop's own: handing over to another and back costs more than it gains there.
    """

    def __init__(self, *, threads: int = 1) -> None:
        self._sessions: dict[tuple[str, str], onnxruntime.InferenceSession] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="onnx") if threads > 1 else None

    def put(self, model: str, version: str, path: Path) -> None:
        """Load `path` as `version` of `model` unless it is there already. Raises Corrupt if it does not load."""
        if (model, version) not in self._sessions:
            self._sessions[model, version] = open_session(path)

    def keep_only(self, wanted: set[tuple[str, str]]) -> None:
        """Drop every (model, version) that is not in `wanted`."""
        self._sessions = {key: session for key, session in self._sessions.items() if key in wanted}

    async def infer(self, model: str, version: str, inputs: Inputs) -> Inference:
        if self._pool is None:
            await asyncio.sleep(0)  # who is refused meanwhile is told so now, not after the whole answer
            return self.infer_now(model, version, inputs)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self.infer_now, model, version, inputs)

    def infer_now(self, model: str, version: str, inputs: Inputs) -> Inference:
        """The same without a loop: for warming up."""
        session = self._sessions.get((model, version))
        if session is None:
            raise Unavailable(f"{model} version {version} is not loaded in this process")
        try:
            (values,) = session.run([SERVED[model].output], dict(inputs))
        except Exception as error:  # noqa: BLE001 onnxruntime raises a family without a common base
            raise Unavailable(f"{model} {version} in process: {error}") from None
        return Inference(checked(model, len(next(iter(inputs.values()))), values, "in process"))

    async def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


class FallingBack:
    """Asks `first`; if that fails, the same version of `second`, and says so."""

    def __init__(self, first: ModelServer, second: ModelServer) -> None:
        self._first, self._second = first, second

    async def infer(self, model: str, version: str, inputs: Inputs) -> Inference:
        try:
            return await self._first.infer(model, version, inputs)
        except Unavailable:
            answer = await self._second.infer(model, version, inputs)
            return answer._replace(fell_back=True)

    async def close(self) -> None:
        await self._first.close()
        await self._second.close()


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """An onnxruntime session on one CPU thread. Raises Corrupt if the file is not a model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 onnxruntime raises a family without a common base
        raise Corrupt(f"{path}: onnxruntime cannot load it: {error}") from None


def _tensor(name: str, array: NDArray[Any]) -> triton.InferInput:
    """Triton wants at least [batch, 1]; a column of scalars [batch] is sent so."""
    array = np.ascontiguousarray(array[:, None] if array.ndim == 1 else array)
    tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    return tensor


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else f"no answer in time ({type(error).__name__})"
