"""Shopper tower and deep ranker on a GPU against the CPU, by number of rows: `make bench-gpu`.

Forms: ONNX Runtime on this machine's CPU in FP32 (the floor that the GPU has to beat), PyTorch on the device in FP32
and FP16, and ONNX Runtime's CUDA and TensorRT where this onnxruntime has them; what is absent is named, not skipped in
silence. A time is from arrays of the host to arrays of the host, copies included, as a server pays it; all forms in
turn. Weights are random and of a seed, in the shapes that are trained: speed does not depend on them. The largest
difference from the CPU's answer stands beside each form.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from adapters import provenance
from bench.samples import keep, percentiles
from bench.timing import Runs, in_turns
from models import deep_ranker, onnx_export
from models.deep_ranker import DeepRanker, DeepRankerConfig
from models.ranking_features import FEATURES
from models.two_tower import Content, TwoTower, TwoTowerConfig
from settings import ROOT

OUT: Final = ROOT / "bench" / "results" / "gpu.json"
ROWS: Final = (1, 8, 64, 512, 4_096, 32_768)
CPU: Final = "onnxruntime CPU fp32"
PROVIDERS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "onnxruntime CUDA fp32": ("CUDAExecutionProvider", {}),
    "TensorRT fp32": ("TensorrtExecutionProvider", {}),
    "TensorRT fp16": ("TensorrtExecutionProvider", {"trt_fp16_enable": True}),
}


@dataclass(frozen=True)
class Task:
    """A network, its ONNX form, and rows to ask it with, in the order of its arguments."""

    name: str
    network: torch.nn.Module
    onnx: bytes
    inputs: Mapping[str, NDArray[Any]]


class OnDevice:
    """A network on a device, in FP32 or with its matrix work in FP16; asked as an ONNX Runtime session is."""

    def __init__(self, network: torch.nn.Module, device: str, *, half: bool) -> None:
        self.network, self.device, self.half = network, device, half

    def run(self, _: None, feed: Mapping[str, NDArray[Any]], /) -> list[NDArray[np.float32]]:
        """float32 on the host. Waits for the device, since it copies the answer back."""
        kind = torch.device(self.device).type
        with torch.inference_mode(), torch.autocast(kind, torch.float16) if self.half else nullcontext():
            answer = self.network(*(torch.from_numpy(values).to(self.device) for values in feed.values()))
        return [answer.float().cpu().numpy()]


def tower(users: int, items: int, rows: int, seed: int) -> Task:
    rng, config = np.random.default_rng(seed), TwoTowerConfig()
    torch.manual_seed(seed)
    price = rng.normal(7.5, 1.5, items + 1).astype(np.float32)
    model = TwoTower(users, Content(rng.integers(0, 50, items + 1), price), config)
    inputs = {"user_index": rng.integers(0, users + 1, rows),
              "recent_items": rng.integers(0, items + 1, (rows, config.recent))}  # fmt: skip
    return Task("shopper tower", model.user_tower, onnx_export.user_encoder(model), inputs)


def ranker(rows: int, seed: int) -> Task:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    features = rng.lognormal(1.0, 2.0, (rows, len(FEATURES))).astype(np.float32)
    model = DeepRanker(features, DeepRankerConfig())
    return Task("deep ranker (DCNv2)", model, deep_ranker.export(model), {"features": features})


def forms_of(task: Task, device: str) -> tuple[dict[str, Runs], dict[str, str]]:
    """The forms that can run here, the CPU's first, and why the others cannot."""
    threads = torch.get_num_threads()
    forms: dict[str, Runs] = {CPU: onnx_export.session(task.onnx, threads=threads)}
    network = task.network.to(device).eval()
    forms |= {f"torch {device} fp32": OnDevice(network, device, half=False),
              f"torch {device} fp16": OnDevice(network, device, half=True)}  # fmt: skip
    absent = {}
    for name, (provider, options) in PROVIDERS.items():
        if provider in onnxruntime.get_available_providers():
            forms[name] = onnxruntime.InferenceSession(task.onnx, providers=[(provider, options)])
        else:
            absent[name] = f"onnxruntime {onnxruntime.__version__} here has no {provider}"
    return forms, absent


def measured(task: Task, device: str, sizes: Sequence[int], rounds: int, console: Console
             ) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:  # fmt: skip
    """The table of one model, and the raw milliseconds by `<model>|<rows>|<form>`."""
    forms, absent = forms_of(task, device)
    few = {name: values[: min(256, len(values))] for name, values in task.inputs.items()}
    answers = {name: np.asarray(form.run(None, few)[0], np.float32) for name, form in forms.items()}
    rows: list[dict[str, Any]] = []
    samples: dict[str, NDArray[np.float32]] = {}
    for size in sizes:
        console.print(f"{task.name}: {size:,} rows")
        for name, ms in in_turns(forms, task.inputs, size, rounds).items():
            rows.append({"rows": size, "form": name, "latency_ms": percentiles(ms),
                         "rows_per_s": round(1e3 * size / float(np.median(ms)))})  # fmt: skip
            samples[f"{task.name}|{size}|{name}"] = ms.astype(np.float32)
    differs = {name: onnx_export.max_difference(found, answers[CPU]) for name, found in answers.items()}
    return {"model": task.name, "rows": rows, "difference": differs, "absent": absent}, samples


def show(found: Sequence[Mapping[str, Any]], console: Console) -> None:
    for one in found:
        table = Table(title=f"{one['model']}: host to host, copies included")
        for heading in ("rows", "form", "P50 ms", "P99 ms", "rows/s", "largest difference"):
            table.add_column(heading, justify="left" if heading == "form" else "right")
        for row in one["rows"]:
            table.add_row(f"{row['rows']:,}", row["form"], str(row["latency_ms"]["p50"]), str(row["latency_ms"]["p99"]),
                          f"{row['rows_per_s']:,}", f"{one['difference'][row['form']]:.1e}")  # fmt: skip
        console.print(table)
        for name, why in one["absent"].items():
            console.print(f"not measured: {name}: {why}")


def picture(found: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Rows a second by number of rows, a panel per model."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(found), figsize=(11, 4), layout="constrained")
    for axes, one in zip(panels, found, strict=True):
        for name in one["difference"]:
            mine = [row for row in one["rows"] if row["form"] == name]
            axes.plot([r["rows"] for r in mine], [r["rows_per_s"] for r in mine], ".-", label=name)
        axes.set(xscale="log", yscale="log", xlabel="rows a call", ylabel="rows a second", title=one["model"])
        axes.legend(fontsize=7)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def device_named(asked: str) -> str:
    """What to call the device in the result. Raises ValueError where torch cannot use it."""
    if not asked.startswith("cuda"):
        return asked
    if not torch.cuda.is_available():
        built = torch.version.cuda or "no CUDA"
        raise ValueError(
            f"torch {torch.__version__} (built for {built}) sees no GPU; --device is cuda or cpu. This needs a machine "
            "with an NVIDIA GPU and its driver; nvidia-smi says what is there"
        )
    return str(torch.cuda.get_device_name(asked))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda (default), or cpu to see that the bench itself works")
    parser.add_argument("--users", type=int, default=1_000_000, help="rows of the shoppers' table")
    parser.add_argument("--items", type=int, default=100_000, help="rows of the items' table")
    parser.add_argument("--rows", default=",".join(map(str, ROWS)), help="rows a call, comma separated")
    parser.add_argument("--rounds", type=int, default=300, help="calls per form and number of rows")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--save", type=Path, help=f"where to write the result, e.g. {OUT.relative_to(ROOT)}")
    asked = parser.parse_args(arguments)
    console, sizes = Console(stderr=True), [int(part) for part in asked.rows.split(",")]
    try:
        name = device_named(asked.device)
    except ValueError as error:
        console.print(f"[red]{error}[/red]", highlight=False)
        return 2
    most = 2 * max(sizes)
    found: list[dict[str, Any]] = []
    samples: dict[str, NDArray[np.float32]] = {}
    for task in (tower(asked.users, asked.items, most, asked.seed), ranker(most, asked.seed)):
        one, raw = measured(task, asked.device, sizes, asked.rounds, console)
        found.append(one)
        samples |= raw
    show(found, console)
    if asked.save:
        result = {"command": "make bench-gpu", "device": name, "seed": asked.seed, "rounds": asked.rounds,
                  "users": asked.users, "items": asked.items, "torch": torch.__version__, "models": found,
                  **provenance.stamp()}  # fmt: skip
        keep(result, samples, asked.save)
        picture(found, asked.save.with_suffix(".png"), f"{name}: host to host, copies included")
    return 0


if __name__ == "__main__":
    sys.exit(main())
