"""Change, ask and disturb the tunnel wg0 of this host: python -m tests.support.churn_program …

Arguments: how often, then what, of `KINDS`. Prints a line after each round.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable

from tunnel.control.client import TunnelClient
from tunnel.control.run_folder import metrics_path

NAME = "wg0"
PEERS = 200
"""That come and go in one round."""


def peers() -> None:
    """Peers come with an endpoint, a network and a keepalive, are looked at, and go."""
    keys = [os.urandom(32).hex() for _ in range(PEERS)]
    lines = ["set=1"]
    for number, key in enumerate(keys):
        lines += [f"public_key={key}", "endpoint=192.0.2.200:9", "persistent_keepalive_interval=25"]
        lines += [f"allowed_ip=10.200.{number // 256}.{number % 256}/32"]
    wg("\n".join(lines))
    assert wg("get=1").count("public_key=") >= PEERS
    wg("\n".join(["set=1", *(f"public_key={key}\nremove=true" for key in keys)]))


def wg(request: str) -> str:
    """The answer of the socket for `wg`."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"/run/wireguard/{NAME}.sock")
        connection.sendall(request.encode() + b"\n\n")
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile().read()
    assert answer.endswith("errno=0\n\n"), answer[-100:]
    return answer


def reloads() -> None:
    """The conf has not changed."""
    with TunnelClient(NAME) as client:
        client.reload()


def requests() -> None:
    """Status, a refused request, the metrics, and a subscription that ends at once."""
    with TunnelClient(NAME) as client:
        client.status()
        client.diff()
    with TunnelClient(NAME) as client:
        client.subscribe()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(metrics_path(NAME)))
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.makefile().read().startswith("HTTP/1.1 200")


def flaps() -> None:
    """The interface goes down and up: the daemon puts routes and addresses back."""
    for state in ("down", "up"):
        subprocess.run(["ip", "link", "set", NAME, state], check=True)


KINDS: dict[str, Callable[[], None]] = {
    "peers": peers,
    "reloads": reloads,
    "requests": requests,
    "flaps": flaps,
}


def main() -> None:
    rounds, *kinds = sys.argv[1:]
    for number in range(int(rounds)):
        for kind in kinds:
            KINDS[kind]()
        print(number + 1, flush=True)


if __name__ == "__main__":
    main()
