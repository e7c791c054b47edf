"""What the kernel may refuse, from a socket that refuses on demand."""

import errno
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tunnel.io.drops import IoDrop
from tunnel.io.endpoint import Endpoint, Source
from tunnel.io.udp_socket import SENT, Sent, UdpSocket
from tunnel.linux import kernel

HERE = bytes([127, 0, 0, 1])
Refusal = Callable[[bytes, bool, bool], int | None]
"""(data, is it a batch, has it a source) → errno, or None to let it pass."""


class Refusing(socket.socket):
    """A real UDP socket that keeps what it was given and refuses what the test says."""

    refusal: Refusal
    passed: list[bytes]
    calls: int

    def sendmsg(self, *args: object) -> int:
        buffers, control = args[0], args[1]
        assert isinstance(buffers, tuple)
        assert isinstance(control, tuple)
        data = bytes(buffers[0])
        kinds = {message[:2] for message in control}
        segment = (kernel.SOL_UDP, kernel.UDP_SEGMENT) in kinds
        source = (socket.IPPROTO_IP, kernel.IP_PKTINFO) in kinds
        self.calls += 1
        number = self.refusal(data, segment, source)
        if number is not None:
            raise OSError(number, os.strerror(number))
        self.passed.append(data)
        return len(data)


class Rig:
    def __init__(self, gso: bool = True) -> None:
        self.sock = Refusing(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.sock.passed, self.sock.calls = [], 0
        self.sock.bind(("127.0.0.1", 0))
        self.drops: Counter[IoDrop] = Counter()
        self.udp = UdpSocket(self.sock, self.drops, gso=gso)

    def send(self, size: int, refusal: Refusal, *, source: bool = False, stride: int = 100) -> Sent:
        self.sock.refusal = refusal
        self.sock.passed.clear()
        self.sock.calls = 0
        at = Endpoint(HERE, 9, source=Source(HERE, 1) if source else None)
        return self.udp.send(bytes(size), stride, at)

    @property
    def sizes(self) -> list[int]:
        return [len(data) for data in self.sock.passed]


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    if not made.udp.gso:
        pytest.skip("this kernel has no UDP_SEGMENT")
    yield made
    made.sock.close()


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EPERM, IoDrop.SEND_FIREWALL),
        (errno.ENETUNREACH, IoDrop.SEND_NETWORK_UNREACHABLE),
        (errno.EHOSTUNREACH, IoDrop.SEND_HOST_UNREACHABLE),
        (errno.EACCES, IoDrop.SEND_PROHIBITED),
        (errno.EINVAL, IoDrop.SEND_INVALID),
        (errno.ENOBUFS, IoDrop.SEND_NO_BUFFERS),
        (errno.ECONNREFUSED, IoDrop.SEND_REFUSED),
        (errno.EMSGSIZE, IoDrop.SEND_TOO_BIG),
        (errno.EADDRNOTAVAIL, IoDrop.SEND_NO_ADDRESS),
        (errno.EAFNOSUPPORT, IoDrop.SEND_NO_FAMILY),
        (errno.EXDEV, IoDrop.SEND_ERROR),
    ],
)
@pytest.mark.parametrize("source", [False, True])
@pytest.mark.parametrize("size", [100, 350])
def test_every_refusal_is_a_named_drop(
    rig: Rig, number: int, reason: IoDrop, source: bool, size: int
) -> None:
    sent = rig.send(size, lambda *_: number, source=source)
    datagrams = -(-size // 100)
    assert sent == Sent(drop=reason, dropped=datagrams)
    assert rig.drops == {reason: datagrams}
    assert rig.udp.gso


def test_refused_batch_of_one_large_datagram_and_a_tail_loses_neither(rig: Rig) -> None:
    """Of datagrams this long only one fits a batch, but a shorter one may follow it."""
    refusal: Refusal = lambda _, batch, __: errno.EMSGSIZE if batch else None  # noqa: E731
    assert rig.send(34_896, refusal, stride=34_768) is SENT
    assert rig.sizes == [34_768, 128]
    assert not rig.drops


def test_eio_falls_back_for_good_without_loss_and_says_so_once(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tunnel.io"):
        for calls in (5, 4):
            sent = rig.send(350, lambda _, batch, __: errno.EIO if batch else None)
            assert sent is SENT
            assert rig.sizes == [100, 100, 100, 50]
            assert rig.sock.calls == calls
    assert not rig.udp.gso
    assert len(caplog.records) == 1


def test_a_path_with_a_small_mtu_pauses_batches_to_that_address_only(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    def too_big(_: bytes, batch: bool, __: bool) -> int | None:
        return errno.EINVAL if batch else None

    with caplog.at_level(logging.INFO, "tunnel.io"):
        assert rig.send(350, too_big, source=True) is SENT
        assert rig.sizes == [100, 100, 100, 50]
        assert rig.send(350, too_big, source=True) is SENT
        assert rig.sock.calls == 4
    assert rig.udp.gso
    assert len(caplog.records) == 1
    rig.sock.calls = 0
    assert rig.udp.send(bytes(300), 100, Endpoint(HERE, 10)).drop is None
    assert rig.sock.calls > 1  # another port, refused as well, gets its own try
    rig.sock.calls = 0
    rig.sock.refusal = lambda *_: None
    assert rig.udp.send(bytes(90), 30, Endpoint(HERE, 9)) is SENT
    assert rig.sock.calls == 1  # smaller ones may still fit


def test_batches_are_tried_again_after_the_pause(rig: Rig) -> None:
    rig.send(200, lambda _, batch, __: errno.EMSGSIZE if batch else None)
    for _ in range(256):
        assert rig.send(200, lambda *_: None) is SENT
        assert rig.sizes == [100, 100]
    rig.send(200, lambda *_: None)
    assert rig.sizes == [200]


def test_einval_for_the_source_keeps_the_batch(rig: Rig) -> None:
    sent = rig.send(350, lambda _, __, source: errno.EINVAL if source else None, source=True)
    assert sent == Sent(endpoint=Endpoint(HERE, 9))
    assert rig.sizes == [350]
    assert rig.udp.gso
    assert not rig.udp._gso_pause


def test_both_refused(rig: Rig) -> None:
    def refusal(_: bytes, batch: bool, source: bool) -> int | None:
        return errno.EINVAL if batch or source else None

    sent = rig.send(350, refusal, source=True)
    assert sent == Sent(endpoint=Endpoint(HERE, 9))
    assert rig.sizes == [100, 100, 100, 50]


def test_a_source_is_kept_when_nothing_goes_without_it_either(rig: Rig) -> None:
    sent = rig.send(100, lambda *_: errno.ENETUNREACH, source=True)
    assert sent.endpoint is None
    assert rig.sock.calls == 2


def test_a_pending_error_of_an_earlier_datagram_costs_nothing(rig: Rig) -> None:
    errors = [errno.ECONNREFUSED]
    assert rig.send(350, lambda *_: errors.pop() if errors else None) is SENT
    assert rig.sizes == [350]


def test_a_full_socket_gives_back_the_rest(rig: Rig) -> None:
    assert rig.send(350, lambda *_: errno.EAGAIN) == Sent(rest=350)
    rig.udp.gso = False
    assert rig.send(350, lambda *_: errno.EAGAIN if rig.sizes else None) == Sent(rest=250)
    assert not rig.drops


def test_one_lost_datagram_does_not_take_the_others_along(rig: Rig) -> None:
    rig.udp.gso = False
    sent = rig.send(350, lambda *_: errno.EPERM if rig.sock.calls == 2 else None)
    assert sent == Sent(drop=IoDrop.SEND_FIREWALL, dropped=1)
    assert rig.sizes == [100, 100, 50]


def test_a_blackhole_route_is_not_asked_for_every_datagram(rig: Rig) -> None:
    assert rig.send(6400, lambda *_: errno.EINVAL).dropped == 64
    assert rig.sock.calls < 5


def test_a_closed_socket_is_no_drop(rig: Rig) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        rig.send(100, lambda *_: errno.EBADF)


class Reporting(socket.socket):
    """A UDP socket whose receives end as the test says."""

    outcomes: list[tuple[int, list[tuple[int, int, bytes]], int, object] | int]

    def recvmsg_into(self, *_: object) -> tuple[int, list[tuple[int, int, bytes]], int, object]:
        if not self.outcomes:
            raise BlockingIOError(errno.EAGAIN, "again")
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, int):
            raise OSError(outcome, os.strerror(outcome))
        return outcome


@pytest.fixture
def reporting() -> Iterator[Reporting]:
    with Reporting(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def test_unusable_datagrams_are_counted_and_skipped(reporting: Reporting) -> None:
    drops: Counter[IoDrop] = Counter()
    udp = UdpSocket(reporting, drops)
    reporting.outcomes = [
        errno.ECONNREFUSED,
        (65_536, [], socket.MSG_TRUNC, ("127.0.0.1", 9)),
        (100, [], socket.MSG_CTRUNC, ("127.0.0.1", 9)),
        (100, [], 0, ("127.0.0.1", 0)),
        (0, [], 0, ("127.0.0.1", 9)),
        (100, [], 0, ("127.0.0.1", 9)),
    ]
    received = udp.receive(bytearray(65_536))
    assert received is not None
    assert received.origin.endpoint == Endpoint(HERE, 9)
    assert (received.length, received.stride) == (100, 100)
    assert drops == {
        IoDrop.RECEIVE_ERROR: 1,
        IoDrop.RECEIVE_TRUNCATED: 1,
        IoDrop.RECEIVE_CONTROL_TRUNCATED: 1,
        IoDrop.RECEIVE_NO_PORT: 1,
        IoDrop.RECEIVE_EMPTY: 1,
    }
    assert udp.receive(bytearray(65_536)) is None


def test_one_call_skips_a_bounded_number(reporting: Reporting) -> None:
    udp = UdpSocket(reporting, Counter())
    reporting.outcomes = [(0, [], 0, ("127.0.0.1", 9))] * 1000
    assert udp.receive(bytearray(65_536)) is None
    assert len(reporting.outcomes) > 900


def test_a_broken_socket_is_an_error(reporting: Reporting) -> None:
    udp = UdpSocket(reporting, Counter())
    reporting.outcomes = [errno.EBADF]
    with pytest.raises(OSError, match="Bad file descriptor"):
        udp.receive(bytearray(65_536))


def test_forged_sources_do_not_fill_the_memory(reporting: Reporting) -> None:
    udp = UdpSocket(reporting, Counter())
    buffer = bytearray(65_536)
    for n in range(10_000):
        reporting.outcomes = [(10, [], 0, (f"10.1.{n >> 8}.{n & 255}", 9))]
        assert udp.receive(buffer) is not None
    assert len(udp._known) <= 4096
    assert len(udp._endpoints) <= 4096
