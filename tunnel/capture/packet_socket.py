"""Packets as they cross an interface: packet sockets that see the inner or the outer side.

A tap sees what the kernel hands to or takes from a device, so batches of a segmentation offload
come as one packet, and firewalls have not yet ruled on what comes in. packet(7) has the details.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from dataclasses import dataclass
from typing import Final, Self

from tunnel.capture.pcapng import Direction

_ETH_P_ALL = 0x0003
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 26, 33, 35
_TIMESPEC = struct.Struct("=qq")
_PACKET_OTHERHOST, _PACKET_OUTGOING = 3, 4
_UDP = 17
_ROOM = 0x4_0000
_RECEIVE_BUFFER = 32 * 1024 * 1024

# Classic BPF, as linux/filter.h names it.
_LD_W, _LD_H, _LD_B, _LD_H_IND, _LDX_MSH = 0x20, 0x28, 0x30, 0x48, 0xB1
_AND, _JEQ, _JSET, _RET = 0x54, 0x15, 0x45, 0x06
_PACKET_TYPE: Final = 0xFFFF_F004
"""SKF_AD_OFF + SKF_AD_PKTTYPE: the way the packet goes."""

Instruction = tuple[int, int, int, int]
"""Code, instructions to skip if true, and if false, operand."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A packet from its IP header on, seen on `device`, a name that is empty if it has just gone.

    `time_ns` is Unix time in nanoseconds, kernel-stamped.
    """

    time_ns: int
    direction: Direction
    device: str
    packet: bytes


class Tap:
    """A packet socket; use as a context manager."""

    def __init__(self, interface: str, program: list[Instruction]) -> None:
        """All of `interface`, or of every one if it is empty, that `program` lets through.

        Raises PermissionError without CAP_NET_RAW, and OSError if there is no such interface.
        """
        # SOCK_DGRAM leaves the link layer off: a TUN has none, other devices have Ethernet.
        self.socket = socket.socket(
            socket.AF_PACKET,
            socket.SOCK_DGRAM | socket.SOCK_NONBLOCK,
            0 if interface else socket.htons(_ETH_P_ALL),
        )
        self._received = self._dropped = 0
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            if not interface:
                self._forget_unfiltered()
            if program:
                _attach(self.socket, program)
            if interface:
                self.socket.bind((interface, _ETH_P_ALL))
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def read(self) -> Seen | None:
        """The next packet; None if there is none now. Raises OSError when the device has gone."""
        while True:
            try:
                data, messages, _, address = self.socket.recvmsg(_ROOM, 64)
            except BlockingIOError:
                return None
            if not data or data[0] >> 4 not in (4, 6):
                continue  # not IP: ARP and the like
            seconds, nanoseconds = _TIMESPEC.unpack_from(messages[0][2])
            way = Direction.OUT if address[2] == _PACKET_OUTGOING else Direction.IN
            return Seen(seconds * 1_000_000_000 + nanoseconds, way, address[0], data)

    def _forget_unfiltered(self) -> None:
        """Drop what came since the socket was made, as it had no filter then."""
        _attach(self.socket, [(_RET, 0, 0, 0)])
        while self.read() is not None:
            pass
        self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)

    def statistics(self) -> tuple[int, int]:
        """Packets seen, and those of them lost because they were not read in time."""
        data = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        received, dropped = struct.unpack("=II", data)  # the kernel begins anew after each call
        self._received += received
        self._dropped += dropped
        return self._received, self._dropped


def tunnel_datagrams(port: int) -> list[Instruction]:
    """A filter for UDP that leaves from our `port` or comes to it, IPv4 and IPv6, first fragments.

    The offsets are from the IP header on.
    """
    return [
        (_LD_W, 0, 0, _PACKET_TYPE),
        (_JEQ, 0, 1, _PACKET_OTHERHOST),
        (_RET, 0, 0, 0),
        (_JEQ, 17, 0, _PACKET_OUTGOING),
        *_udp_with_port(port, 2),
        *_udp_with_port(port, 0),
    ]


def _udp_with_port(port: int, offset: int) -> list[Instruction]:
    """17 instructions that end the program: `port` stands at `offset` in the UDP header."""
    return [
        (_LD_B, 0, 0, 0),
        (_AND, 0, 0, 0xF0),
        (_JEQ, 0, 7, 0x40),
        (_LD_B, 0, 0, 9),
        (_JEQ, 0, 11, _UDP),
        (_LD_H, 0, 0, 6),
        (_JSET, 9, 0, 0x1FFF),  # a later fragment has no ports
        (_LDX_MSH, 0, 0, 0),
        (_LD_H_IND, 0, 0, offset),
        (_JEQ, 5, 6, port),
        (_JEQ, 0, 5, 0x60),
        (_LD_B, 0, 0, 6),
        (_JEQ, 0, 3, _UDP),
        (_LD_H, 0, 0, 40 + offset),
        (_JEQ, 0, 1, port),
        (_RET, 0, 0, _ROOM),
        (_RET, 0, 0, 0),
    ]


def _attach(tap: socket.socket, program: list[Instruction]) -> None:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the length, and a pointer behind its padding.
    tap.setsockopt(
        socket.SOL_SOCKET,
        _SO_ATTACH_FILTER,
        struct.pack("@HP", len(program), ctypes.addressof(buffer)),
    )
