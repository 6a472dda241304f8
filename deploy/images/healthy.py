"""Exit 0 when this container's HTTP port says that it is ready: `healthy.py [port [path]]`.

Without a port: the one that the container listens on. Standard library only, and little of it: this runs every few
seconds in every container.
"""

import socket
import sys
from pathlib import Path


def main(port=0, path="/readyz"):
    try:
        with socket.create_connection(("127.0.0.1", int(port) or listening()), timeout=2.5) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            answer = b""
            while len(answer) < 2000 and (more := connection.recv(2000)):
                answer += more
    except OSError as error:
        return f"port {port or 'none'}: {error}"
    head, _, body = answer.partition(b"\r\n\r\n")
    return 0 if b" 200 " in head[:20] else (body or head).decode(errors="replace")[:400]


def listening():
    """The lowest port that is listened on beyond loopback (Docker's own name server listens on loopback)."""
    ports = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        address, port = local.split(":")
        if state == "0A" and not address.endswith("7F"):
            ports.append(int(port, 16))
    if not ports:
        raise OSError("nothing listens yet")
    return min(ports)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
