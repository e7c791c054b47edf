"""Ends of a tunnel that are a pump and no more: sockets on loopback, a pair of them as its TUN."""

from __future__ import annotations

import contextlib
import socket

from tunnel import datapath
from tunnel.datapath import OPEN_OUT_SIZE, Offload, Session
from tunnel.datapath.pump import ARENA_SIZE, Incoming, Outgoing, Pump

MTU, BUDGET = 1420, 1 << 19
A, B = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
LOOPBACK = socket.inet_aton("127.0.0.1")
PEER = 7


def frame(source: bytes, destination: bytes, payload: bytes = b"x" * 60) -> bytes:
    """An IPv4 packet of protocol 99 behind a virtio header."""
    length = (20 + len(payload)).to_bytes(2, "big")
    header = bytes([0x45, 0]) + length + bytes(4) + bytes([64, 99, 0, 0])
    return bytes(10) + header + source + destination + payload


class End:
    """One end of a tunnel: a pump, the other side of its TUN, and its socket."""

    def __init__(self, local: int, remote: int, keys: tuple[bytes, bytes]) -> None:
        path = datapath.load("native")
        assert path.pump is not None
        self.pump: Pump = path.pump()
        self.kernel, self.tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.udp = udp_socket()
        for one in (self.kernel, self.tun):
            one.setblocking(False)
        self.session: Session = path.session(*keys, local, remote)
        self.arena = bytearray(ARENA_SIZE)
        self.buffer = bytearray(1 << 16)
        self.out = bytearray(OPEN_OUT_SIZE)
        self.pump.set_descriptors(self.tun.fileno(), self.udp.fileno(), -1)
        self.pump.set_indices(PEER, [local])

    @property
    def port(self) -> int:
        return int(self.udp.getsockname()[1])

    def teach(self, own: bytes, theirs: bytes, port: int, until: float = 10.0) -> None:
        """All that is needed to talk to the other end, whose inner address is `theirs`."""
        self.pump.teach_address(theirs, PEER)
        self.pump.teach_way(PEER, self.session, LOOPBACK, port, 0, None, True, until)
        source = (LOOPBACK, 0)
        self.pump.teach_receiver(PEER, self.session, LOOPBACK, port, 0, source, until)

    def send(self, now: float = 1.0, most: int = 64, budget: int = BUDGET) -> Outgoing:
        return self.pump.send(now, MTU, most, budget, self.arena)

    def receive(
        self, now: float = 1.0, *, unanswered: bool | tuple[bytes, int] = False, **flags: bool
    ) -> Incoming:
        asked = {
            "lone": False,
            "look": True,
            "may_answer": True,
            "show_forged": False,
            "gather": False,
            **flags,
        }
        return self.pump.receive(
            False,
            now,
            MTU,
            BUDGET,
            Offload.TCP4 | Offload.UDP4,
            asked["lone"],
            asked["look"],
            asked["may_answer"],
            asked["show_forged"],
            unanswered,
            asked["gather"],
            self.buffer,
            self.out,
            self.arena,
        )

    def left(self, sent: Outgoing) -> list[bytes]:
        return [bytes(self.arena[start:end]) for start, end in sent.left]

    def delivered(self) -> list[bytes]:
        """The frames that were written to the TUN."""
        frames = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frames.append(self.kernel.recv(1 << 17))
        return frames

    def close(self) -> None:
        for one in (self.kernel, self.tun, self.udp):
            one.close()


def udp_socket() -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    udp.setblocking(False)
    udp.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
    return udp
