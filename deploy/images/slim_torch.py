"""Training on CPUs does not need most of what torch's wheel brings for GPUs. Standard library only.

    slim_torch.py locks LOCK INDEX   writes locked.txt and torch.txt beside LOCK: with an index, torch comes from there
    slim_torch.py cut FOLDER         removes from an environment the GPU libraries that torch does not load on import

torch's libraries name the ones they are linked with; what none of them reaches is loaded on a GPU only, or never.
"""

import shutil
import subprocess
import sys
from pathlib import Path

GPU_ONLY = ("torch==", "nvidia-", "triton==", "cuda-")


def locks(lock, index=""):
    kept, torch, skip = [], "", False
    for line in Path(lock).read_text().splitlines():
        if index and not line.startswith((" ", "#")):
            skip = line.startswith(GPU_ONLY)
            if line.startswith("torch=="):
                torch = line.split()[0]
        if not skip:
            kept.append(line)
    Path(lock).with_name("locked.txt").write_text("\n".join(kept) + "\n")
    Path(lock).with_name("torch.txt").write_text(f"{torch}\n" if torch else "")


def cut(folder):
    for site in Path(folder).resolve().glob("lib/python*/site-packages"):
        for name in ("triton", "nvidia/nvshmem/bin", "torch/include", "torch/test", "torch/share"):
            shutil.rmtree(site / name, ignore_errors=True)  # triton compiles kernels for GPUs
        for path in (site / "torch" / "lib").glob("*.a"):
            path.unlink()
        if (site / "nvidia").is_dir():
            loaded = linked(sorted((site / "torch" / "lib").glob("*.so*")))
            for path in (site / "nvidia").rglob("*"):
                if path.is_file() and path.resolve() not in loaded and path.suffix != ".py":
                    path.unlink()


def linked(libraries):
    """Every file that the dynamic linker would load for these."""
    listed = subprocess.run(["ldd", *map(str, libraries)], capture_output=True, text=True).stdout
    paths = [line.split("=>")[1].split("(")[0].strip() for line in listed.splitlines() if "=>" in line]
    return {Path(path).resolve() for path in paths if path.startswith("/")}


if __name__ == "__main__":
    {"locks": locks, "cut": cut}[sys.argv[1]](*sys.argv[2:])
