"""Peers that want their first session, one after another, as a program in a host of a lab.

    newcomer_program.py PUBLIC_KEY ADDRESS PORT FIRST COUNT SECONDS

Each is the protocol itself with all its timers: it asks again after 5 s, with the cookie that it
was given. Prints a JSON list of the seconds that each took, null for one that had none in SECONDS.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

from tunnel.bench.handshake_load import Client, begin
from tunnel.config import PublicKey
from tunnel.io.endpoint import Endpoint
from tunnel.protocol import Datagram, HandshakeCompleted


def shake(number: int, server: PublicKey, endpoint: Endpoint, patience: float) -> float | None:
    """The seconds until peer `number` has a session; None if it had none in time."""
    with socket.socket(endpoint.family, socket.SOCK_DGRAM) as sock:
        sock.connect(endpoint.sockaddr)
        client, initiation = begin(number, server, endpoint)
        began = time.monotonic()
        sock.send(initiation)
        while (now := time.monotonic()) < began + patience:
            deadline = client.next_deadline()
            until = began + patience if deadline is None else min(deadline, began + patience)
            if select.select([sock], [], [], max(0.0, until - now))[0]:
                client.handle_message_untrusted(sock.recv(2048), endpoint, time.monotonic())
            else:
                client.handle_deadline(time.monotonic())
            if completed(client, sock):
                return time.monotonic() - began
    return None


def completed(client: Client, sock: socket.socket) -> bool:
    """Send what is to be sent; whether there is a session."""
    while (output := client.poll_output()) is not None:
        if isinstance(output, Datagram):
            sock.send(output.data)
        elif isinstance(output, HandshakeCompleted):
            return True
    return False


def main() -> None:
    """Let each of them ask."""
    key, address, port, first, count, patience = sys.argv[1:]
    endpoint = Endpoint.from_sockaddr((address, int(port)))
    server, start = PublicKey.from_base64(key), int(first)
    numbers = range(start, start + int(count))
    print(json.dumps([shake(each, server, endpoint, float(patience)) for each in numbers]))


if __name__ == "__main__":
    main()
