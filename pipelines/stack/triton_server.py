"""Triton from the `nvidia-pytriton` wheel, on our own model repository with explicit model control.

The wheel carries the server and the Python backend. `deploy/triton-backend` adds a backend named `onnxruntime` written
for the latter, so that the same `config.pbtxt` serves here and in NVIDIA's image through the C++ backend.
"""

from __future__ import annotations

import functools
import json
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

from pipelines.stack.launch import VENVS, CannotRun, Launch
from settings import ROOT

BACKEND = ROOT / "deploy" / "triton-backend" / "onnxruntime"
_ASK = (
    "import json, sysconfig as s; v = s.get_config_vars();"
    "print(json.dumps([v.get('LIBDIR') or '', s.get_python_version(), s.get_path('purelib')]))"
)


@dataclass(frozen=True)
class Wheel:
    """Where the wheel's pieces lie. `libraries` is the search path that server and stub need."""

    server: Path
    python_backend: Path
    stub: Path
    site: Path
    libraries: tuple[Path, ...]


@functools.cache
def wheel() -> Wheel:
    """Find the server. Raises CannotRun, with the reason and the fix, where it cannot work."""
    if sys.platform != "linux":
        raise CannotRun(f"Triton's wheel is for Linux, this is {platform.system()}; models run in the recommender")
    python = VENVS / "triton" / "bin" / "python"
    if not python.exists():
        raise CannotRun(".venv/triton is missing; make demo installs it where its wheel exists")
    answer = subprocess.run([str(python), "-c", _ASK], capture_output=True, text=True, timeout=30, check=True).stdout
    libdir, version, purelib = json.loads(answer)
    site = Path(purelib)
    home = site / "pytriton" / "tritonserver"
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not (home / "bin" / "tritonserver").exists() or not stub.exists():
        raise CannotRun(
            f"Triton's wheel has nothing for Python {version} on {platform.machine()}; models run in the recommender"
        )
    if not (Path(libdir) / f"libpython{version}.so.1.0").exists():
        raise CannotRun(
            f"this Python has no libpython{version}.so.1.0 in {libdir}, which Triton's Python backend needs: use the "
            "system's Python (Debian: apt install libpython3-dev) or one built with --enable-shared"
        )
    libraries = (site / "nvidia_pytriton.libs", Path(libdir))
    return Wheel(home / "bin" / "tritonserver", home / "backends" / "python", stub, site, libraries)


def launch(folder: Path, *, models: Path, host: str, http_port: int, grpc_port: int, metrics_port: int) -> Launch:
    """Lay out the backends under `folder` and say how to start the server on the repository `models`.

    The models that lie there are loaded at the start; afterwards only an explicit load or unload changes them.
    """
    parts = wheel()
    backends = folder / "backends"
    shutil.rmtree(backends, ignore_errors=True)
    shutil.copytree(parts.python_backend, backends / "python")
    shutil.copy2(parts.stub, backends / "python" / parts.stub.name)
    shutil.copytree(BACKEND, backends / "onnxruntime", ignore=shutil.ignore_patterns("__pycache__"))
    models.mkdir(parents=True, exist_ok=True)
    options = {
        "model-repository": models, "model-control-mode": "explicit", "load-model": "*", "backend-directory": backends,
        "http-address": host, "http-port": http_port, "grpc-address": host, "grpc-port": grpc_port,
        "metrics-address": host, "metrics-port": metrics_port, "allow-gpu-metrics": "false",
        "exit-on-error": "false", "exit-timeout-secs": 5, "log-verbose": 0,
    }
    environment = {
        "LD_LIBRARY_PATH": ":".join(map(str, parts.libraries)), "PYTHONPATH": str(parts.site),
        "PATH": f"{VENVS / 'triton' / 'bin'}:/usr/local/bin:/usr/bin:/bin", "OMP_NUM_THREADS": "1",
    }
    return Launch((str(parts.server), *(f"--{key}={value}" for key, value in options.items())), environment)


def ready(host: str, http_port: int) -> bool:
    """Whether the server takes requests; which models it has is a question to the model repository."""
    try:
        return httpx.get(f"http://{host}:{http_port}/v2/health/live", timeout=1.0).status_code == 200
    except httpx.HTTPError:
        return False
