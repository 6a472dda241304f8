"""Lay out Triton's backend folder from the wheel and our backend: `layout.py OUR_BACKENDS TARGET`.

Runs in the environment that holds the wheel; `serve.py` starts the server on what this leaves.
"""

import shutil
import sys
import sysconfig
from pathlib import Path


def main(ours, target):
    home = Path(sysconfig.get_path("purelib")) / "pytriton" / "tritonserver"
    stubs, target = home / "python_backend_stubs", Path(target)
    stub = stubs / sysconfig.get_python_version() / "triton_python_backend_stub"
    shutil.copytree(ours, target)
    shutil.copytree(home / "backends" / "python", target / "python")
    shutil.copy2(stub, target / "python")
    for folder in (stubs, home / "backends"):
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
