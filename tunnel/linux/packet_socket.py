"""Packets as they cross an interface, read from a packet socket (packet(7)).

It sees what the kernel hands to or takes from a device: a batch of a segmentation offload is one
packet, and no firewall has yet decided on what comes in.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from tunnel.linux import bpf, kernel

_TIMESPEC = struct.Struct("=qq")
_AUXDATA = struct.Struct("=I12xHH")
"""Of struct tpacket_auxdata: status, VLAN tag, and the type of the tag."""
_MACS = 12
_UDP = 17
_ROOM = 0x4_0000
_RECEIVE_BUFFER = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SeenPacket:
    """A packet from its IP header on, or an Ethernet frame. `device` is empty if the interface has
    just gone.

    `time_ns` is the kernel's time stamp, Unix time in nanoseconds.
    """

    time_ns: int
    outgoing: bool
    device: str
    packet: bytes


class PacketSocket:
    """A packet socket that does not block; use as a context manager."""

    def __init__(
        self,
        interface: str,
        program: Sequence[bpf.Instruction] = (),
        *,
        ethernet: bool = False,
    ) -> None:
        """All IP packets of `interface`, or of every interface if it is empty, that `program`
        accepts. With `ethernet`, all frames of an interface that has Ethernet.

        Raises PermissionError without CAP_NET_RAW, and OSError if there is no such interface.
        """
        # SOCK_DGRAM leaves the link layer off: a TUN has none, other devices have Ethernet.
        self.socket = socket.socket(
            socket.AF_PACKET,
            (socket.SOCK_RAW if ethernet else socket.SOCK_DGRAM) | socket.SOCK_NONBLOCK,
            0 if interface else socket.htons(kernel.ETH_P_ALL),
        )
        self._received = self._dropped = 0
        self._ethernet = ethernet
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, kernel.SO_TIMESTAMPNS, 1)
            if ethernet:
                self.socket.setsockopt(kernel.SOL_PACKET, kernel.PACKET_AUXDATA, 1)
            with contextlib.suppress(PermissionError):  # root of a user namespace may not
                self.socket.setsockopt(socket.SOL_SOCKET, kernel.SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            if not interface:
                self._forget_unfiltered()
            if program:
                bpf.attach(self.socket, program)
            if interface:
                self.socket.bind((interface, kernel.ETH_P_ALL))
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def read(self) -> SeenPacket | None:
        """The next packet; None if there is none now. Raises OSError when the device has gone."""
        while True:
            try:
                data, messages, _, address = self.socket.recvmsg(_ROOM, 128)
            except BlockingIOError:
                return None
            if not self._ethernet and (not data or data[0] >> 4 not in (4, 6)):
                continue  # not IP: ARP and the like
            seconds = nanoseconds = 0
            for level, kind, content in messages:
                if level != kernel.SOL_PACKET:
                    seconds, nanoseconds = _TIMESPEC.unpack_from(content)
                elif kind == kernel.PACKET_AUXDATA:
                    data = _with_tag(data, *_AUXDATA.unpack_from(content))
            outgoing = address[2] == kernel.PACKET_OUTGOING
            return SeenPacket(seconds * 1_000_000_000 + nanoseconds, outgoing, address[0], data)

    def _forget_unfiltered(self) -> None:
        """Drop what came since the socket was made, as it had no filter then."""
        bpf.attach(self.socket, [(bpf.RET, 0, 0, 0)])
        while self.read() is not None:
            pass
        self.socket.getsockopt(kernel.SOL_PACKET, kernel.PACKET_STATISTICS, 8)

    def statistics(self) -> tuple[int, int]:
        """Packets seen, and those of them lost because they were not read in time."""
        data = self.socket.getsockopt(kernel.SOL_PACKET, kernel.PACKET_STATISTICS, 8)
        received, dropped = struct.unpack("=II", data)  # since the previous call
        self._received += received
        self._dropped += dropped
        return self._received, self._dropped


def _with_tag(frame: bytes, status: int, tag: int, kind: int) -> bytes:
    """The frame with its VLAN tag, which the kernel keeps beside it."""
    if not status & kernel.TP_STATUS_VLAN_VALID:
        return frame
    return frame[:_MACS] + kind.to_bytes(2, "big") + tag.to_bytes(2, "big") + frame[_MACS:]


def tunnel_datagrams(port: int) -> list[bpf.Instruction]:
    """A filter for UDP that leaves from our `port` or comes to it, IPv4 and IPv6, first fragments.

    The offsets are from the IP header on.
    """
    return [
        (bpf.LD_W, 0, 0, bpf.PACKET_TYPE),
        (bpf.JEQ, 0, 1, kernel.PACKET_OTHERHOST),
        (bpf.RET, 0, 0, 0),
        (bpf.JEQ, 17, 0, kernel.PACKET_OUTGOING),
        *_udp_with_port(port, 2),
        *_udp_with_port(port, 0),
    ]


def _udp_with_port(port: int, offset: int) -> list[bpf.Instruction]:
    """17 instructions that end the program: `port` stands at `offset` in the UDP header."""
    return [
        (bpf.LD_B, 0, 0, 0),
        (bpf.AND, 0, 0, 0xF0),
        (bpf.JEQ, 0, 7, 0x40),
        (bpf.LD_B, 0, 0, 9),
        (bpf.JEQ, 0, 11, _UDP),
        (bpf.LD_H, 0, 0, 6),
        (bpf.JSET, 9, 0, 0x1FFF),  # a later fragment has no ports
        (bpf.LDX_MSH, 0, 0, 0),
        (bpf.LD_H_IND, 0, 0, offset),
        (bpf.JEQ, 5, 6, port),
        (bpf.JEQ, 0, 5, 0x60),
        (bpf.LD_B, 0, 0, 6),
        (bpf.JEQ, 0, 3, _UDP),
        (bpf.LD_H, 0, 0, 40 + offset),
        (bpf.JEQ, 0, 1, port),
        (bpf.RET, 0, 0, _ROOM),
        (bpf.RET, 0, 0, 0),
    ]
