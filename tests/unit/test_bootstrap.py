"""The bootstrap decides rightly what to install, honours pip's settings, and says in one line what is wrong."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from settings import ROOT

SCRIPT = ROOT / "deploy" / "native" / "bootstrap.py"


@pytest.fixture
def bootstrap(tmp_path: Path) -> ModuleType:
    """The script as a module that works in a folder of its own."""
    spec = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ROOT, module.VENVS = tmp_path, tmp_path / ".venv"
    (tmp_path / "requirements").mkdir()
    for files in module.LOCKS.values():
        for name in files:
            (tmp_path / "requirements" / name).write_text("a==1 \\\n    --hash=sha256:00\n")
    return module


def made(bootstrap: ModuleType, name: str) -> None:
    (bootstrap.VENVS / name).mkdir(parents=True)
    (bootstrap.VENVS / name / "stamp").write_text(bootstrap.stamp_of(name, sys.executable))


def test_an_environment_is_made_again_when_its_lock_changes(bootstrap: ModuleType) -> None:
    assert not bootstrap.is_made("platform", sys.executable)
    made(bootstrap, "platform")
    assert bootstrap.is_made("platform", sys.executable)
    (bootstrap.ROOT / "requirements" / "platform.txt").write_text("a==2 \\\n    --hash=sha256:01\n")
    assert not bootstrap.is_made("platform", sys.executable)


def test_another_index_for_torch_remakes_only_the_sets_with_torch(bootstrap: ModuleType, monkeypatch) -> None:
    monkeypatch.delenv("TORCH_INDEX", raising=False)
    for name in ("platform", "training"):
        made(bootstrap, name)
    monkeypatch.setenv("TORCH_INDEX", "https://index.example/cpu")
    assert bootstrap.is_made("platform", sys.executable)
    assert not bootstrap.is_made("training", sys.executable)


def test_without_cuda_keeps_the_rest_and_its_hashes(bootstrap: ModuleType) -> None:
    bootstrap.VENVS.mkdir()
    lock = bootstrap.ROOT / "requirements" / "training.txt"
    lock.write_text(
        "numpy==2.4 \\\n    --hash=sha256:01\nnvidia-cublas==13.1 ; sys_platform == 'linux' \\\n    --hash=sha256:02\n"
        "torch==2.9.0 \\\n    --hash=sha256:03\ntriton==3.5 \\\n    --hash=sha256:04\n"
        "typer==0.2 \\\n    --hash=sha256:05\n"
    )
    files, torch = bootstrap.without_cuda(lock)
    text = files[0].read_text()
    assert torch == "torch==2.9.0"
    assert [line.split("==")[0] for line in text.splitlines() if "==" in line] == ["numpy", "typer"]
    assert "sha256:05" in text
    assert "sha256:03" not in text


def test_pips_settings_become_uvs_and_the_users_own_win(bootstrap: ModuleType, monkeypatch) -> None:
    listed = (
        "global.index-url='https://index.example/simple'\n:env:.cert='/etc/ca.pem'\n"
        ":env:.find-links='/wheels'\nglobal.timeout='60'\n"
    )
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, listed, ""))
    for name in ("SSL_CERT_FILE", "UV_DEFAULT_INDEX", "UV_HTTP_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_FIND_LINKS", "/mine")
    environment = bootstrap.uv_environment()
    assert environment["UV_DEFAULT_INDEX"] == "https://index.example/simple"
    assert environment["SSL_CERT_FILE"] == "/etc/ca.pem"
    assert environment["UV_FIND_LINKS"] == "/mine"
    assert environment["UV_HTTP_TIMEOUT"] == "60"


def test_the_systems_certificates_are_used_where_none_are_named(bootstrap: ModuleType, monkeypatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, "", ""))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert bootstrap.uv_environment()["UV_SYSTEM_CERTS"] == "true"


def test_an_unsuitable_python_is_named_with_the_fix(bootstrap: ModuleType, monkeypatch, capsys) -> None:
    monkeypatch.setattr(bootstrap, "WANTED", ((2, 0),))
    assert bootstrap.main(["platform"]) == 2
    error = capsys.readouterr().err
    assert "Python 3.11 or 3.12 is needed" in error
    assert "PYTHON=" in error


def test_a_full_disk_is_said_before_the_download(bootstrap: ModuleType, monkeypatch) -> None:
    monkeypatch.setitem(bootstrap.GIB, "training", 1e9)
    with pytest.raises(bootstrap.Stop, match=r"are needed for training.*TORCH_INDEX"):
        bootstrap.check_disk(["training"])


def test_an_unknown_set_is_refused_with_the_known_ones(bootstrap: ModuleType, capsys) -> None:
    assert bootstrap.main(["everything"]) == 2
    assert "platform, training, triton, clickhouse, dev; got everything" in capsys.readouterr().err


def test_a_failing_command_shows_what_it_said(bootstrap: ModuleType) -> None:
    with pytest.raises(bootstrap.Stop, match=r"(?s)probe failed \(3\).*no such wheel"):
        bootstrap.run("probe", [sys.executable, "-c", "print('no such wheel'); raise SystemExit(3)"])


def test_it_needs_nothing_but_the_standard_library() -> None:
    done = subprocess.run([sys.executable, "-I", "-S", str(SCRIPT), "nothing"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "give one or more of" in done.stderr
