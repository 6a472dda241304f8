"""Several processes of one service behind one port, and their metrics as if they were one.

The parent listens and starts the workers, which all accept from its socket: who is busy accepts less, and when one dies
nobody who was waiting to be accepted is lost. A worker that dies is started again; SIGTERM lets every one finish what
it has. Counters are summed over all workers that ever were, live gauges over those that run (`multiprocess_mode`).
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Final

import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Metric, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from adapters.errors import Misconfigured
from adapters.web import DRAIN_SECONDS, listen, serve_on

Factory = Callable[[Path], FastAPI]
MISCONFIGURED: Final = 2
RESTART_AFTER_S: Final = 1.0
OLDEST: Final = "process_start_time_seconds"
_spawn = multiprocessing.get_context("spawn")
_log = structlog.get_logger()


def serve_workers(factory: Factory, host: str, port: int, name: str, workers: int, *, pin: bool = False) -> int:
    """Serve with `workers` processes until SIGTERM or SIGINT; the exit code.

    `factory` is a module's function: each worker calls it with the folder that the workers share. `pin`: each keeps to
    one core, the next one with each; of two that share a core by chance both would be late, whatever the others do.
    """
    try:
        listener = listen(host, port, name)
    except Misconfigured as error:
        print(error.detail, file=sys.stderr, flush=True)
        return MISCONFIGURED
    shared = Path(tempfile.mkdtemp(prefix=f"minimart-{name}-"))
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(shared)  # for the workers, whose prometheus_client looks there first
    try:
        return _Workers(factory, listener, shared, workers, pin=pin).run()
    finally:
        listener.close()
        shutil.rmtree(shared, ignore_errors=True)


def merged_metrics(shared: Path) -> bytes:
    """The metrics of all workers in Prometheus' text form."""
    for pid in _pids(shared):
        if not _runs(pid):
            mark_process_dead(pid, str(shared))  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(shared))  # type: ignore[no-untyped-call]
    registry.register(_Processes(_pids(shared)))
    return generate_latest(registry)


class _Processes(Collector):
    """`process_*` of several processes: sums, and the oldest's start."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = tuple(pids)

    def collect(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        for pid in self._pids:
            for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                first = merged.setdefault(metric.name, metric)
                if first is not metric:
                    first.samples = [
                        a._replace(value=min(a.value, b.value) if metric.name == OLDEST else a.value + b.value)
                        for a, b in zip(first.samples, metric.samples, strict=True)
                    ]
        yield from merged.values()


def _pids(shared: Path) -> set[int]:
    """The workers that have live gauges, dead ones too until they are marked."""
    return {int(path.stem.rpartition("_")[2]) for path in shared.glob("gauge_live*_*.db")}


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class _Workers:
    """The parent's side."""

    def __init__(self, factory: Factory, listener: socket.socket, shared: Path, count: int, *, pin: bool) -> None:
        self._factory, self._listener, self._shared, self._count = factory, listener, shared, count
        self._cores = sorted(os.sched_getaffinity(0)) if pin and hasattr(os, "sched_getaffinity") else []
        self._stop = threading.Event()
        self._alive: dict[int, SpawnProcess] = {}

    def run(self) -> int:
        for stops in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stops, lambda *_: self._stop.set())
        self._alive = {number: self._start(number) for number in range(self._count)}
        code = 0
        while not self._stop.is_set():
            wait([process.sentinel for process in self._alive.values()], timeout=0.2)
            for number, process in [one for one in self._alive.items() if not one[1].is_alive()]:
                del self._alive[number]
                if process.exitcode == MISCONFIGURED:
                    code = MISCONFIGURED
                    self._stop.set()
                elif not self._stop.wait(RESTART_AFTER_S):
                    _log.error("worker_died", pid=process.pid, exit_code=process.exitcode)
                    self._alive[number] = self._start(number)
        self._end()
        return code

    def _start(self, number: int) -> SpawnProcess:
        core = self._cores[number % len(self._cores)] if self._cores else None
        process = _spawn.Process(target=_work, args=(self._factory, self._listener, self._shared, core), daemon=True)
        process.start()
        return process

    def _end(self) -> None:
        for process in self._alive.values():
            process.terminate()
        for process in self._alive.values():
            process.join(2 * DRAIN_SECONDS)
            if process.is_alive():
                process.kill()


def _work(factory: Factory, listener: socket.socket, shared: Path, core: int | None) -> None:
    """One worker's life. It ends with the parent, however that ended: nobody else would know of it."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        app = factory(shared)
    except Misconfigured as error:
        print(error.detail, file=sys.stderr, flush=True)
        sys.exit(MISCONFIGURED)
    serve_on(app, listener)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
