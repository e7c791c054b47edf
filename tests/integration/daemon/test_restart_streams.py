"""A restart and a kill under an ssh session and iperf3, as the wire shows them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.daemons import remains, status
from tests.support.hosts import TwoHosts
from tests.support.pairs import make_pair
from tests.support.taps import make_ends
from tunnel.lab import Host, wait_for
from tunnel.lab.peers import OurEnd
from tunnel.lab.process import HostProcess
from tunnel.linux import bpf
from tunnel.linux.packet_socket import PacketSocket

pytestmark = [pytest.mark.root, pytest.mark.foreign("iperf3", "ssh", "ssh-keygen", "sshd")]

HANDSHAKES = [
    (bpf.LD_B, 0, 0, 9),
    (bpf.JEQ, 0, 3, 17),
    (bpf.LD_B, 0, 0, 28),
    (bpf.JGE, 1, 0, 4),
    (bpf.RET, 0, 0, bpf.ALL),
    (bpf.RET, 0, 0, 0),
]
"""UDP by IPv4 whose first byte is below 4: all messages of WireGuard but those with data."""


def messages(wire: PacketSocket) -> list[int]:
    """The types of the handshake messages that have crossed since the last call."""
    found = list(iter(wire.read, None))
    assert wire.statistics()[1] == 0
    return [one.packet[28] for one in found]


@contextmanager
def watched(host: Host) -> Iterator[PacketSocket]:
    """What of handshakes crosses eth0 of the host."""
    with host.call(lambda: PacketSocket("eth0", HANDSHAKES)) as wire:
        yield wire


def begin_ssh(client: Host, server: Host, address: str) -> HostProcess:
    """A session in which the far end counts, a number a line."""
    folder = server.directory
    for name in ("host", "user"):
        server.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)])
    server.run(["mkdir", "-p", "/run/sshd"])
    daemon = server.run(["sh", "-c", "command -v sshd"]).stdout.strip()
    settings = (
        "Port=2222",
        f"AuthorizedKeysFile={folder}/user.pub",
        "PermitRootLogin=yes",
        "StrictModes=no",
        "UsePAM=no",
        "PidFile=none",
    )
    options = [word for setting in settings for word in ("-o", setting)]
    served = [os.path.realpath(daemon), "-D", "-e", "-f", "/dev/null", "-h", str(folder / "host")]
    server.popen([*served, *options]).wait_for_output("Server listening on 0.0.0.0")
    login = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    login += ["-o", "LogLevel=ERROR", "-i", str(folder / "user"), "-p", "2222", f"root@{address}"]
    count = "n=0; while sleep 0.05; do n=$((n+1)); echo $n; done"
    return client.popen(["ssh", "-F", "none", *login, count])


def begin_iperf3(client: Host, server: Host, address: str) -> HostProcess:
    """A stream of TCP without an end."""
    server.popen(["iperf3", "-s", "-1", "--forceflush"]).wait_for_output("Server listening")
    pace = ["-t", "0", "-i", "0.1", "-b", "50M", "--forceflush"]
    return client.popen(["iperf3", "-c", address, *pace])


def check_flows(session: HostProcess, stream: HostProcess) -> None:
    """Both carry more than they have carried so far."""

    def counted() -> int:
        return max(map(int, re.findall(r"^\d+$", session.log(), re.M)), default=0)

    def carried() -> int:
        return sum(float(rate) > 0 for rate in re.findall(r"([\d.]+) Mbits/sec", stream.log()))

    numbers, intervals = counted() + 5, carried() + 5

    def is_flowing() -> bool:
        assert session.running, session.log()
        assert stream.running, stream.log()
        return counted() >= numbers and carried() >= intervals

    wait_for(is_flowing, 20, "the ssh session and iperf3 to go on")


def check_life(end: OurEnd, other: OurEnd, wire: PacketSocket) -> None:
    """Both streams survive a restart and a kill of `end`, and no handshake message crosses."""
    a, b = end.node.host, other.node.host
    a.ping("10.77.0.2")
    session = begin_ssh(a, b, "10.77.0.2")
    stream = begin_iperf3(a, b, "10.77.0.2")
    check_flows(session, stream)
    assert {1, 2} <= set(messages(wire)), "the capture sees a handshake"
    end.tunnel("restart", str(end.conf))
    assert status(end)["restarts"] == 1
    check_flows(session, stream)
    os.kill(status(end)["pid"], signal.SIGKILL)
    check_flows(session, stream)
    assert status(end)["restarts"] == 2
    assert messages(wire) == []
    for process in (session, stream):
        process.signal(signal.SIGTERM)
    end.down()
    assert remains(a) == []


def test_streams_go_on(two_hosts: TwoHosts) -> None:
    with watched(two_hosts.b) as wire:
        pair = make_pair(two_hosts)
        check_life(pair.a, pair.b, wire)


def test_streams_go_on_in_ethernet(two_hosts: TwoHosts) -> None:
    with watched(two_hosts.b) as wire:
        one, other = make_ends(two_hosts)
        one.up()
        other.up()
        check_life(one, other, wire)
