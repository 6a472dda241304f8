"""Compiles requirements/*.in into hash-locked files that hold for Python 3.11 and 3.12 on every system.

No index address is written into them. `dev` is resolved first; the other sets are subsets of it, pinned to the same
versions, so that a test runs what production runs (but for MLflow's server, whose S3 client cannot live with the newest
plotting library). Existing pins are kept; give --upgrade to move them.
"""

import sys

from bootstrap import ROOT, install_uv, run, suitable_python, uv_environment

FLAGS = ["--quiet", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate", "--no-header"]
SETS = {
    "dev": [],
    "training": ["-c", "dev.txt"],
    "platform": ["-c", "dev.txt"],
    "serving": ["-c", "dev.txt"],
    "triton": ["-c", "dev.txt"],
    "triton-server": ["--no-deps"],
    "clickhouse": ["--no-deps"],
    "mlflow": [],
    "bootstrap": [],
}


def main(arguments):
    uv = install_uv(suitable_python())
    environment = uv_environment()
    for name, flags in SETS.items():
        compile_set = [str(uv), "pip", "compile", f"{name}.in", "-o", f"{name}.txt"]
        run(f"{name}.txt", [*compile_set, *FLAGS, *flags, *arguments], environment, ROOT / "requirements")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
