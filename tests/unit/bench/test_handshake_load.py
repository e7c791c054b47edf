"""The load of handshakes, against an interface in this process."""

from __future__ import annotations

import os
import socket
import threading
import time

from tunnel.bench.handshake_load import measure, private_key
from tunnel.bench.scale import peers_conf
from tunnel.datapath import Session, load
from tunnel.io.endpoint import Endpoint
from tunnel.protocol import Datagram, Interface

PEERS = 40
SERVER_KEY = private_key(10_000)


def serve(sock: socket.socket, known: int) -> None:
    """Answer peers 0 to `known` - 1 until the socket has been silent for a second."""
    interface: Interface[Endpoint, Session] = Interface(
        random=os.urandom, unix_time_ns=time.time_ns, make_transport=load("python").session
    )
    interface.set_private_key(SERVER_KEY, time.monotonic())
    for number in range(known):
        interface.add_peer(private_key(number).public_key())
    sock.settimeout(1)
    while True:
        try:
            data, address = sock.recvfrom(2048)
        except TimeoutError:
            return
        endpoint = Endpoint.from_sockaddr(address)
        interface.handle_message_untrusted(data, endpoint, time.monotonic())
        while (output := interface.poll_output()) is not None:
            if isinstance(output, Datagram):
                sock.sendto(output.data, endpoint.sockaddr)


def test_counts_those_that_were_answered_and_gives_the_others_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=serve, args=(sock, PEERS - 5))
        thread.start()
        try:
            endpoint = Endpoint.from_sockaddr(sock.getsockname())
            result = measure(SERVER_KEY.public_key(), endpoint, PEERS)
        finally:
            thread.join()
    assert result["answered"] == PEERS - 5
    assert 0 < result["seconds"] < 30


def test_the_benchmarks_conf_names_the_same_peers() -> None:
    conf = peers_conf(3)
    for number in range(3):
        assert f"PublicKey = {private_key(number).public_key().to_base64()}\n" in conf
    assert conf.count("[Peer]") == 3
