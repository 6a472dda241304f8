"""What is wrong with the volumes or the machine is one clear line of the first job, in the real images."""

from __future__ import annotations

import subprocess

import pytest

from pipelines.stack.compose.engine import compose
from settings import ROOT
from tests.compose import composed

CHECK = "python -m pipelines.stack.volumes"
CASES = {
    "all is well": (f"MINIMART_HOME=/tmp/h {CHECK}", 0, "all right"),
    "a full disk": (f"MINIMART_DISK_NEEDED_GIB=60000 {CHECK}", 2, "docker system prune"),
    "too little memory": (f"MINIMART_MEMORY_NEEDED_GIB=4000 {CHECK}", 2, "too little memory"),
    "an old volume": (
        f"mkdir -p /tmp/h/kafka && echo 0 > /tmp/h/VERSION && MINIMART_HOME=/tmp/h {CHECK}", 2,
        "of version 0, this platform reads version 1: drop the volumes with `docker compose down -v`",
    ),
    "another marketplace": (f"MINIMART_SIM_SHOPPERS=99 {CHECK}", 2, "shoppers"),
    "a wrong setting": (f"MINIMART_SEED=-1 {CHECK}", 1, "MINIMART_SEED = '-1'"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(CASES))
def test_one_line_with_the_fix(case: str) -> None:
    if not composed.containers("balancer"):
        pytest.skip("the composed platform does not run: make test-compose starts it")
    program, code, says = CASES[case]
    done = subprocess.run(
        compose("run", "--rm", "--no-TTY", "--no-deps", "tools", "sh", "-c", program), cwd=ROOT, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert says in (done.stdout if code == 0 else done.stderr)
    assert "Traceback" not in done.stderr
