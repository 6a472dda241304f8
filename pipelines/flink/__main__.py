"""The features on Flink: `make flink`.

    python -m pipelines.flink sql            print the compiled SQL, for a cluster of your own
    python -m pipelines.flink run            run it here until Ctrl-C
    python -m pipelines.flink serve --redis  redis://...   write its tiles to an online store, until Ctrl-C
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from adapters.errors import MinimartError, Misconfigured
from adapters.feature_state import FeatureState
from feature_repo import flink_sql
from feature_repo.flink_sql import Job
from feature_repo.plan import FeaturePlan
from pipelines.flink import gateway, job
from pipelines.flink.serve import TileSink
from pipelines.stack.launch import free_ports, running
from settings import Settings, load_settings

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
Parallelism = Annotated[int, typer.Option(min=1, max=1024)]
Heap = Annotated[int, typer.Option(min=512)]
Fresh = Annotated[bool, typer.Option("--fresh", help="from the beginning of Kafka, not from the newest checkpoint")]
Elsewhere = Annotated[str, typer.Option("--gateway", help="a SQL Gateway elsewhere, http://host:port")]
START_S = 120


@app.command()
def sql(parallelism: Parallelism = 2) -> None:
    """Print the compiled job, for the SQL client or gateway of a cluster of your own."""
    settings = load_settings()
    plan = _plan(settings)
    wanted = Job(bootstrap=settings.kafka, topic=flink_sql.topic_of(plan), parallelism=parallelism)
    print(";\n\n".join(flink_sql.statements(plan, wanted)) + ";")


@app.command()
def run(parallelism: Parallelism = 2, heap_mb: Heap = 2048, fresh: Fresh = False, at: Elsewhere = "") -> None:
    """Run the job, here or on a cluster of your own, going on from its newest checkpoint if there is one."""
    settings = load_settings()
    plan = _plan(settings)
    folder = settings.home / "flink" / plan.version
    checkpoints = folder / "checkpoints"
    wanted = Job(bootstrap=settings.kafka, topic=flink_sql.topic_of(plan), parallelism=parallelism,
                 checkpoints="" if at else checkpoints.as_uri(),
                 resume_from="" if fresh or at else job.newest_checkpoint(checkpoints))
    job.prepare(wanted, settings.kafka_partitions)
    if wanted.resume_from:
        print(f"going on from {wanted.resume_from}", flush=True)
    if at:
        job.run(plan, wanted, at, _tell)
        return
    gateway.install(tell=_tell)
    (port,) = free_ports(1, settings.host)
    start = gateway.launch(folder, host=settings.host, port=port, heap_mb=heap_mb)
    print(f"Flink's SQL Gateway: http://{settings.host}:{port}  its log: {folder}/gateway.log", flush=True)
    log = folder / "gateway.log"
    with running(start, log=log, ready=lambda: gateway.ready(settings.host, port), timeout_s=START_S):
        job.run(plan, wanted, f"http://{settings.host}:{port}", _tell)


@app.command()
def serve(redis: Annotated[str, typer.Option(help="redis://host:port/db of an online store that nobody else fills")],
          to_end: Annotated[bool, typer.Option("--to-end", help="end at what is in the topic now")] = False) -> None:
    """Write the tiles of the running job to an online store."""
    settings = load_settings()
    plan = _plan(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    state = FeatureState(redis, plan)
    with contextlib.closing(state):
        sink = TileSink(plan, state, settings.kafka, flink_sql.topic_of(plan))
        print(f"{sink.run(stop, _tell, to_end=to_end)} records written", flush=True)


def _plan(settings: Settings) -> FeaturePlan:
    path: Path = settings.features / "plan.json"
    try:
        return FeaturePlan.load(path)
    except FileNotFoundError:
        raise Misconfigured(f"{path} is not there; make demo writes it") from None


def _tell(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    try:
        app()
    except MinimartError as error:
        print(f"{error.title}: {error.detail}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the next run goes on from the newest checkpoint", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
