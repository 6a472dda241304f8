"""What Triton's dynamic batching is worth: the shopper tower, one shopper a request: `python -m bench.batching`.

A Triton of its own with the tower that the platform last published (`--model` for another file). For every setting
(no batching, then batching with each queue delay) requests come open loop at rising rates, until the answers no longer
keep up. Per rate: P50/P95/P99/max as the client waits, the sizes of the batches that ran (Triton's own statistics), CPU
seconds of server and client. The client shares the machine; its own share is in the result, for it is a floor as well.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import onnxruntime
import psutil
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from adapters import provenance
from adapters.errors import NotFound
from bench.client import drive, poisson_times
from bench.samples import keep, percentiles
from bench.served import cpu_seconds
from pipelines.stack import triton_server
from pipelines.stack.launch import free_ports, running
from settings import ROOT, load_settings

HOST: Final = "127.0.0.1"
MODEL: Final = "two_tower_user"
OFF: Final = "no batching"
DELAYS_US: Final = (0, 200, 1_000, 5_000)
FIRST_RATE: Final = 100.0
FASTER: Final = 1.4
MOST_MS: Final = 100.0
"""A rate whose P99 is longer, or at which a request fails, is the last of its setting."""
AT_REST: Final = 1.5
"""Throughput is compared at a P99 of so many times that of the lowest rate without batching."""
OUT: Final = ROOT / "bench" / "results" / "batching.json"
RECENT: Final = 20


def newest_model() -> Path:
    """The tower's file of the highest version in the platform's repository. Raises NotFound."""
    folder = load_settings().triton_models / MODEL
    versions = sorted((int(p.name) for p in folder.glob("[0-9]*")), reverse=True) if folder.is_dir() else []
    if not versions:
        raise NotFound(f"no version of {MODEL} in {folder}: make demo trains one, or give --model FILE.onnx")
    return folder / str(versions[0]) / "model.onnx"


def configured(delay_us: int | None) -> str:
    """The configuration that we ship, with another queue delay, or without batching (None)."""
    text = (ROOT / "deploy" / "triton" / MODEL / "config.pbtxt").read_text(encoding="utf-8")
    if delay_us is None:
        found, count = re.subn(r"dynamic_batching \{.*?\n\}\n", "", text, flags=re.S)
    else:
        found, count = re.subn(r"(max_queue_delay_microseconds: )\d+", rf"\g<1>{delay_us}", text)
    if count != 1:
        raise ValueError(f"deploy/triton/{MODEL}/config.pbtxt has {count} blocks of dynamic batching, expected 1")
    return found


@contextmanager
def server(folder: Path, model: Path, config: str) -> Iterator[tuple[int, psutil.Process]]:
    """A Triton with this model and configuration: (HTTP port, its process)."""
    models, (http, grpc, metrics) = folder / "models", free_ports(3)
    (models / MODEL / "1").mkdir(parents=True)
    (models / MODEL / "1" / "model.onnx").write_bytes(model.read_bytes())
    (models / MODEL / "config.pbtxt").write_text(config, encoding="utf-8")
    launch = triton_server.launch(
        folder, models=models, host=HOST, http_port=http, grpc_port=grpc, metrics_port=metrics
    )
    with running(launch, log=folder / "triton.log", ready=lambda: loaded(http), timeout_s=120) as process:
        yield http, psutil.Process(process.pid)


def loaded(port: int) -> bool:
    try:
        return httpx.get(f"http://{HOST}:{port}/v2/models/{MODEL}/ready", timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


def bodies(count: int, seed: int, users: int, items: int) -> list[bytes]:
    """One shopper each, in the protocol of Triton's HTTP endpoint."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        recent = rng.integers(0, items, RECENT).tolist()
        user = {"name": "user_index", "shape": [1, 1], "datatype": "INT64", "data": [int(rng.integers(0, users))]}
        seen = {"name": "recent_items", "shape": [1, RECENT], "datatype": "INT64", "data": recent}
        out.append(json.dumps({"inputs": [user, seen]}).encode())
    return out


def sizes_of_tables(model: Path) -> tuple[int, int]:
    """(users, items) that the model surely has rows for: found by asking it."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])

    def holds(user: int, item: int) -> bool:
        try:
            session.run(None, {"user_index": np.array([user]), "recent_items": np.full((1, RECENT), item)})
        except Exception:  # noqa: BLE001 onnxruntime's own errors have no common base
            return False
        return True

    users = next((n for n in (5_000, 500, 50, 2) if holds(n - 1, 0)), 1)
    items = next((n for n in (1_000, 100, 10, 2) if holds(0, n - 1)), 1)
    return users, items


def batches(port: int) -> dict[int, int]:
    """Size of batch -> how many ran since the start, by Triton's statistics."""
    found = httpx.get(f"http://{HOST}:{port}/v2/models/{MODEL}/stats", timeout=5).json()
    rows = found["model_stats"][0].get("batch_stats", [])
    return {int(row["batch_size"]): int(row["compute_infer"]["count"]) for row in rows}


def at_rate(port: int, process: psutil.Process, rate: float, seconds: float, seed: int, tables: tuple[int, int]
            ) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """One rate: what came of it, and the latencies in ms."""
    times = poisson_times(rate, seconds, seed)
    asked, before = bodies(len(times), seed, *tables), batches(port)
    server_s, client_s, began = cpu_seconds(process), time.process_time(), time.perf_counter()
    replies = asyncio.run(drive(HOST, port, f"/v2/models/{MODEL}/infer", times, asked))
    took = time.perf_counter() - began
    ok = [reply.latency_ms for reply in replies if reply.status == 200]
    latency = np.array(ok, np.float32)
    ran = {size: count - before.get(size, 0) for size, count in batches(port).items()}
    return {
        "rate": round(rate, 1), "requests": len(times), "answered": len(ok), "failed": len(times) - len(ok),
        "throughput": round(len(ok) / took, 1), "latency_ms": percentiles(latency),
        "batches": {str(size): count for size, count in sorted(ran.items()) if count},
        "server_cpu": round((cpu_seconds(process) - server_s) / took, 3),
        "client_cpu": round((time.process_time() - client_s) / took, 3),
    }, latency  # fmt: skip


def sweep(model: Path, seconds: float, seed: int, most_rates: int, console: Console
          ) -> tuple[list[dict[str, Any]], dict[str, NDArray[np.float32]]]:
    """Every setting at rising rates: rows, and the raw latencies by `<setting>@<rate>`."""
    tables = sizes_of_tables(model)
    rows: list[dict[str, Any]] = []
    samples: dict[str, NDArray[np.float32]] = {}
    for delay in (None, *DELAYS_US):
        setting = OFF if delay is None else f"{delay} us"
        with tempfile.TemporaryDirectory() as folder, server(Path(folder), model, configured(delay)) as (port, process):
            at_rate(port, process, FIRST_RATE, min(1.0, seconds), seed, tables)  # what is cold is not measured
            for step in range(most_rates):
                row, latency = at_rate(port, process, FIRST_RATE * FASTER**step, seconds, seed + step, tables)
                rows.append({"setting": setting, **row})
                samples[f"{setting}@{row['rate']:g}"] = latency
                console.print(f"  {setting:>12}  {row['rate']:7.0f}/s  P99 {row['latency_ms'].get('p99', 0):7.1f} ms")
                if not keeps_up(row):
                    break
    return rows, samples


def keeps_up(row: dict[str, Any]) -> bool:
    """Whether every request of this rate was answered, and soon enough."""
    return not row["failed"] and float(row["latency_ms"].get("p99", np.inf)) <= MOST_MS


def verdicts(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per setting: the P99 at rest, and the highest rate up to which P99 kept the limit that is derived from OFF."""
    limit = round(AT_REST * next(row["latency_ms"]["p99"] for row in rows if row["setting"] == OFF), 2)
    out: list[dict[str, Any]] = []
    for setting in dict.fromkeys(row["setting"] for row in rows):
        mine = [row for row in rows if row["setting"] == setting]
        kept = [row for row in mine if keeps_up(row)]
        within = [row for row in kept if row["latency_ms"]["p99"] <= limit]
        out.append({
            "setting": setting, "p99_at_rest_ms": mine[0]["latency_ms"].get("p99"), "p99_limit_ms": limit,
            "throughput_at_limit": max((row["throughput"] for row in within), default=0.0),
            "throughput": max((row["throughput"] for row in kept), default=0.0),
        })  # fmt: skip
    for row in out:
        for name in ("throughput_at_limit", "throughput"):
            row[f"{name}_times"] = round(row[name] / out[0][name], 2) if out[0][name] else None
    return out


def picture(rows: Sequence[dict[str, Any]], samples: dict[str, NDArray[np.float32]], path: Path) -> None:
    """P99 against rate per setting; sizes of batches at the highest rate that each setting kept."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for setting in dict.fromkeys(row["setting"] for row in rows):
        mine = [row for row in rows if row["setting"] == setting]
        left.plot([row["rate"] for row in mine], [row["latency_ms"].get("p99") for row in mine], ".-", label=setting)
        kept = [row for row in mine if keeps_up(row)]
        if kept:
            ran = {int(size): count for size, count in kept[-1]["batches"].items()}
            share = np.array(list(ran.values())) * np.array(list(ran))
            right.plot(list(ran), share / share.sum(), ".-", label=f"{setting}, {kept[-1]['rate']:.0f}/s")
    left.set(xlabel="requests a second", ylabel="P99 (ms)", xscale="log", yscale="log", title="as the client waits")
    right.set(xlabel="size of batch", ylabel="share of requests", xscale="log", title="batches at the last kept rate")
    for axes in (left, right):
        axes.legend(fontsize=7)
    figure.suptitle(f"Triton's dynamic batching: {MODEL}, {sum(map(len, samples.values())):,} requests")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def show(found: Sequence[dict[str, Any]], console: Console) -> None:
    table = Table(title=f"{MODEL}: requests a second")
    until = f"until {MOST_MS:g} ms"
    for heading in ("setting", "P99 at rest", "up to a P99 of", "requests/s", "times", until, "times"):
        table.add_column(heading, justify="right")
    for row in found:
        names = ("setting", "p99_at_rest_ms", "p99_limit_ms", "throughput_at_limit", "throughput_at_limit_times",
                 "throughput", "throughput_times")  # fmt: skip
        table.add_row(*(str(row[name]) for name in names))
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.batching", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, help="the tower's ONNX file; default: the platform's newest")
    parser.add_argument("--seconds", type=float, default=5.0, help="per rate")
    parser.add_argument("--rates", type=int, default=12, help="at most so many rates per setting")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--save", type=Path, help=f"where to write the result, e.g. {OUT.relative_to(ROOT)}")
    asked = parser.parse_args(arguments)
    console = Console(stderr=True)
    rows, samples = sweep(asked.model or newest_model(), asked.seconds, asked.seed, asked.rates, console)
    found = verdicts(rows)
    show(found, console)
    if asked.save:
        result = {
            "command": "python -m bench.batching", "model": MODEL, "seconds": asked.seconds, "seed": asked.seed,
            "most_ms": MOST_MS, "settings": found, "rows": rows, **provenance.stamp(),
        }  # fmt: skip
        keep(result, samples, asked.save)
        picture(rows, samples, asked.save.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
