"""Both families on loopback; nothing here needs privileges."""

import errno
import socket

import pytest
import trio
import trio.testing

from tests.support.sockets import OpenUdp, Receive, in_trio
from tunnel.io.drops import IoDrop
from tunnel.io.endpoint import Endpoint, Source
from tunnel.io.errors import UdpError
from tunnel.io.udp import Udp
from tunnel.io.udp_socket import MAX_BATCH, SENT, Origin
from tunnel.linux import kernel


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback")
both_families = pytest.mark.parametrize(
    "host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)]
)


def endpoint_of(host: str, udp: Udp) -> Endpoint:
    return Endpoint.from_sockaddr((host, udp.port))


@needs_ipv6
def test_random_port_is_the_same_in_both_families(open_udp: OpenUdp) -> None:
    udp = open_udp()
    assert udp.port
    assert udp.families == (socket.AF_INET, socket.AF_INET6)
    assert {sock.sock.getsockname()[1] for sock in udp._sockets.values()} == {udp.port}


@both_families
def test_a_batch_crosses(host: str, open_udp: OpenUdp, receive: Receive) -> None:
    a, b = open_udp(), open_udp()
    batch = bytes(range(256)) * 40
    to_b = endpoint_of(host, b)
    assert a.send(batch, 1000, to_b) is SENT
    arrived = b""
    while len(arrived) < len(batch):
        received, data = receive(b, to_b.family)
        assert received.stride == min(1000, received.length)
        arrived += data
    assert arrived == batch
    assert received.origin.endpoint.same_remote(endpoint_of(host, a))
    assert received.origin.endpoint.source is not None
    assert received.origin.endpoint.source.address == to_b.address


@both_families
def test_without_offloads_the_same_datagrams_arrive(
    host: str, open_udp: OpenUdp, receive: Receive
) -> None:
    a, b = open_udp(gso=False), open_udp(gro=False)
    assert not a.gso
    assert not b.gro
    batch = bytes(range(250)) * 10
    to_b = endpoint_of(host, b)
    assert a.send(batch, 1000, to_b) is SENT
    parts = [receive(b, to_b.family) for _ in range(3)]
    assert [received.length for received, _ in parts] == [1000, 1000, 500]
    assert b"".join(data for _, data in parts) == batch


@both_families
def test_more_than_one_call_takes_is_cut_into_batches(
    host: str, open_udp: OpenUdp, receive: Receive
) -> None:
    a, b = open_udp(), open_udp()
    to_b = endpoint_of(host, b)
    for batch, stride in ((bytes(150 * 16), 16), (bytes(MAX_BATCH + 1500), 1500)):
        assert a.send(batch, stride, to_b) is SENT
        arrived = 0
        while arrived < len(batch):
            arrived += receive(b, to_b.family)[0].length
        assert arrived == len(batch)


@both_families
@pytest.mark.parametrize("tos", [0, 1, 2, 3, 0x88, 0x8A])
def test_tos_and_ecn(host: str, tos: int, open_udp: OpenUdp, receive: Receive) -> None:
    a, b = open_udp(), open_udp()
    to_b = endpoint_of(host, b)
    assert a.send(b"x", 1, to_b, tos) is SENT
    received, _ = receive(b, to_b.family)
    assert received.ecn == tos & 3


@both_families
def test_one_peer_is_one_endpoint_object(host: str, open_udp: OpenUdp, receive: Receive) -> None:
    a, b = open_udp(), open_udp()
    to_b = endpoint_of(host, b)
    seen = set()
    for batch in (b"1", b"22", bytes(3000), bytes(3000)):
        a.send(batch, 1000, to_b, len(batch) & 3)
        seen.add(id(receive(b, to_b.family)[0].origin.learn()))
    assert len(seen) == 1


def test_a_source_leaves_nothing_behind_unless_it_is_learned(
    open_udp: OpenUdp, receive: Receive
) -> None:
    """A flood from forged addresses must not cost an endpoint and a place in a cache for each."""
    a, b = open_udp(ipv6=False), open_udp(ipv6=False)
    to_b = endpoint_of("127.0.0.1", b)

    def origin() -> Origin:
        a.send(b"x", 1, to_b)
        return receive(b, socket.AF_INET)[0].origin

    first, second = origin(), origin()
    assert first.endpoint == second.endpoint
    assert first.endpoint is not second.endpoint
    kept = first.learn()
    assert origin().endpoint is kept
    assert second.learn() is kept


def test_a_reply_leaves_from_the_address_that_was_reached(
    open_udp: OpenUdp, receive: Receive
) -> None:
    a, b = open_udp(ipv6=False), open_udp(ipv6=False)
    a.send(b"hello", 5, endpoint_of("127.0.0.3", b))
    received, _ = receive(b, socket.AF_INET)
    assert received.origin.endpoint.source == Source(bytes([127, 0, 0, 3]), 0)
    assert b.send(b"reply", 5, received.origin.endpoint) is SENT
    reply, _ = receive(a, socket.AF_INET)
    assert str(reply.origin.endpoint) == f"127.0.0.3:{b.port}"


def test_no_source_is_learnt_while_it_is_left_open(open_udp: OpenUdp, receive: Receive) -> None:
    a, b = open_udp(ipv6=False), open_udp(ipv6=False)
    there = endpoint_of("127.0.0.3", b)

    def source_of(target: Endpoint) -> Source | None:
        a.send(b"x", 1, target)
        return receive(b, socket.AF_INET)[0].origin.learn().source

    assert source_of(there) is not None
    b.leave_source_open(frozenset({(bytes([127, 0, 0, 1]), bytes([127, 0, 0, 3]))}))
    assert source_of(there) is None
    assert source_of(endpoint_of("127.0.0.4", b)) == Source(bytes([127, 0, 0, 4]), 0)
    # New sockets go on with it.
    b.set_port(0)
    assert source_of(endpoint_of("127.0.0.3", b)) is None
    b.leave_source_open(frozenset())
    assert source_of(endpoint_of("127.0.0.3", b)) == Source(bytes([127, 0, 0, 3]), 0)


@both_families
@pytest.mark.parametrize("size", [100, 5000])
def test_a_source_that_is_gone_is_given_up_in_the_same_call(
    host: str, size: int, open_udp: OpenUdp, receive: Receive
) -> None:
    a, b = open_udp(), open_udp()
    plain = endpoint_of(host, b)
    gone = bytes([192, 0, 2, 9]) if len(plain.address) == 4 else b"\x20\x01\x0d\xb8" + bytes(12)
    sticky = Endpoint(plain.address, plain.port, source=Source(gone, 1))
    sent = a.send(bytes(size), 1000, sticky)
    assert sent.endpoint == plain
    assert (sent.rest, sent.drop, sent.dropped) == (0, None, 0)
    arrived = 0
    while arrived < size:
        arrived += receive(b, plain.family)[0].length
    assert arrived == size
    assert not a.drops


@needs_ipv6
def test_an_interface_that_is_gone_is_given_up(open_udp: OpenUdp, receive: Receive) -> None:
    a, b = open_udp(), open_udp()
    plain = endpoint_of("::1", b)
    sticky = Endpoint(plain.address, plain.port, source=Source(plain.address, 0x7FFF_0000))
    assert a.send(b"x", 1, sticky).endpoint == plain
    receive(b, plain.family)


def test_a_family_without_socket_is_a_counted_drop(open_udp: OpenUdp) -> None:
    udp = open_udp(ipv6=False)
    assert udp.families == (socket.AF_INET,)
    sent = udp.send(bytes(250), 100, Endpoint(bytes(15) + b"\1", 9))
    assert (sent.drop, sent.dropped, sent.rest) == (IoDrop.SEND_NO_FAMILY, 3, 0)
    assert udp.drops == {IoDrop.SEND_NO_FAMILY: 3}


@needs_ipv6
def test_ipv6_alone(open_udp: OpenUdp) -> None:
    assert open_udp(ipv4=False).families == (socket.AF_INET6,)


def test_no_family_at_all_is_an_error() -> None:
    with pytest.raises(UdpError, match="no socket of the wanted address families"):
        Udp.open(ipv4=False, ipv6=False)


def test_a_machine_without_ipv6_goes_on_with_ipv4(
    monkeypatch: pytest.MonkeyPatch, open_udp: OpenUdp
) -> None:
    class NoIPv6(socket.socket):
        def __init__(self, family: int = -1, *args: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *args)

    monkeypatch.setattr("tunnel.io.udp.socket.socket", NoIPv6)
    assert open_udp().families == (socket.AF_INET,)


@needs_ipv6
def test_a_random_port_that_is_taken_in_ipv6_is_drawn_again(
    monkeypatch: pytest.MonkeyPatch, open_udp: OpenUdp
) -> None:
    refused: list[int] = []

    class TwiceTaken(socket.socket):
        def bind(self, address: object) -> None:
            if self.family == socket.AF_INET6 and len(refused) < 2:
                assert isinstance(address, tuple)
                refused.append(address[1])
                raise OSError(errno.EADDRINUSE, "Address already in use")
            super().bind(address)  # type: ignore[arg-type]

    monkeypatch.setattr("tunnel.io.udp.socket.socket", TwiceTaken)
    udp = open_udp()
    assert len(refused) == 2
    assert len(udp.families) == 2


@both_families
def test_a_taken_port_names_the_port(host: str, open_udp: OpenUdp) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as other:
        other.bind((host, 0))
        port = other.getsockname()[1]
        with pytest.raises(UdpError, match=f"UDP port {port} is taken") as info:
            open_udp(port)
    assert info.value.errno == errno.EADDRINUSE


def test_outer_packets_may_be_fragmented(open_udp: OpenUdp) -> None:
    for family, sock in open_udp()._sockets.items():
        level, option = (
            (socket.IPPROTO_IP, kernel.IP_MTU_DISCOVER)
            if family == socket.AF_INET
            else (socket.IPPROTO_IPV6, kernel.IPV6_MTU_DISCOVER)
        )
        assert sock.sock.getsockopt(level, option) == 0


@both_families
def test_empty_datagrams_and_port_zero_are_skipped_and_counted(
    host: str, open_udp: OpenUdp, receive: Receive
) -> None:
    udp, other = open_udp(), open_udp()
    to_udp = endpoint_of(host, udp)
    with socket.socket(to_udp.family, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", to_udp.sockaddr)
    other.send(b"x", 1, to_udp)
    assert receive(udp, to_udp.family)[1] == b"x"
    assert udp.drops == {IoDrop.RECEIVE_EMPTY: 1}


def test_too_small_a_buffer_is_a_mistake_of_the_caller(open_udp: OpenUdp) -> None:
    with pytest.raises(ValueError, match="room for 65536 bytes"):
        open_udp().receive(socket.AF_INET, bytearray(65_535))


@both_families
def test_a_datagram_too_big_for_udp_is_dropped(host: str, open_udp: OpenUdp) -> None:
    udp = open_udp()
    sent = udp.send(bytes(65_528), 65_528, endpoint_of(host, udp))
    assert (sent.drop, sent.dropped) == (IoDrop.SEND_TOO_BIG, 1)


def test_move_to_a_taken_port_changes_nothing(open_udp: OpenUdp, receive: Receive) -> None:
    a, b = open_udp(ipv6=False), open_udp(ipv6=False)
    before = a.port
    with pytest.raises(UdpError) as info:
        a.set_port(b.port)
    assert info.value.errno == errno.EADDRINUSE
    assert a.port == before
    b.send(b"still there", 11, endpoint_of("127.0.0.1", a))
    assert receive(a, socket.AF_INET)[1] == b"still there"


@in_trio
async def test_move_under_traffic_loses_nothing_that_had_arrived(open_udp: OpenUdp) -> None:
    a, b = open_udp(), open_udp()
    old = endpoint_of("127.0.0.1", a)
    buffer = bytearray(70_000)
    arrived: list[bytes] = []

    async def read() -> None:
        while len(arrived) < 2:
            await a.wait_readable(socket.AF_INET)
            while (received := a.receive(socket.AF_INET, buffer)) is not None:
                arrived.append(bytes(buffer[: received.length]))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            b.send(b"to the old port", 15, old)
            a.set_port(0)
            assert a.port != old.port
            b.send(b"to the new port", 15, endpoint_of("127.0.0.1", a))
    assert arrived == [b"to the old port", b"to the new port"]
    # The old port is free again, once what it had was read.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", old.port))


def test_move_there_and_back(open_udp: OpenUdp) -> None:
    udp = open_udp()
    first = udp.port
    udp.set_port(0)
    udp.set_port(first)
    assert udp.port == first
    udp.set_port(first)


@in_trio
async def test_close_ends_the_waiting(open_udp: OpenUdp) -> None:
    udp = open_udp(ipv6=False)
    ended = []

    async def wait(family: socket.AddressFamily) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await udp.wait_readable(family)
        ended.append(family)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, socket.AF_INET)
            nursery.start_soon(wait, socket.AF_INET6)
            await trio.testing.wait_all_tasks_blocked()
            udp.close()
    udp.close()
    assert sorted(ended) == [socket.AF_INET, socket.AF_INET6]
    with pytest.raises(trio.ClosedResourceError):
        udp.send(b"x", 1, Endpoint(bytes([127, 0, 0, 1]), 9))
    with pytest.raises(trio.ClosedResourceError):
        udp.receive(socket.AF_INET, bytearray(70_000))
    with pytest.raises(trio.ClosedResourceError):
        udp.set_port(0)


@in_trio
async def test_several_tasks_may_wait_to_write(open_udp: OpenUdp) -> None:
    udp = open_udp(ipv6=False)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(udp.wait_writable, socket.AF_INET)
        await udp.wait_writable(socket.AF_INET6)


def test_a_mark_out_of_range_is_refused(open_udp: OpenUdp) -> None:
    udp = open_udp()
    with pytest.raises(UdpError, match="32 bits"):
        udp.set_fwmark(1 << 32)
    assert udp.fwmark == 0


@both_families
def test_what_the_queue_has_no_room_for_is_counted(
    host: str, open_udp: OpenUdp, receive: Receive
) -> None:
    a, b = open_udp(gso=False), open_udp(gro=False)
    to_b = endpoint_of(host, b)
    b._sockets[to_b.family].sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    sent = 100
    for _ in range(sent):
        assert a.send(bytes(1000), 1000, to_b) is SENT
    lost = b.drops[IoDrop.RECEIVE_QUEUE_FULL]
    assert 0 < lost < sent
    for _ in range(sent - lost):
        receive(b, to_b.family)
    assert b.receive(to_b.family, bytearray(70_000)) is None
    # Still there after the socket is gone.
    b.set_port(0)
    assert b.receive(to_b.family, bytearray(70_000)) is None
    assert b.drops == {IoDrop.RECEIVE_QUEUE_FULL: lost}


def test_the_count_of_the_queue_goes_on_past_32_bits(
    open_udp: OpenUdp, monkeypatch: pytest.MonkeyPatch
) -> None:
    udp = open_udp(ipv6=False)
    (sock,) = udp._sockets.values()
    counts: list[int | None] = [5, 2**32 - 1, None, 3, 3, None]

    def memory() -> list[int] | None:
        count = counts.pop(0)
        return None if count is None else [count] * kernel.SK_MEMINFO_VARS

    monkeypatch.setattr(sock, "_memory", memory)
    seen = [udp.drops[IoDrop.RECEIVE_QUEUE_FULL] for _ in range(len(counts))]
    assert seen == [5, 2**32 - 1, 2**32 - 1, 2**32 + 3, 2**32 + 3, 2**32 + 3]
    monkeypatch.undo()
