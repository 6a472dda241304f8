"""The bench of networks on a device, asked of the CPU: every form answers alike, and what is absent is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import gpu, numbers


def test_every_form_is_timed_and_gives_the_same_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    sizes = ["--users", "50", "--items", "40", "--rows", "1,16", "--rounds", "3"]
    assert gpu.main(["--device", "cpu", *sizes, "--save", str(out)]) == 0
    result = json.loads(out.read_text())
    for model in result["models"]:
        assert list(model["difference"]) == [gpu.CPU, "torch cpu fp32", "torch cpu fp16"]
        measured = {(row["rows"], row["form"]) for row in model["rows"]}
        assert measured == {(n, form) for n in (1, 16) for form in model["difference"]}
        assert model["difference"]["torch cpu fp32"] < 1e-4
        assert 0 < model["difference"]["torch cpu fp16"] < 0.05, "half precision was asked for, and is not far off"
        assert set(model["absent"]) == set(gpu.PROVIDERS), "the CPU's build has neither CUDA nor TensorRT"
    with np.load(out.with_suffix(".samples.npz"), allow_pickle=False) as samples:
        assert len(samples) == 12
        assert all(len(samples[name]) == 3 for name in samples)
    assert out.with_suffix(".png").stat().st_size > 10_000
    assert "TensorRT fp16" in capsys.readouterr().err
    assert numbers.gpu(result).count("| torch cpu fp16 |") == 2


def test_a_machine_without_a_gpu_is_told_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "sees no GPU; --device is cuda or cpu" in capsys.readouterr().err.replace("\n", " ")
