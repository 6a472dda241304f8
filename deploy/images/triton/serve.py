"""Start Triton on the model repository /data/triton, with explicit model control; become the server by exec.

Where a container named `triton-gpu` runs (profile gpu), that one serves instead: this one hands its three ports on to
it, so that nobody who asks for models needs to be told.
"""

import asyncio
import os
import signal
import socket
import sys
import sysconfig
from pathlib import Path

MODELS, BACKENDS = Path("/data/triton"), Path("/app/backends")
GPU, PORTS = "triton-gpu", (8000, 8001, 8002)


def main():
    if resolves(GPU):
        print(f"{GPU} is there: ports {', '.join(map(str, PORTS))} are handed on to it", flush=True)
        return asyncio.run(hand_on())
    site = Path(sysconfig.get_path("purelib"))
    options = {
        "model-repository": MODELS, "model-control-mode": "explicit", "load-model": "*", "backend-directory": BACKENDS,
        "http-port": PORTS[0], "grpc-port": PORTS[1], "metrics-port": PORTS[2], "allow-gpu-metrics": "false",
        "exit-on-error": "false", "exit-timeout-secs": 5, "log-verbose": 0,
    }
    libraries = (site / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR"))
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries)), "PYTHONPATH": str(site)}
    server = str(site / "pytriton" / "tritonserver" / "bin" / "tritonserver")
    os.execve(server, [server, *(f"--{key}={value}" for key, value in options.items())], environment)


def resolves(name):
    try:
        return bool(socket.getaddrinfo(name, None))
    except OSError:
        return False


async def hand_on():
    """Until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    for port in PORTS:
        await asyncio.start_server(lambda reader, writer, port=port: connect(reader, writer, port), "0.0.0.0", port)
    await stop.wait()


async def connect(reader, writer, port):
    try:
        there, back = await asyncio.open_connection(GPU, port)
    except OSError:
        return writer.close()
    await asyncio.gather(copy(reader, back), copy(there, writer))


async def copy(source, sink):
    try:
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass
    finally:
        sink.close()


if __name__ == "__main__":
    sys.exit(main())
