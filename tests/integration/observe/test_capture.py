"""`tunnel capture` as tshark reads what it wrote."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.captures import begin_capture, end_capture, fields
from tests.support.hosts import TwoHosts
from tests.support.pairs import Pair, make_pair
from tests.support.taps import check_tagged, make_ends
from tunnel.lab import LabError

pytestmark = [pytest.mark.root, pytest.mark.foreign("tshark")]

PSK = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
OUTGOING, INCOMING = "0x00000002", "0x00000001"


@pytest.mark.parametrize("outer", [4, 6])
def test_a_ping_is_there_inside_and_outside(
    two_hosts: TwoHosts, tmp_path: Path, outer: int
) -> None:
    pair = make_pair(two_hosts, outer=outer)
    a, _ = pair.hosts
    a.ping(pair.b.node.address())
    file = tmp_path / "both.pcapng"
    capture = begin_capture(a, "-w", str(file))
    a.ping(pair.b.node.address())
    end_capture(capture)
    assert "0 lost" in capture.log()
    assert file.stat().st_mode & 0o777 == 0o600
    seen = fields(file, "icmp or wg.type == 4", "frame.interface_name", "_ws.col.Protocol")
    assert seen == [
        ["wg0", "ICMP"],
        ["wg0-udp", "WireGuard"],
        ["wg0-udp", "WireGuard"],
        ["wg0", "ICMP"],
    ]
    ways = fields(file, "icmp or wg.type == 4", "frame.packet_flags")
    assert ways == [[OUTGOING], [OUTGOING], [INCOMING], [INCOMING]]
    assert b"PRIVATE_KEY" not in file.read_bytes()


@pytest.mark.parametrize("psk", [None, PSK])
@pytest.mark.parametrize("end", [0, 1])
def test_with_keys_the_outer_packets_are_decrypted(
    two_hosts: TwoHosts, tmp_path: Path, psk: str | None, end: int
) -> None:
    """From the end that initiates, and from the end that responds."""
    pair = make_pair(two_hosts, preshared_key=psk)
    a, _ = pair.hosts
    file = tmp_path / "keys.pcapng"
    capture = begin_capture(pair.hosts[end], "-w", str(file), "--with-keys")
    assert "WARNING" in capture.log()
    a.ping(pair.b.node.address())
    end_capture(capture)
    decrypted = fields(file, "wg.type == 4 and icmp", "frame.interface_name", "icmp.type")
    assert decrypted == [["wg0-udp", "8"], ["wg0-udp", "0"]]


@pytest.mark.parametrize("end", [0, 1])
def test_what_is_unread_when_it_is_ended_is_kept_with_its_keys(
    two_hosts: TwoHosts, tmp_path: Path, end: int
) -> None:
    """On a busy machine, ^C comes before the capture had its turn."""
    pair = make_pair(two_hosts)
    a, _ = pair.hosts
    file = tmp_path / "late.pcapng"
    capture = begin_capture(pair.hosts[end], "-w", str(file), "--with-keys")
    capture.signal(signal.SIGSTOP)
    a.run(["ping", "-n", "-q", "-f", "-c", "600", pair.b.node.address()])
    capture.signal(signal.SIGINT)
    capture.signal(signal.SIGCONT)
    assert capture.wait(10) == 0, capture.log()
    assert len(fields(file, "wg.type == 4 and icmp", "icmp.type")) == 1200
    assert len(fields(file, "frame.interface_name == wg0 and icmp", "icmp.type")) == 1200


@pytest.mark.foreign("iperf3")
def test_under_load_batches_are_taken_apart_and_decrypted(pair: Pair, tmp_path: Path) -> None:
    """The offloads join datagrams where a capture sees them: it shows them as the wire does."""
    a, b = pair.hosts
    file = tmp_path / "load.pcapng"
    capture = begin_capture(a, "-w", str(file), "--with-keys", "--snaplen", "2000")
    server = b.popen(["iperf3", "-s", "-1", "--forceflush"])
    server.wait_for_output("Server listening")
    a.run(["iperf3", "-c", pair.b.node.address(), "-n", "2M"])
    end_capture(capture)
    sealed = fields(file, "wg.type == 4 and udp.length > 1400", "tcp.dstport", "udp.length")
    assert len(sealed) > 500
    assert {length for _, length in sealed} == {"1460"}
    assert sum(port == "5201" for port, _ in sealed) > len(sealed) * 0.95


def test_it_ends_by_itself_and_keeps_what_was_asked_for(pair: Pair, tmp_path: Path) -> None:
    a, _ = pair.hosts
    file = tmp_path / "cut.pcapng"
    capture = begin_capture(a, "-w", str(file), "--snaplen", "60", "--count", "3")
    a.ping(pair.b.node.address(), count=2)
    assert capture.wait(10) == 0
    assert "3 packets captured" in capture.log()
    sizes = fields(file, "frame", "frame.cap_len")
    assert len(sizes) == 3
    assert max(int(size) for (size,) in sizes) == 60
    capture = begin_capture(a, "-w", str(tmp_path / "short"), "--seconds", "0.5")
    assert capture.wait(5) == 0


def test_a_pipe_is_fed_as_packets_come_and_may_close(pair: Pair) -> None:
    a, _ = pair.hosts
    command = (
        f"{sys.executable} -m tunnel capture wg0 -w - | tshark -l -i - -c 4 -T fields -e ip.dst"
    )
    piped = a.popen(["bash", "-o", "pipefail", "-c", command])
    piped.wait_for_output("capturing wg0")
    for _ in range(10):
        a.ping(pair.b.node.address())
        if not piped.running:
            break
    assert piped.wait(20) == 0, piped.log()
    assert pair.b.node.address() in piped.log()


def test_it_ends_with_the_tunnel(pair: Pair, tmp_path: Path) -> None:
    a, _ = pair.hosts
    plain = begin_capture(a, "-w", str(tmp_path / "plain"))
    keyed = begin_capture(a, "-w", str(tmp_path / "keyed"), "--with-keys")
    pair.a.down()
    assert plain.wait(10) == 0, plain.log()
    assert keyed.wait(10) == 0, keyed.log()


def test_refusals(pair: Pair, tmp_path: Path) -> None:
    a, _ = pair.hosts
    for arguments, said in (
        (["wg9", "-w", str(tmp_path / "f")], "no tunnel named wg9"),
        (["wg0", "-w", str(tmp_path / "none" / "f")], "there is no folder"),
        (["wg0", "-w", "-", "--ring", "2"], "a ring of files needs a name"),
    ):
        process = a.popen([sys.executable, "-m", "tunnel", "capture", *arguments])
        assert process.wait(10) in (1, 2)
        assert said in process.log()


def test_other_datagrams_are_not_captured(pair: Pair, tmp_path: Path) -> None:
    a, _ = pair.hosts
    file = tmp_path / "ours.pcapng"
    capture = begin_capture(a, "-w", str(file))
    send = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
    for port in (9, 51820):
        a.run([sys.executable, "-c", f"{send}s.sendto(b'other', ('192.0.2.2', {port}))"])
    a.run(["ping", "-c", "1", "192.0.2.2"])
    a.ping(pair.b.node.address())
    end_capture(capture)
    assert fields(file, "frame.interface_name == wg0-udp and not wg", "frame.protocols") == []
    assert fields(file, "frame.interface_name == wg0-udp", "frame.protocols")


def test_forwarded_datagrams_of_the_same_port_are_not_captured(pair: Pair, tmp_path: Path) -> None:
    """Every WireGuard has 51820: those of hosts behind this one are not ours."""
    a, b = pair.hosts
    b.set_sysctl("net.ipv4.ip_forward", "1")
    b.ip("link add behind type veth peer name far", "link set far up", "link set behind up")
    b.ip("addr add 198.51.100.1/24 dev behind")
    b.ip("neigh add 198.51.100.2 lladdr 02:00:00:00:00:01 dev behind")
    a.ip("route add 198.51.100.0/24 via 192.0.2.2")
    file = tmp_path / "ours.pcapng"
    capture = begin_capture(b, "-w", str(file))
    send = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
    a.run([sys.executable, "-c", f"{send}s.sendto(bytes(148), ('198.51.100.2', 51820))"])
    # An address that came after the capture is ours, too.
    b.ip("addr add 192.0.2.7/24 dev eth0")
    a.run([sys.executable, "-c", f"{send}s.sendto(bytes(148), ('192.0.2.7', 51820))"])
    a.ping(pair.b.node.address())
    end_capture(capture)
    strange = fields(file, "frame.interface_id == 1 && udp && !wg", "ip.dst")
    assert strange == [["192.0.2.7"]]
    assert fields(file, "wg", "frame.number")


def _on_bridge(two: TwoHosts) -> None:
    two.a.ip("link add br0 type bridge", "link set eth0 master br0", *_moved("1", "br0"))


def _on_vlan(two: TwoHosts) -> None:
    for number, host in (("1", two.a), ("2", two.b)):
        host.ip("link add link eth0 name vlan7 type vlan id 7", *_moved(number, "vlan7"))


def _on_bond(two: TwoHosts) -> None:
    two.a.ip(
        "link add bond0 type bond mode active-backup",
        "link set eth0 down",
        "link set eth0 master bond0",
        *_moved("1", "bond0"),
    )


def _moved(number: str, device: str) -> list[str]:
    return [
        "addr flush dev eth0",
        "link set eth0 up",
        f"link set {device} up",
        f"addr add 192.0.2.{number}/24 dev {device}",
    ]


@pytest.mark.real_root
@pytest.mark.parametrize("stack", [_on_bridge, _on_vlan, _on_bond])
@pytest.mark.foreign("iperf3")
def test_a_datagram_that_crosses_several_devices_is_there_once(
    two_hosts: TwoHosts, tmp_path: Path, stack: Callable[[TwoHosts], None]
) -> None:
    try:
        stack(two_hosts)
    except LabError as error:
        if "Unknown device type" not in str(error):
            raise
        pytest.skip(f"this kernel has no such device: {stack.__name__}")
    pair = make_pair(two_hosts)
    a, b = pair.hosts
    file = tmp_path / "once.pcapng"
    capture = begin_capture(a, "-w", str(file), "--snaplen", "100")
    a.ping(pair.b.node.address(), count=2)
    server = b.popen(["iperf3", "-s", "-1", "--forceflush"])
    server.wait_for_output("Server listening")
    a.run(["iperf3", "-c", pair.b.node.address(), "-n", "1M"])
    end_capture(capture)
    handshake = fields(file, "wg.type == 1 || wg.type == 2", "wg.type")
    assert sorted(handshake) == [["1"], ["2"]]
    # Counters begin at zero, so that none is missing either.
    for outgoing, way in ((True, OUTGOING), (False, INCOMING)):
        seen = fields(file, f"wg.type == 4 && frame.packet_flags == {way}", "wg.counter")
        counters = [int(counter) for (counter,) in seen]
        assert sorted(counters) == list(range(len(counters))), outgoing
        assert len(counters) > 10


def test_a_ring_keeps_the_latest_files_each_with_the_keys(pair: Pair, tmp_path: Path) -> None:
    a, _ = pair.hosts
    a.ping(pair.b.node.address())
    target = tmp_path / "ring.pcapng"
    capture = begin_capture(
        a, "-w", str(target), "--ring", "2", "--size", "1", "--with-keys", "--seconds", "60"
    )
    command = ["ping", "-f", "-c", "800", "-s", "1300", pair.b.node.address()]
    a.run(command, timeout=40)
    end_capture(capture)
    names = sorted(path.name for path in tmp_path.glob("ring*"))
    assert len(names) == 2
    assert names[-1] > "ring-00003.pcapng"
    for name in names:
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
        assert (tmp_path / name).stat().st_size < 1_100_000
        assert b"LOCAL_STATIC_PRIVATE_KEY" in (tmp_path / name).read_bytes()
        assert fields(tmp_path / name, "icmp", "frame.number")


def test_a_filter_keeps_its_packets_and_the_datagrams_that_carried_them(
    pair: Pair, tmp_path: Path
) -> None:
    a, b = pair.hosts
    file = tmp_path / "some.pcapng"
    capture = begin_capture(b, "icmp", "and", "host", "10.77.0.2", "-w", str(file), "--with-keys")
    assert "capturing icmp and host 10.77.0.2 in wg0" in capture.log()
    a.ping("fd77::2")
    a.ping("10.77.0.2", count=3)
    a.run(["bash", "-c", "echo something else > /dev/udp/fd77::2/9"], check=False)
    end_capture(capture)
    sealed = fields(file, "frame.interface_id == 1 && wg.type == 4", "icmp.type")
    assert sealed == [["8"], ["0"]] * 3
    assert fields(file, "frame.interface_id == 0", "icmp.type") == sealed
    assert len(fields(file, "wg.type == 1 || wg.type == 2", "frame.number")) == 2


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.foreign("iperf3")
def test_a_filter_follows_packets_that_go_as_batches(pair: Pair, tmp_path: Path, end: int) -> None:
    """From the end that sends them, and from the one that receives them."""
    a, b = pair.hosts
    file = tmp_path / "batches.pcapng"
    capture = begin_capture(pair.hosts[end], "tcp", "port", "5201", "-w", str(file), "--with-keys")
    pings = a.popen(["ping", "-q", "-c", "40", "-i", "0.02", "-s", "300", pair.b.node.address()])
    server = b.popen(["iperf3", "-s", "-1", "--forceflush"])
    server.wait_for_output("Server listening")
    a.run(["iperf3", "-c", pair.b.node.address(), "-n", "2M"])
    assert pings.wait(10) == 0
    end_capture(capture)
    assert "datagrams of the filter" not in capture.log()
    assert set(map(tuple, fields(file, "frame.interface_id == 0", "ip.proto"))) == {("6",)}
    sealed = fields(file, "frame.interface_id == 1 && wg.type == 4", "udp.length", "tcp.dstport")
    assert len(sealed) > 500
    # All of them can be decrypted, and none is a ping.
    assert {port for _, port in sealed} >= {"5201"}
    assert "" not in {port for _, port in sealed}


def test_it_follows_the_tunnel_to_another_port(pair: Pair, tmp_path: Path) -> None:
    a, _ = pair.hosts
    file = tmp_path / "moved.pcapng"
    a.ping(pair.b.node.address())
    capture = begin_capture(a, "-w", str(file))
    a.ping(pair.b.node.address())
    conf = pair.a.conf.read_text()
    pair.a.conf.write_text(re.sub(r"ListenPort = \d+", "ListenPort = 4321", conf))
    pair.a.tunnel("reload", str(pair.a.conf))
    capture.wait_for_output("the UDP port is 4321 now, was 51820")
    a.ping(pair.b.node.address())
    end_capture(capture)
    ports = fields(file, "wg.type == 4", "udp.srcport", "udp.dstport")
    assert ports == [
        ["51820", "51820"],
        ["51820", "51820"],
        ["4321", "51820"],
        ["51820", "4321"],
    ]


def test_a_filter_that_cannot_be_understood_is_refused(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "none.pcapng"
    ran = pair.hosts[0].run(
        [sys.executable, "-m", "tunnel", "capture", "wg0", "tcp", "dport", "1", "-w", str(file)],
        check=False,
    )
    assert ran.returncode == 2
    assert "expected 'and' or 'or' before 'dport'" in ran.stderr
    assert not file.exists()


def test_frames_are_there_with_their_tags(two_hosts: TwoHosts, tmp_path: Path) -> None:
    ends = make_ends(two_hosts)
    for end in ends:
        end.up()
    a, b = two_hosts.a, two_hosts.b
    whole, pings = tmp_path / "whole.pcapng", tmp_path / "pings.pcapng"
    # Not ICMPv6: TAP devices solicit neighbours and routers whenever they like.
    wanted = ["icmp", "and", "ip"]
    captures = [begin_capture(a, "-w", str(whole)), begin_capture(a, "-w", str(pings), *wanted)]
    a.ping("10.77.0.2")
    check_tagged(b, a, 100)
    for capture in captures:
        end_capture(capture)
    inside = 'frame.interface_name == "wg0"'
    assert ["1"] in fields(whole, f"{inside} && arp", "frame.encap_type")
    assert fields(whole, f"{inside} && vlan", "vlan.id") == [["7"]]
    assert fields(pings, inside, "_ws.col.Protocol") == [["ICMP"], ["ICMP"]]
    # The datagrams that carried them, and none that cannot have done so: in one batch, those of
    # the same size (such as reports of multicast listeners) are not told apart.
    lengths = fields(pings, "wg.type == 4", "udp.length")
    assert len(lengths) >= 2
    assert lengths == [lengths[0]] * len(lengths)
