"""`tunnel doctor` on two hosts: each fault is made, found under its code, and undone again."""

from __future__ import annotations

import base64
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.daemons import status
from tests.support.doctoring import (
    DOCTOR,
    NAME,
    PROGRAM,
    SHORT,
    A,
    B,
    Net,
    begin_to_examine,
    blocked,
    carry_out,
    codes,
    conf_is,
    conf_of,
    done_and_undone,
    examine,
    examined,
    forget_sessions,
    in_foreground,
    reloaded,
    remedy_of,
    rules,
)
from tunnel.lab import Host
from tunnel.lab.faults import Hook
from tunnel.lab.peers import Node, OurEnd, generate_preshared_key

pytestmark = pytest.mark.root

LOW_ORDER = base64.b64encode(b"\x01" + bytes(31)).decode()

FLOOD = """
import os, socket, sys, time
from crypto.cookies import mac1
from crypto.keys import PublicKey
UDP_SEGMENT, SIZE = 103, 148  # linux/udp.h; a handshake initiation
body = bytes([1, 0, 0, 0]) + os.urandom(112)
message = body + mac1(PublicKey.from_base64(sys.argv[1]), body) + bytes(16)
flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
flood.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, SIZE)
print("begins", flush=True)
while True:
    flood.sendto(message * 64, ("192.0.2.1", int(sys.argv[2])))
    time.sleep(0.002)
"""


def test_usage(net: Net) -> None:
    assert net.host.run([*DOCTOR, "nobody"], check=False).returncode == 2
    assert net.host.run([*DOCTOR, "wg0", "--address", NAME], check=False).returncode == 2


# --- Conf, clock, rights -------------------------------------------------------------------------


def test_a_conf_with_mistakes(net: Net) -> None:
    mixed = replace(net.b.node, private_key=net.a.node.private_key)
    with conf_is(net.a, conf_of(net.a.node, mixed) + "AllowedIPs = 10.0.0.0/33\n"):
        assert codes(examine(net.a)) == {"conf_invalid", "own_key_as_peer"}


def test_a_conf_that_others_can_read(net: Net) -> None:
    net.a.conf.chmod(0o644)
    try:
        report = examine(net.a)
    finally:
        net.a.conf.chmod(0o600)
    assert codes(report) == set()
    (note,) = [each for each in report["notes"] if each["code"] == "conf_doubtful"]
    assert "chmod" in note["remedy"]


def test_a_private_key_in_the_place_of_the_public_one(net: Net) -> None:
    text = net.a.conf.read_text().replace(net.b.node.public_key, net.a.node.private_key)
    with conf_is(net.a, text):
        report = examine(net.a)
    assert codes(report) == {"private_key_as_peer"}
    assert codes(report, "notes") == {"conf_not_applied", "conf_doubtful"}


def test_a_tunnel_that_is_not_up_and_an_endpoint_without_address(net: Net) -> None:
    here = Node(net.host, ("10.79.9.1/24",), port=51829, interface="wg9")
    there = Node(net.far, ("10.79.9.2/24",), "no-such-host.invalid")
    never_up = OurEnd(here, conf_of(here, there))
    assert codes(examine(never_up)) == {"not_running", "endpoint_name"}


@pytest.mark.foreign("setpriv")
def test_a_holder_that_has_ended_for_good(net: Net) -> None:
    # What another one would log to is no plain file any more.
    net.host.run(["sh", "-c", "rm /run/tunnel/wg0.log && mkdir /run/tunnel/wg0.log"])
    os.kill(status(net.a)["holder"], signal.SIGKILL)
    net.host.wait_for(lambda: status(net.a)["lost_holders"] == 1, 20, "the daemon to see it")
    assert not status(net.a)["is_kept"]
    assert "holder: has ended; a restart interrupts" in net.a.tunnel("show", "wg0")
    report = examine(net.a)
    assert codes(report) == {"holder_ended"}
    net.host.run(["rmdir", "/run/tunnel/wg0.log"])
    carry_out(net.a, remedy_of(report, "holder_ended"))
    assert status(net.a)["is_kept"]
    assert codes(examine(net.a)) == set()


def test_a_clock_that_was_never_set_and_missing_rights(net: Net) -> None:
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    command = [*without, *PROGRAM, "=1451606400", "doctor"]
    assert codes(examine(net.a, command=command)) == {"clock_wrong", "privileges"}


def test_a_clock_that_was_set_back(net: Net) -> None:
    net.host.ping(B)
    report = examine(net.a, command=[*PROGRAM, "-7200", "doctor"])
    assert codes(report) == {"clock_set_back"}


def lacks_net_admin(pid: int) -> bool:
    (line,) = [
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("CapEff:")
    ]
    return not int(line.split()[1], 16) >> 12 & 1


def test_a_peer_that_roams_sleeps_and_comes_back_with_a_wrong_clock_and_a_daemon_without_rights(
    net: Net,
) -> None:
    here = Node(net.host, ("10.79.0.1/24",), "192.0.2.1", port=51823, interface="wg3")
    roams = Node(net.far, ("10.79.0.2/24",), None, port=51823, interface="wg3", keepalive=1)
    a, b = OurEnd(here, conf_of(here, roams)), OurEnd(roams, conf_of(roams, here))
    with in_foreground(a, "0") as daemon:
        with in_foreground(b, "7200"):
            net.far.ping("10.79.0.1")
        # Nobody waits for it: it may sleep. And what scanners send says little.
        stranger = Node(net.far, ()).public_key
        with flood(here, net.far, stranger):
            report = examine(a, command=[*PROGRAM, "3600", "doctor"])
        assert codes(report) == set()
        assert codes(report, "notes") == {"peer_not_heard", "peer_has_wrong_key"}

        daemon.signal(signal.SIGUSR1)
        net.host.wait_for(lambda: lacks_net_admin(daemon.pid), 10, "CAP_NET_ADMIN to go")
        with in_foreground(b, "0"):
            # It tries again every five seconds.
            report = examine(a, wait="7")
    assert codes(report) == {"peer_clock_back", "daemon_privileges"}


# --- Handshakes ----------------------------------------------------------------------------------


def test_a_preshared_key_on_one_side_only(net: Net) -> None:
    text = conf_of(net.a.node, net.b.node, psk=generate_preshared_key())
    with reloaded(net.a, text, forget=True):
        assert codes(examine(net.a, wait=SHORT)) == {"preshared_key_differs"}


def test_a_quota_that_is_used_up(net: Net) -> None:
    text = conf_of(net.a.node, net.b.node).rstrip("\n")
    with reloaded(net.a, f"{text}\nQuota = 1 per day\n"):
        report = examine(net.a, wait=SHORT)
    assert codes(report) == {"quota_reached"}
    assert codes(report, "notes") <= {"dropped_earlier"}


def test_the_peer_has_the_wrong_key_of_us_and_we_of_it(net: Net) -> None:
    stranger = replace(net.b.node, private_key=Node(net.host, ()).private_key)
    with reloaded(net.a, conf_of(net.a.node, stranger)):
        # Without an old session each side says who it is, and for whom, once in five seconds.
        forget_sessions(net.b)
        both = [begin_to_examine(end, wait="7") for end in (net.a, net.b)]
        here, there = (codes(examined(process)) for process in both)
    assert here == {"unknown_peer"}
    assert there == {"peer_has_wrong_key"}


@contextmanager
def flood(node: Node, source: Host, key: str | None = None) -> Iterator[None]:
    """Initiations for `node`, made for its key or for another one."""
    words = [key or node.public_key, str(node.port)]
    process = source.popen([sys.executable, "-c", FLOOD, *words])
    try:
        process.wait_for_output("begins")
        yield
    finally:
        process.kill()


def test_a_flood_of_handshakes(net: Net) -> None:
    net.host.ping(B)
    with flood(net.a.node, net.far):
        report = examine(net.a)
    assert codes(report) == set()
    assert codes(report, "notes") == {"under_load"}


# --- Peers that cannot be reached ----------------------------------------------------------------


@contextmanager
def peers(net: Net) -> Iterator[dict[str, Node]]:
    """The tunnel of a with peers beside b, each of which is not there for a reason of its own."""
    places: dict[str, tuple[str | None, int]] = {
        "endpoint_refuses": ("192.0.2.2", 9),
        "nothing_comes": ("192.0.2.2", 5000),
        "endpoint_in_tunnel": ("192.0.2.13", 51820),
        "endpoint_unreachable": ("192.0.2.14", 51820),
        "endpoint_is_self": ("192.0.2.1", 9),
        "peer_not_heard": (None, 51820),
    }
    nodes = {
        code: Node(net.far, (f"10.77.0.{number}/32",), place, port)
        for number, (code, (place, port)) in enumerate(places.items(), 20)
    }
    text = conf_of(net.a.node, net.b.node, *nodes.values())
    text += f"\n[Peer]\nPublicKey = {LOW_ORDER}\nAllowedIPs = 10.77.0.99\nEndpoint = {NAME}:1\n"
    loop, unreachable = "route {} 192.0.2.13/32 dev wg0", "route {} unreachable 192.0.2.14/32"
    with ExitStack() as stack:
        stack.enter_context(reloaded(net.a, text))
        stack.enter_context(blocked(net.far, Hook.INPUT, "udp dport 5000"))
        for route in (loop, unreachable):
            undo = done_and_undone(net.host, route.format("add"), route.format("del"))
            stack.enter_context(undo)
        yield nodes


def test_peers_that_are_not_there_for_many_reasons(net: Net) -> None:
    # A host sends few ICMP errors to one address: those may have been used up before.
    net.far.set_sysctl("net.ipv4.icmp_ratelimit", "0")
    with peers(net) as nodes:
        report = examine(net.a, wait="7")
    found = {each["peer"]: each["code"] for each in (*report["findings"], *report["notes"])}
    found.pop(None, None)
    wanted = {node.public_key: code for code, node in nodes.items()}
    assert found == {**wanted, LOW_ORDER: "low_order_key"}
    assert len(report["findings"]) == len(wanted)
    (blocked_way,) = [each for each in report["findings"] if each["code"] == "nothing_comes"]
    assert "192.0.2.2:5000" in blocked_way["evidence"]


# --- Addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "code"),
    [(A, "address_is_own"), ("10.99.0.1", "address_missed"), ("10.88.0.5", "address_silent")],
)
def test_an_address_that_cannot_be_reached(net: Net, address: str, code: str) -> None:
    assert codes(examine(net.a, "--address", address)) == {code}


def test_answers_from_an_address_that_is_not_the_peers(net: Net) -> None:
    other_source = """chain out {
        type filter hook output priority mangle;
        oifname "wg0" ip saddr set 10.77.0.9
    }"""
    with rules(net.far, "ip odd", other_source):
        assert codes(examine(net.a, wait=SHORT)) == {"source_not_allowed"}


def test_a_tunnel_that_is_still_being_set_up(net: Net) -> None:
    here = replace(net.a.node, interface="wg8", addresses=("10.79.8.1/24",), port=51828)
    slow = OurEnd(here, conf_of(here, net.b.node, extra=["PreUp = sleep 8"]))
    process = net.host.popen([*PROGRAM, "0", "up", "--foreground", str(slow.conf)])
    try:
        net.host.wait_for(lambda: "wg8" in interfaces(net.host), 10, "wg8")
        assert codes(examine(slow)) == {"not_ready"}, process.log()
    finally:
        process.stop(20)


def interfaces(host: Host) -> str:
    return host.run(["ip", "-brief", "link"]).stdout
