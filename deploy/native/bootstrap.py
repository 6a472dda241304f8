"""Makes the Python environments under .venv from the hash-locked sets in requirements/. Standard library only.

    python3 deploy/native/bootstrap.py platform training triton clickhouse     what `make demo` needs
    python3 deploy/native/bootstrap.py dev                                     what `make test` needs
    python3 deploy/native/bootstrap.py --doctor                                says what is missing, changes nothing

Each set is made once and again when its lock file or the Python changes. An interrupted run goes on where it stopped.
The machine's own pip settings (index, certificates, proxy) are honoured: uv, which does the work, is told what pip
would do. TORCH_INDEX=<address> takes torch from an index of your choice, e.g. one with CPU-only wheels.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENVS = ROOT / ".venv"
LOCKS = {
    "platform": ["platform.txt"],
    "training": ["training.txt"],
    "triton": ["triton.txt", "triton-server.txt"],
    "clickhouse": ["clickhouse.txt"],
    "dev": ["dev.txt"],
}
GIB = {"platform": 1.0, "training": 6.0, "triton": 1.0, "clickhouse": 0.8, "dev": 6.5}
# Sets that the platform goes on without where their wheel does not exist: (systems, machines, what takes their place)
MACHINES = ("x86_64", "aarch64", "arm64")
OPTIONAL = {
    "triton": (("linux",), MACHINES, "models run in the recommender"),
    "clickhouse": (("linux", "darwin"), MACHINES, "decisions stay in Kafka and the lake"),
}
WANTED = ((3, 11), (3, 12))
CUDA = ("torch==", "nvidia-", "triton==", "cuda-")
# pip's settings and the variables by which uv knows them
PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}


class Stop(Exception):
    """The one line that tells the user what is wrong and how to go on."""


def main(arguments):
    begun = time.monotonic()
    try:
        python = suitable_python()
        if arguments == ["--doctor"]:
            return doctor(python)
        unknown = [name for name in arguments if name not in LOCKS]
        if unknown or not arguments:
            raise Stop("give one or more of: {}; got {}".format(", ".join(LOCKS), " ".join(unknown) or "nothing"))
        missing = [name for name in arguments if not is_made(name, python)]
        if missing:
            prepare(missing, python)
            say("environments ready", begun)
    except Stop as reason:
        print(f"bootstrap: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbootstrap: interrupted; run it again to go on from here", file=sys.stderr)
        return 130
    return 0


def prepare(names, python):
    check_disk(names)
    uv = install_uv(python)
    environment = uv_environment()
    for name in names:
        if not possible(name):
            print(f"{name}: there is no wheel of it for this machine; going on without it, {OPTIONAL[name][2]}")
            continue
        try:
            make(name, python, uv, environment)
        except Stop:
            if name not in OPTIONAL:
                raise
            print(f"{name}: could not be installed here; going on without it, {OPTIONAL[name][2]}")


# Python


def suitable_python():
    """The path of a Python 3.11 or 3.12: the running one, else one on PATH."""
    if sys.version_info[:2] in WANTED:
        return sys.executable
    for name in ("python3.12", "python3.11"):
        path = shutil.which(name)
        if path and version_of(path) in WANTED:
            return path
    raise Stop(
        f"Python 3.11 or 3.12 is needed, {sys.executable} is {platform.python_version()} and neither python3.12 nor "
        "python3.11 is on PATH. Install one "
        "(Debian 12: apt install python3 python3-venv; macOS: brew install python@3.12) or name one: "
        "make demo PYTHON=/path/to/python3.12"
    )


def version_of(python):
    """(major, minor) of an interpreter, or None when it does not run (a pyenv shim without a version behind it)."""
    done = subprocess.run([python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True)
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else None


def possible(name):
    """Whether the set can exist on this machine."""
    systems, machines, _ = OPTIONAL.get(name, ((sys.platform,), (platform.machine(),), ""))
    return sys.platform in systems and platform.machine() in machines


def check_disk(names):
    needed = sum(GIB[name] for name in names)
    free = shutil.disk_usage(str(ROOT)).free / 2**30
    if free < needed:
        raise Stop(
            "{:.1f} GiB are free in {}, about {:.0f} GiB are needed for {}: free some, or (torch is most of it) set "
            "TORCH_INDEX to an index with CPU-only wheels".format(free, ROOT, needed, ", ".join(names))
        )


# Environments


def is_made(name, python):
    stamp = VENVS / name / "stamp"
    if not possible(name):
        return True
    return stamp.exists() and stamp.read_text() == stamp_of(name, python)


def stamp_of(name, python):
    """Of everything that the environment is made from: its locks, the interpreter and where torch came from."""
    digest = hashlib.sha256()
    for lock in LOCKS[name]:
        digest.update((ROOT / "requirements" / lock).read_bytes())
    version = ".".join(map(str, version_of(python) or ()))
    torch = os.environ.get("TORCH_INDEX", "") if name in ("training", "dev") else ""
    return f"{digest.hexdigest()} {version} {torch}\n".replace("  ", " ")


def install_uv(python):
    """uv itself, hash-locked, in a folder of its own; pip and the machine's settings for it fetch it."""
    lock = ROOT / "requirements" / "bootstrap.txt"
    home, stamp = VENVS / "uv", VENVS / "uv" / "stamp"
    uv = home / "bin" / "uv"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if uv.exists() and stamp.exists() and stamp.read_text() == wanted:
        return uv
    if subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True).returncode:
        raise Stop("this Python has no venv module; install it (Debian: apt install python3-venv) and try again")
    run("uv: environment", [python, "-m", "venv", "--clear", str(home)])
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
    run("uv: installing", [*pip, "--require-hashes", "-r", str(lock)])
    stamp.write_text(wanted)
    return uv


def make(name, python, uv, environment):
    folder, stamp = VENVS / name, VENVS / name / "stamp"
    if stamp.exists():
        stamp.unlink()
    inside = folder / "bin" / "python"
    if not inside.exists() or version_of(str(inside)) != version_of(python):
        create = [str(uv), "venv", "--quiet", "--clear", "--python", python, str(folder)]
        run(f"{name}: environment", create, environment)
    target = ["--python", str(inside)]
    locks = [ROOT / "requirements" / lock for lock in LOCKS[name]]
    index = os.environ.get("TORCH_INDEX") if name in ("training", "dev") else None
    torch = None
    if index:
        locks, torch = without_cuda(locks[0])
    files = [str(lock) for lock in locks]
    count = sum(lock.read_text().count("==") for lock in locks)
    sync = [str(uv), "pip", "sync", "--quiet", "--require-hashes", *target, *files]
    run(f"{name}: installing {count} packages", sync, environment)
    if torch:
        fetch = [str(uv), "pip", "install", "--quiet", "--no-deps", "--default-index", index, *target, torch]
        run(f"{name}: {torch} from TORCH_INDEX", fetch, environment)
    stamp.write_text(stamp_of(name, python))


def without_cuda(lock):
    """A lock without torch and what only its CUDA build needs, and the pin of torch."""
    kept, torch, skip = [], None, False
    for line in lock.read_text().splitlines():
        if not line.startswith((" ", "#")):
            skip = line.startswith(CUDA)
            if line.startswith("torch=="):
                torch = line.split()[0]
        if not skip:
            kept.append(line)
    path = VENVS / (lock.stem + "-without-cuda.txt")
    path.write_text("\n".join(kept) + "\n")
    return [path], torch


def uv_environment():
    """The environment for uv, with pip's settings translated where the user did not set uv's own."""
    environment = dict(os.environ, UV_PYTHON_DOWNLOADS="never", UV_NO_PROGRESS="1")
    pip = [str(VENVS / "uv" / "bin" / "python"), "-m", "pip", "config", "list"]
    listed = subprocess.run(pip, capture_output=True, text=True).stdout
    settings = {}
    for line in listed.splitlines():  # global.index-url='https://...', and from PIP_*: :env:.cert='...'
        key, _, value = line.partition("=")
        settings[key.rpartition(".")[2]] = value.strip("'\"")
    for key, variable in PIP_TO_UV.items():
        if settings.get(key) and not environment.get(variable):
            environment[variable] = settings[key]
    if settings.get("extra-index-url"):
        environment.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")  # as pip does; the hashes still decide
    if not environment.get("SSL_CERT_FILE"):
        environment.setdefault("UV_SYSTEM_CERTS", "true")
    return environment


# Doctor


def doctor(python):
    """What is needed before the first `make demo`; `python -m pipelines.stack doctor` says the rest."""
    print("python          {} ({}.{})".format(python, *version_of(python)))
    print(f"make            {shutil.which('make') or 'missing: apt install make (macOS: xcode-select --install)'}")
    print(f"disk            {shutil.disk_usage(str(ROOT)).free / 2**30:.1f} GiB free in {ROOT}")
    for name in LOCKS:
        verb = "make test" if name == "dev" else "make demo"
        state = "ready" if is_made(name, python) else f"missing or outdated: {verb} makes it"
        print("{:15} {}".format(".venv/" + name, state))
    return 0


# Running with progress


def run(what, command, environment=None, folder=ROOT):
    """Run a command quietly with the elapsed time on the screen; on failure print what it said and stop."""
    begun = time.monotonic()
    done = threading.Event()
    clock = threading.Thread(target=tick, args=(what, begun, done), daemon=True)
    clock.start()
    process = subprocess.Popen(
        command, env=environment, cwd=str(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = process.communicate()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        done.set()
        clock.join()
    if process.returncode:
        raise Stop(f"{what} failed ({process.returncode}):\n{output.strip()[-2000:]}")
    say(what, begun)


def tick(what, begun, done):
    """Five times a second on a terminal, every ten seconds in a log."""
    live = sys.stdout.isatty()
    while not done.wait(0.2 if live else 10):
        text = f"{what} {time.monotonic() - begun:.0f} s"
        print("\r" + text if live else text, end="" if live else "\n", flush=True)


def say(what, begun):
    print(f"{chr(13) if sys.stdout.isatty() else ''}{what}: {time.monotonic() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
