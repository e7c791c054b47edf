"""A load of handshakes from many peers at once, to see how many a second an interface answers.

    python -m tunnel.bench.handshake_load SERVER_PUBLIC_KEY ADDRESS PORT PEERS

Every peer is an `Interface` of its own with `private_key(number)`, which the server has to know.
All initiations are made before the clock starts and all responses are verified after it stopped,
so that the time is the server's. Prints one JSON object: `answered` and `seconds`.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import socket
import sys
import time
from typing import TypeAlias

from tunnel.config import PrivateKey, PublicKey
from tunnel.datapath import Session, load
from tunnel.io.endpoint import Endpoint
from tunnel.protocol import Datagram, HandshakeCompleted, Interface

Client: TypeAlias = Interface[Endpoint, Session]

WINDOW = 32
"""Handshakes under way: enough to keep the server busy, too few to look like an attack to it."""
PATIENCE = 0.5
"""Seconds without any answer after which what is under way counts as lost."""


def private_key(number: int) -> PrivateKey:
    """The key of peer `number`: known to everybody, of use for measurements only."""
    return PrivateKey.from_random(hashlib.blake2s(b"tunnel bench peer %d" % number).digest())


def begin(number: int, server: PublicKey, endpoint: Endpoint) -> tuple[Client, bytes]:
    """Peer `number` with its initiation to `server`."""
    client: Client = Interface(
        random=os.urandom, unix_time_ns=time.time_ns, make_transport=load().session
    )
    client.set_private_key(private_key(number), time.monotonic())
    peer = client.add_peer(server)
    peer.set_endpoint(endpoint)
    peer.stage(b"", time.monotonic())
    while (output := client.poll_output()) is not None:
        if isinstance(output, Datagram):
            return client, output.data
    raise AssertionError("a staged packet brings on a handshake")


def is_completed(client: Client, response: bytes, endpoint: Endpoint) -> bool:
    """Whether `response` is what the server alone can have answered."""
    client.handle_message_untrusted(response, endpoint, time.monotonic())
    while (output := client.poll_output()) is not None:
        if isinstance(output, HandshakeCompleted):
            return True
    return False


def exchange(initiations: list[bytes], endpoint: Endpoint) -> tuple[list[bytes], float]:
    """Send them all, `WINDOW` at a time; the answers, and the seconds until the last of them."""
    answers: list[bytes] = []
    with socket.socket(endpoint.family, socket.SOCK_DGRAM) as sock:
        sock.connect(endpoint.sockaddr)
        sock.setblocking(False)
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        began = last = time.perf_counter()
        sent = given_up = 0
        while len(answers) + given_up < len(initiations):
            while sent < len(initiations) and sent - given_up - len(answers) < WINDOW:
                sock.send(initiations[sent])
                sent += 1
            if not poller.poll(PATIENCE * 1000):
                given_up = sent - len(answers)
                continue
            answers.append(sock.recv(2048))
            last = time.perf_counter()
    return answers, last - began


def measure(server: PublicKey, endpoint: Endpoint, peers: int) -> dict[str, float]:
    """Let `peers` peers shake hands once each."""
    # By their index each finds its way back to the one that asked.
    clients: dict[bytes, Client] = {}
    initiations = []
    for number in range(peers):
        client, initiation = begin(number, server, endpoint)
        clients[initiation[4:8]] = client
        initiations.append(initiation)
    answers, seconds = exchange(initiations, endpoint)
    answered = 0
    for answer in answers:
        asking = clients.pop(answer[8:12], None)
        if asking is not None and is_completed(asking, answer, endpoint):
            answered += 1
    return {"answered": answered, "seconds": seconds}


def main() -> None:
    """Measure what the command line says."""
    key, address, port, peers = sys.argv[1:]
    endpoint = Endpoint.from_sockaddr((address, int(port)))
    result = measure(PublicKey.from_base64(key), endpoint, int(peers))
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
