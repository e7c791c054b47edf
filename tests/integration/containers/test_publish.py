"""`tunnel run -p`: ports of the host that lead inside."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.support.runs import Near, near
from tunnel.lab import Host
from tunnel.lab.process import HostProcess

pytestmark = [pytest.mark.root]

BOUND = 10.0

# Answers in capitals once the client has closed its half; on port 9081 by UDP at once. Port 9082
# is listened on at the tunnel's address only, 9083 at IPv6's loopback only.
SERVER = """
import socket, threading

ready = threading.Semaphore(0)

def tcp(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family) as listener:
        ready.release()
        while True:
            made, _ = listener.accept()
            with made:
                data = b""
                while piece := made.recv(65536):
                    data += piece
                made.sendall(data.upper())

def udp(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    served = socket.socket(family, socket.SOCK_DGRAM)
    served.bind((address, port))
    ready.release()
    while True:
        data, client = served.recvfrom(65536)
        served.sendto(data.upper(), client)

served = [(tcp, "0.0.0.0", 9080), (udp, "0.0.0.0", 9081), (tcp, "10.77.0.1", 9082)]
served += [(tcp, "::1", 9083), (udp, "::1", 9084), (udp, "10.77.0.1", 9085)]
for function, address, port in served:
    threading.Thread(target=function, args=(address, port), daemon=True).start()
for _ in served:
    ready.acquire()
print("ready", flush=True)
threading.Event().wait()
"""


@pytest.fixture(params=["root", pytest.param("user", marks=pytest.mark.real_root)], scope="module")
def run(request: pytest.FixtureRequest) -> Iterator[Near]:
    with near(as_user=request.param == "user") as made:
        yield made


@contextlib.contextmanager
def serving(run: Near, *options: str) -> Iterator[HostProcess]:
    process = run.start("python3", "-c", SERVER, options=options)
    process.wait_for_output("ready")
    yield process
    assert process.stop() == -15
    run.hosts.a.wait_for(lambda: not run.leftovers(), 10, "the end of everything")


def ask_tcp(host: Host, address: str, port: int, data: bytes) -> bytes:
    """What comes back once we have closed our half."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with host.socket(family, socket.SOCK_STREAM) as made:
        made.settimeout(BOUND)
        made.connect((address, port))
        made.sendall(data)
        made.shutdown(socket.SHUT_WR)
        found = b""
        while piece := made.recv(65536):
            found += piece
        return found


def ask_udp(host: Host, address: str, port: int, data: bytes) -> bytes:
    """The answer to a datagram; it comes from where that was sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with host.socket(family, socket.SOCK_DGRAM) as made:
        made.settimeout(BOUND)
        made.connect((address, port))
        made.send(data)
        return made.recv(65536)


def test_tcp_and_udp_reach_the_command_from_everywhere(run: Near) -> None:
    a, b = run.hosts.a, run.hosts.b
    pairs = ["8080:9080", "8081:9081/udp", "8082-8083:9082-9083", "8084-8085:9084-9085/udp"]
    with serving(run, *(f"-p{pair}" for pair in pairs)):
        large = b"abcdefgh" * 200_000
        for host, address in (
            (a, "127.0.0.1"),
            (a, "::1"),
            (b, "192.0.2.1"),
            (b, "2001:db8::1"),
        ):
            assert ask_tcp(host, address, 8080, b"from there") == b"FROM THERE"
            assert ask_udp(host, address, 8081, b"datagram") == b"DATAGRAM"
        assert ask_tcp(b, "192.0.2.1", 8080, large) == large.upper()
        # Where the program listens on one address of its own only.
        for port in (8082, 8083):
            assert ask_tcp(a, "127.0.0.1", port, b"x") == b"X"
        for port in (8084, 8085):
            assert ask_udp(a, "127.0.0.1", port, b"x") == b"X"


def test_an_address_limits_who_can_call_and_no_service_is_a_reset(run: Near) -> None:
    a, b = run.hosts.a, run.hosts.b
    with serving(run, "-p", "127.0.0.1:8080:9080", "-p", "8089:9999"):
        assert ask_tcp(a, "127.0.0.1", 8080, b"x") == b"X"
        with pytest.raises(ConnectionRefusedError):
            ask_tcp(b, "192.0.2.1", 8080, b"x")
        with pytest.raises(ConnectionResetError):
            ask_tcp(b, "192.0.2.1", 8089, b"x")


def test_a_port_that_is_taken_or_for_root_is_named(run: Near) -> None:
    with run.hosts.a.call(lambda: socket.create_server(("127.0.0.1", 8080))):
        taken = run.run("true", options=["-p", "127.0.0.1:8080:80"])
    assert taken.returncode == 1
    assert "-p 127.0.0.1:8080:80/tcp: port 8080 is in use" in taken.stderr
    wrong = run.run("true", options=["-p", "80:http"])
    assert wrong.returncode == 2
    assert 'must be [ADDRESS:]PORT:PORT, not "80:http"' in wrong.stderr
    if run.user is not None:
        low = run.run("true", options=["-p", "80:80"])
        assert low.returncode == 1
        assert "net.ipv4.ip_unprivileged_port_start=80" in low.stderr
