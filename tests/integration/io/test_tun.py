"""The TUN device of the kernel at work, in a namespace of its own."""

import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import trio
from pytun_pmd3 import TunTapDevice

from tests.support.io_namespace import Namespace
from tunnel.io import link
from tunnel.io.drops import IoDrop
from tunnel.io.errors import TunDeleted, TunError, TunMergeRefused, TunWriteDropped
from tunnel.io.tun import QUEUE_LENGTH, READ_SIZE, VNET_HDR_LEN, Tun, TunOffload
from tunnel.linux import kernel

pytestmark = pytest.mark.root

OpenTun = Callable[..., Tun]
HEADER = struct.Struct("=BBHHHH")  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
NEEDS_CSUM, GSO_TCPV4, GSO_UDP_L4 = 1, 1, 5


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(protocol: int, payload: bytes, source: bytes, destination: bytes) -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0)
    header += source + destination
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


OURS, PEER = bytes([10, 9, 0, 1]), bytes([10, 9, 0, 2])


@pytest.fixture
def open_tun(netns: Namespace) -> Iterator[OpenTun]:
    """`Tun.open` in the namespace; with `up` it has 10.9.0.1/24 and fd09::1/64."""
    with ExitStack() as stack:

        def open_one(name: str = "tio0", *, up: bool = True, **options: object) -> Tun:
            with netns.entered():
                tun = Tun.open(name, **options)  # type: ignore[arg-type]
            stack.callback(tun.close)
            if up:
                netns.ip("address", "add", "10.9.0.1/24", "dev", tun.name)
                netns.ip("address", "add", "fd09::1/64", "dev", tun.name, "nodad")
                netns.ip("link", "set", tun.name, "up")
            return tun

        yield open_one


def read_until(tun: Tun, wanted: Callable[[bytes], bool]) -> bytes:
    """Read frames until one is wanted; the kernel sends a few of its own (router solicitation)."""
    buffer = bytearray(READ_SIZE)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        select.select([tun.fileno()], [], [], 1)
        length = tun.read(buffer)
        if length and wanted(bytes(buffer[:length])):
            return bytes(buffer[:length])
    raise AssertionError("the frame never came")


def is_ipv4(protocol: int) -> Callable[[bytes], bool]:
    return lambda frame: frame[10] >> 4 == 4 and frame[19] == protocol


def test_opens_as_asked(open_tun: OpenTun, netns: Namespace) -> None:
    tun = open_tun(up=False, mtu=1420)
    with netns.entered():
        link = tun.link()
    assert (link.name, link.mtu, link.up, link.here) == ("tio0", 1420, False, True)
    assert f"{tun.ifindex}: tio0" in netns.ip("link", "show", "tio0")
    assert tun.vnet_hdr
    assert tun.offloads & TunOffload.TSO4
    assert not os.get_blocking(tun.fileno())
    assert not os.get_inheritable(tun.fileno())


def test_a_ping_is_a_readable_frame_and_the_answer_arrives(
    open_tun: OpenTun, netns: Namespace
) -> None:
    tun = open_tun()
    ping = netns.popen("ping", "-c", "1", "-w", "10", "10.9.0.2")
    try:
        frame = read_until(tun, is_ipv4(1))
        flags, gso_type, *_ = HEADER.unpack_from(frame)
        assert (flags & NEEDS_CSUM, gso_type) == (0, 0)
        packet = frame[VNET_HDR_LEN:]
        assert packet[12:20] == OURS + PEER
        echo = packet[20:]
        reply = b"\0\0\0\0" + echo[4:]
        reply = b"\0\0" + struct.pack("!H", checksum(reply)) + echo[4:]
        assert tun.write(bytes(VNET_HDR_LEN) + ipv4(1, reply, PEER, OURS))
        assert ping.wait(10) == 0
    finally:
        ping.kill()
        ping.wait()


def test_a_tcp_stream_comes_in_super_packets(open_tun: OpenTun, netns: Namespace) -> None:
    tun = open_tun(mtu=1420)
    program = (
        "import socket; s = socket.socket(); s.setsockopt(6, 2, 1300); s.settimeout(10); "
        "s.connect(('10.9.0.2', 9)); s.sendall(bytes(20000)); s.recv(1)"
    )
    client = netns.popen("python3", "-c", program)
    try:
        syn = read_until(tun, is_ipv4(6))[VNET_HDR_LEN:]
        source_port, _, sequence = struct.unpack_from("!HHI", syn, 20)
        options = struct.pack("!BBH", 2, 4, 1300)
        answer = struct.pack("!HHIIBBHHH", 9, source_port, 1, sequence + 1, 0x60, 0x12, 65535, 0, 0)
        pseudo = PEER + OURS + struct.pack("!BBH", 0, 6, 24)
        total = struct.pack("!H", checksum(pseudo + answer + options))
        answer = answer[:16] + total + answer[18:] + options
        assert tun.write(bytes(VNET_HDR_LEN) + ipv4(6, answer, PEER, OURS))
        frame = read_until(tun, lambda frame: is_ipv4(6)(frame) and len(frame) > 1500)
        flags, gso_type, _, gso_size, csum_start, csum_offset = HEADER.unpack_from(frame)
        assert (flags & NEEDS_CSUM, gso_type & 0x7F) == (NEEDS_CSUM, GSO_TCPV4)
        assert gso_size == 1300
        assert (csum_start, csum_offset) == (20, 16)
    finally:
        client.kill()
        client.wait()


def test_a_udp_super_packet_is_accepted_and_arrives_in_pieces(
    open_tun: OpenTun, netns: Namespace
) -> None:
    tun = open_tun()
    if not tun.offloads & TunOffload.USO4:
        pytest.skip("this kernel has no USO on TUN devices")
    program = (
        "import socket; s = socket.socket(2, 2); s.bind(('10.9.0.1', 7)); s.settimeout(10); "
        "print('ready', flush=True); print([len(s.recv(9999)) for _ in range(4)])"
    )
    server = subprocess.Popen(
        ["ip", "netns", "exec", netns.name, "python3", "-c", program], stdout=subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        length = 8 + 3500
        pseudo = PEER + OURS + struct.pack("!BBH", 0, 17, length)
        # With NEEDS_CSUM the field holds the sum of the pseudo-header, not complemented.
        udp = struct.pack("!HHHH", 9, 7, length, ~checksum(pseudo) & 0xFFFF) + bytes(3500)
        header = HEADER.pack(NEEDS_CSUM, GSO_UDP_L4, 28, 1000, 20, 6)
        assert tun.write(memoryview(header + ipv4(17, udp, PEER, OURS)))
        assert server.communicate(timeout=10)[0] == b"[1000, 1000, 1000, 500]\n"
    finally:
        server.kill()
        server.wait()
    assert not tun.drops


def test_offloads_that_are_off_are_off(open_tun: OpenTun) -> None:
    assert open_tun(offloads=TunOffload.NONE).offloads == TunOffload.NONE


def test_a_device_that_is_down_drops_and_counts(open_tun: OpenTun, netns: Namespace) -> None:
    tun = open_tun()
    frame = bytes(VNET_HDR_LEN) + ipv4(1, bytes(8), PEER, OURS)
    assert tun.write(frame)
    netns.ip("link", "set", "tio0", "down")
    for n in (1, 2):
        with pytest.raises(TunWriteDropped) as info:
            tun.write(frame)
        assert info.value.reason is IoDrop.TUN_DOWN
        assert tun.drops == {IoDrop.TUN_DOWN: n}
    read_nothing(tun)
    netns.ip("link", "set", "tio0", "up")
    assert tun.write(frame)


def read_nothing(tun: Tun) -> None:
    """Empty the queue; the end is the 0 that means "nothing now"."""
    buffer = bytearray(READ_SIZE)
    for _ in range(100):
        if tun.read(buffer) == 0:
            return
    raise AssertionError("it never ends")


def test_what_is_no_packet_is_refused_and_counted(open_tun: OpenTun) -> None:
    tun = open_tun()
    with pytest.raises(TunWriteDropped):
        tun.write(bytes(VNET_HDR_LEN) + b"\x05" + bytes(30))
    assert tun.drops == {IoDrop.TUN_REFUSED: 1}
    # What may hold several packets is not lost yet: they can be written one by one.
    with pytest.raises(TunMergeRefused):
        tun.write(HEADER.pack(1, 77, 0, 0, 0, 0))
    assert tun.drops == {IoDrop.TUN_REFUSED: 1}


def test_deletion_wakes_the_reader_and_is_said_by_everything(
    open_tun: OpenTun, netns: Namespace
) -> None:
    tun = open_tun()
    ended: list[bool] = []

    async def main() -> None:
        async def read() -> None:
            try:
                while True:
                    await tun.wait_readable()
                    read_nothing(tun)
            except TunDeleted:
                ended.append(True)

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await trio.sleep(0.05)
                await trio.to_thread.run_sync(netns.ip, "link", "delete", "tio0")

    trio.run(main)
    assert ended
    with pytest.raises(TunDeleted):
        tun.write(bytes(40))
    with pytest.raises(TunDeleted):
        tun.link()
    with pytest.raises(TunDeleted):
        _ = tun.name


def test_a_name_that_is_taken_is_a_clear_error(open_tun: OpenTun) -> None:
    open_tun("tio0", up=False)
    with pytest.raises(TunError, match="tio0 already exists"):
        open_tun("tio0", up=False)
    with pytest.raises(TunError, match="lo already exists"):
        open_tun("lo", up=False)


@pytest.mark.parametrize("name", ["", "x" * 16, "a/b", "a b"])
def test_a_name_that_is_none_is_a_clear_error(name: str, open_tun: OpenTun) -> None:
    with pytest.raises(TunError, match="1 to 15 bytes"):
        open_tun(name, up=False)


def test_an_mtu_out_of_range_leaves_nothing_behind(open_tun: OpenTun, netns: Namespace) -> None:
    with pytest.raises(TunError, match="MTU of tio0 to 99999999"):
        open_tun(up=False, mtu=99_999_999)
    assert "tio0" not in netns.ip("link")


def test_rename_and_move_are_followed(
    open_tun: OpenTun, netns: Namespace, other_netns: Namespace
) -> None:
    tun = open_tun("tio%d")
    netns.ip("link", "set", "tio0", "down")
    netns.ip("link", "set", "tio0", "name", "renamed")
    assert tun.name == "renamed"
    netns.ip("link", "set", "renamed", "netns", other_netns.name)
    other_netns.ip("link", "set", "renamed", "mtu", "34736", "up")
    link = tun.link()
    assert (link.name, link.mtu, link.up, link.here) == ("renamed", 34736, True, False)
    assert f"{link.ifindex}: renamed" in other_netns.ip("link", "show", "renamed")
    other_netns.ip("address", "add", "10.9.0.1/24", "dev", "renamed")
    ping = other_netns.popen("ping", "-c", "1", "-w", "1", "10.9.0.2")
    assert read_until(tun, is_ipv4(1))
    ping.wait()


def test_adopting_a_descriptor(netns: Namespace) -> None:
    flags = kernel.IFF_TUN | kernel.IFF_NO_PI | kernel.IFF_VNET_HDR
    with netns.entered():
        device = TunTapDevice("tioadopt", flags=flags)
    with Tun.adopt(os.dup(device.fileno())) as tun:
        device.close()
        assert tun.name == "tioadopt"
        assert tun.vnet_hdr
        assert tun.offloads & TunOffload.TSO4
    assert "tioadopt" not in netns.ip("link")


def test_adopting_one_without_the_header_supplies_it(netns: Namespace) -> None:
    with netns.entered():
        device = TunTapDevice("tioadopt", flags=kernel.IFF_TUN | kernel.IFF_NO_PI)
    with Tun.adopt(os.dup(device.fileno())) as tun:
        device.close()
        assert not tun.vnet_hdr
        assert tun.offloads == TunOffload.NONE
        netns.ip("address", "add", "10.9.0.1/24", "dev", "tioadopt")
        netns.ip("link", "set", "tioadopt", "up")
        ping = netns.popen("ping", "-c", "1", "-w", "1", "10.9.0.2")
        frame = read_until(tun, is_ipv4(1))
        ping.wait()
        assert frame[:VNET_HDR_LEN] == bytes(VNET_HDR_LEN)
        assert tun.write(bytes(VNET_HDR_LEN) + ipv4(1, bytes(8), PEER, OURS))
        with pytest.raises(TunWriteDropped):
            tun.write(HEADER.pack(NEEDS_CSUM, 0, 0, 0, 20, 6) + ipv4(17, bytes(8), PEER, OURS))


def test_what_cannot_be_adopted_stays_the_callers() -> None:
    for path in ("/dev/net/tun", "/dev/null"):
        descriptor = os.open(path, os.O_RDWR)
        with pytest.raises(TunError, match="TUNSETIFF"):
            Tun.adopt(descriptor)
        os.close(descriptor)


def test_protocol_information_is_refused(netns: Namespace) -> None:
    program = (
        "from pytun_pmd3 import TunTapDevice; from tunnel.io.tun import Tun; "
        "device = TunTapDevice('tiopi', flags=1); Tun.adopt(device.fileno())"
    )
    # Only `ip netns exec` mounts the sysfs that shows the namespace's devices.
    done = netns.run(sys.executable, "-c", program)
    assert "open it with IFF_NO_PI" in done.stderr


def test_tap_carries_ethernet_frames(open_tun: OpenTun, netns: Namespace) -> None:
    tap = open_tun("tiotap", mac=bytes([2, 0, 0, 0, 0, 9]))
    assert tap.tap
    ping = netns.popen("ping", "-c", "1", "-w", "1", "10.9.0.2")
    arp = read_until(tap, lambda frame: frame[22:24] == b"\x08\x06")
    ping.wait()
    assert arp[10:16] == b"\xff" * 6
    assert arp[16:22] == bytes([2, 0, 0, 0, 0, 9])
    netns.ip("link", "delete", "tiotap")
    tap.renew("tiotap", 1400, f"/run/netns/{netns.name}")
    assert "link/ether 02:00:00:00:00:09" in netns.ip("link", "show", "tiotap")


def test_close_is_idempotent_and_takes_the_device_along(
    open_tun: OpenTun, netns: Namespace
) -> None:
    tun = open_tun()
    tun.close()
    tun.close()
    assert tun.fileno() == -1
    assert "tio0" not in netns.ip("link")


def test_too_small_a_buffer_is_a_mistake_of_the_caller(open_tun: OpenTun) -> None:
    tun = open_tun(up=False)
    with pytest.raises(ValueError, match="room for"):
        tun.read(bytearray(READ_SIZE), 1)


@pytest.mark.parametrize("mac", [None, bytes([2, 0, 0, 0, 0, 1])])
def test_a_burst_waits_until_it_is_read(
    open_tun: OpenTun, netns: Namespace, mac: bytes | None
) -> None:
    tun = open_tun(mac=mac)
    netns.ip("neighbour", "replace", "10.9.0.2", "lladdr", "02:00:00:00:00:02", "dev", tun.name)
    sent = 2500  # five times what the kernel's own length has room for
    with netns.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(sent):
            sender.sendto(b"x", ("10.9.0.2", 9))
    buffer, found = bytearray(READ_SIZE), 0
    while length := tun.read(buffer):
        found += buffer[length - 1] == ord("x")
    assert found == sent


def test_a_queue_length_of_the_user_stays(open_tun: OpenTun, netns: Namespace) -> None:
    tun = open_tun()
    assert netns.ip("link", "show", tun.name).split("qlen")[1].split()[0] == str(QUEUE_LENGTH)
    netns.ip("link", "set", tun.name, "txqueuelen", "77")
    with netns.entered():
        link.set_mtu(tun.fileno(), 1300)
    assert "qlen 77" in netns.ip("link", "show", tun.name)
