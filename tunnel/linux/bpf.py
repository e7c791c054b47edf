"""Filters of sockets: classic BPF, as linux/filter.h names it. They need no privilege."""

import ctypes
import socket
import struct
from collections.abc import Sequence

from tunnel.linux import kernel

LD_W, LD_H, LD_B, LD_H_IND, LDX_MSH = 0x20, 0x28, 0x30, 0x48, 0xB1
AND, JEQ, JGE, JSET, RET = 0x54, 0x15, 0x35, 0x45, 0x06

PACKET_TYPE = 0xFFFF_F004
"""SKF_AD_OFF + SKF_AD_PKTTYPE: what to load for PACKET_HOST, PACKET_OUTGOING and the like."""
RANDOM = 0xFFFF_F038
"""SKF_AD_OFF + SKF_AD_RANDOM: what to load for 32 random bits."""

ALL = 0xFFFF_FFFF
"""What to return to let a packet in; 0 drops it."""

Instruction = tuple[int, int, int, int]
"""Code, instructions to skip if true, and if false, operand."""


def attach(sock: socket.socket, program: Sequence[Instruction]) -> None:
    """Let in what `program` says; it takes the place of one before. Raises OSError."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the length, and a pointer behind its padding.
    sock.setsockopt(
        socket.SOL_SOCKET,
        kernel.SO_ATTACH_FILTER,
        struct.pack("@HP", len(program), ctypes.addressof(buffer)),
    )


def detach(sock: socket.socket) -> None:
    """Let in everything again. Raises OSError if there is no filter."""
    sock.setsockopt(socket.SOL_SOCKET, kernel.SO_DETACH_FILTER, 0)
