"""Drives the recommender open loop and says how fast it answered, by stage.

    python -m bench.load --rate 50 --seconds 30

Shoppers are drawn by Zipf's law from the published ones, 5 % are new visitors, surfaces as in a shop. Every run keeps
its raw samples, a summary and a picture under bench/ of MINIMART_OUTPUT or home; `--save FILE.json` also writes the
summary to FILE.json and the samples beside it. Ends with 1 if an answer failed (429, load that was shed, is apart).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from adapters.errors import Corrupt
from adapters.pointers import load_current
from bench.client import Reply, drive, poisson_times
from bench.samples import Samples, percentiles, picture, samples_of, summary, write
from settings import Settings, load_settings

SURFACES: Final = {"home": 0.7, "category": 0.15, "product": 0.1, "cart": 0.05}
NEW_VISITORS: Final = 0.05
ZIPF: Final = 1.1


def requests(n: int, shoppers: Sequence[str], seed: int) -> list[bytes]:
    """`n` request bodies of a realistic mix."""
    rng = np.random.default_rng(seed)
    weight = 1.0 / np.arange(1, len(shoppers) + 1) ** ZIPF
    who = rng.choice(rng.permutation(len(shoppers)), n, p=weight / weight.sum())
    new = rng.random(n) < NEW_VISITORS
    surfaces = rng.choice(list(SURFACES), n, p=list(SURFACES.values()))
    return [
        orjson.dumps({
            "user_id": f"visitor-{seed}-{i}" if new[i] else shoppers[who[i]], "surface": str(surfaces[i]), "k": 20,
            "context": {"device": ("desktop", "phone")[i % 2]},
        })
        for i in range(n)
    ]


def run(settings: Settings, rate: float, seconds: float, seed: int, *, quiet: bool) -> Samples:
    """One run against the recommender of `settings`."""
    times = poisson_times(rate, seconds, seed)
    bodies = requests(len(times), shoppers_of(settings), seed)
    bar = Progress(
        TextColumn("load"), BarColumn(), TextColumn("{task.completed}/{task.total} answered, {task.fields[note]}"),
        TimeElapsedColumn(), console=Console(stderr=True), disable=quiet,
    )
    with bar:
        task = bar.add_task("load", total=len(times), note="")
        recent: list[float] = []

        def on_reply(reply: Reply) -> None:
            recent.append(reply.latency_ms)
            if len(recent) % 10 == 0 or len(recent) == len(times):
                note = f"median now {np.median(recent[-max(int(rate), 1):]):.0f} ms"
                bar.update(task, completed=len(recent), note=note)

        url = urlsplit(settings.url("recommender"))
        host, port = str(url.hostname), url.port or 80
        replies = asyncio.run(drive(host, port, "/v1/recommendations", times, bodies, on_reply=on_reply))
    return samples_of(replies)


def shoppers_of(settings: Settings) -> list[str]:
    """The published shoppers; the simulator's names where nothing is published."""
    try:
        bundle = load_current(settings.published).get("two-tower")
    except Corrupt:
        bundle = None
    if bundle is not None:
        return bundle.path("users.txt").read_text().split()
    return [f"u{i:05d}" for i in range(settings.sim_shoppers)]


async def stalled_run(rate: float, seconds: float, stall_from_s: float, stall_s: float) -> Samples:
    """A run against a toy server that answers nobody for `stall_s` seconds from `stall_from_s`: our own proof."""
    begun = time.perf_counter()
    over = begun + stall_from_s + stall_s

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
                await reader.readexactly(length)
                now = time.perf_counter()
                if begun + stall_from_s <= now < over:
                    await asyncio.sleep(over - now)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    times = np.arange(0, seconds, 1 / rate)
    port = server.sockets[0].getsockname()[1]
    replies = await drive("127.0.0.1", port, "/", times, [b"{}"] * len(times))
    server.close()
    await asyncio.sleep(0.05)  # the connections' ends are seen
    return samples_of(replies)


def self_test(console: Console) -> int:
    """Five seconds of silence in thirty at 100/s: one request in ten must have waited two seconds or more."""
    console.print("a toy server stalls for 5 s of 30 s at 100/s; this takes 30 s ...")
    p90 = percentiles(asyncio.run(stalled_run(100, 30, 10, 5)).latency_ms)["p90"]
    passed = p90 >= 1900
    console.print(f"P90 {p90:.0f} ms: {'no waiting is omitted' if passed else 'OMITS waiting; its figures are void'}")
    return 0 if passed else 1


def show(figures: dict[str, Any], console: Console) -> None:
    """The figures as a table."""
    table = Table(title=f"{figures['requests']} requests at {figures['rate']:g}/s, ms")
    for heading in ("", "P50", "P95", "P99", "max"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, row in (("from intended send to answer", figures["latency_ms"]), *figures["stages_ms"].items()):
        table.add_row(name, *(f"{row[p]:.1f}" if row else "-" for p in ("p50", "p95", "p99", "max")))
    console.print(table)
    shares = ", ".join(f"{reason} {share:.1%}" for reason, share in figures["degraded"].items()) or "none"
    counts = f"answered {figures['answered']}, shed {figures['shed']}, errors {figures['errors']}"
    console.print(f"{counts}; degraded: {shares}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--rate", type=float, default=50.0, help="requests per second (default 50)")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the run (default 30)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--save", type=Path, help="also write the summary here and the raw samples beside it")
    parser.add_argument("--self-test", action="store_true", help="prove that a stall is not hidden, then end")
    options = parser.parse_args(arguments)
    if options.rate <= 0 or options.seconds <= 0:
        parser.error("--rate and --seconds must be above 0")
    console = Console(stderr=options.json)
    if options.self_test:
        return self_test(console)
    settings = load_settings()
    samples = run(settings, options.rate, options.seconds, options.seed, quiet=options.json)
    if not (samples.status > 0).any():
        console.print(f"nobody answered at {settings.url('recommender')}: is it running? `make status`, `make demo`")
        return 1
    figures = summary(samples, rate=options.rate, seconds=options.seconds, seed=options.seed)
    folder = settings.out / "bench" / f"load-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    write(samples, figures, folder / "summary.json")
    picture(samples, folder / "latency.png", f"{options.rate:g} requests a second for {options.seconds:g} s")
    if options.save:
        write(samples, figures, options.save)
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures, console)
        console.print(f"raw samples, summary and picture: {folder}")
    return 1 if figures["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
