"""Cut from an environment what no program of ours loads: `slim.py FOLDER [serving]`. Standard library only.

Tests, headers, static libraries and type stubs of packages, symbols that only a debugger reads, and the parts of Arrow
that speak to clouds and engines we do not use. `serving` cuts scipy down to the sparse matrices that LightGBM imports.
`warm.py` runs afterwards and fails where it was too much.
"""

import shutil
import subprocess
import sys
from pathlib import Path

FOLDERS = ("tests", "test", "include")
PACKAGES = {
    "pyarrow": ("libarrow_flight*", "_flight*", "_gandiva*", "libgandiva*", "src"),
    "onnxruntime": ("tools", "transformers", "quantization", "datasets"),
    "pytriton": ("tritonserver/backends/[!p]*",),
    "mlflow": ("server/js/build/**/*.map",),
}
ENDINGS = (".pyi", ".a", ".pxd", ".pyx", ".h", ".hpp", ".js.map")
SERVING = {
    "scipy": ("stats", "signal", "optimize", "special", "interpolate", "integrate", "io", "ndimage", "spatial", "fft",
              "fftpack", "cluster", "datasets", "differentiate", "odr", "misc", "constants",
              "linalg", "sparse/linalg", "sparse/csgraph"),
    "scipy.libs": ("*",),
    "numpy": ("[!_]*/tests", "tests"),
}  # fmt: skip
DEBUG_SYMBOLS = ("pyarrow/*.so*", "uvloop/*.so", "rapidjson*.so", "ml_dtypes/*.so")
KEPT = ("numpy", "pandas", "scipy", "sklearn", "torch", "onnx", "evidently")  # import their own tests or headers


def main(folder, role=""):
    for site in Path(folder).glob("lib/python*/site-packages"):
        before = size(site)
        for package, patterns in {**PACKAGES, **(SERVING if role == "serving" else {})}.items():
            for pattern in patterns:
                for path in list((site / package).glob(pattern)):
                    remove(path)
        for package in site.iterdir():
            if package.is_dir() and package.name not in KEPT:
                for name in FOLDERS:
                    remove(package / name)
        for ending in ENDINGS:
            for path in list(site.rglob(f"*{ending}")):
                remove(path)
        if shutil.which("strip"):
            libraries = [path for pattern in DEBUG_SYMBOLS for path in site.glob(pattern)]
            subprocess.run(["strip", "--strip-unneeded", *map(str, libraries)], check=True)
        print(f"{site}: {before >> 20} MiB, now {size(site) >> 20} MiB")
    return 0


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
