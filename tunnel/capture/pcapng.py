"""Capture files in the pcapng format, as Wireshark and tcpdump read it: blocks, and no I/O.

Source: draft-ietf-opsawg-pcapng. Blocks are little-endian, which their section header says; times
are nanoseconds since 1970.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable

LINKTYPE_ETHERNET = 1
LINKTYPE_RAW = 101
"""Packets that begin with their IPv4 or IPv6 header."""
SECRETS_WIREGUARD = 0x57474B4C
"""The secrets of a decryption secrets block are a WireGuard key log."""

_SECTION_HEADER, _INTERFACE, _STATISTICS, _PACKET, _SECRETS = 0x0A0D0D0A, 1, 5, 6, 0x0000000A
_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_UNKNOWN_LENGTH = -1

_END_OF_OPTIONS = 0
_SHB_USERAPPL = 4
_IF_NAME, _IF_DESCRIPTION, _IF_TSRESOL = 2, 3, 9
_EPB_FLAGS = 2
_ISB_IFRECV, _ISB_IFDROP = 4, 5
_NANOSECONDS = b"\x09"
"""if_tsresol: units of 10^-9 seconds."""


class Direction(enum.IntEnum):
    """The way a packet went, as the lowest two bits of epb_flags."""

    UNKNOWN = 0
    IN = 1
    OUT = 2


def section_header(application: str) -> bytes:
    """The block a file begins with; `application` is who wrote it."""
    head = struct.pack("<IHHq", _BYTE_ORDER_MAGIC, 1, 0, _UNKNOWN_LENGTH)
    return _block(_SECTION_HEADER, head + _options([(_SHB_USERAPPL, application.encode())]))


def interface(
    name: str, description: str, *, snap_length: int = 0, ethernet: bool = False
) -> bytes:
    """An interface of raw IP packets, or of Ethernet frames; packets refer to it by its place among
    the interfaces.

    `snap_length` is the most bytes kept of a packet, 0 for all.
    """
    linktype = LINKTYPE_ETHERNET if ethernet else LINKTYPE_RAW
    head = struct.pack("<HHI", linktype, 0, snap_length)
    options = [
        (_IF_NAME, name.encode()),
        (_IF_DESCRIPTION, description.encode()),
        (_IF_TSRESOL, _NANOSECONDS),
    ]
    return _block(_INTERFACE, head + _options(options))


def packet(
    number: int,
    time_ns: int,
    data: bytes,
    *,
    length: int | None = None,
    direction: Direction = Direction.UNKNOWN,
) -> bytes:
    """A packet seen on interface `number` at `time_ns`.

    `length` is its size on the interface, if `data` is only the beginning of it.
    """
    head = struct.pack(
        "<IIIII",
        number,
        time_ns >> 32,
        time_ns & 0xFFFF_FFFF,
        len(data),
        len(data) if length is None else length,
    )
    flags = struct.pack("<I", direction)
    return _block(_PACKET, head + _padded(data) + _options([(_EPB_FLAGS, flags)]))


def secrets(key_log: str) -> bytes:
    """Keys for the packets that follow; `key_log` as `wireguard_keys` makes it."""
    data = key_log.encode("ascii")
    return _block(_SECRETS, struct.pack("<II", SECRETS_WIREGUARD, len(data)) + _padded(data))


def statistics(number: int, time_ns: int, *, received: int, dropped: int) -> bytes:
    """What interface `number` had received at `time_ns`, and how much of that was dropped."""
    head = struct.pack("<III", number, time_ns >> 32, time_ns & 0xFFFF_FFFF)
    options = [
        (_ISB_IFRECV, struct.pack("<Q", received)),
        (_ISB_IFDROP, struct.pack("<Q", dropped)),
    ]
    return _block(_STATISTICS, head + _options(options))


def wireguard_keys(
    *,
    private_key: str | None = None,
    public_keys: Iterable[str] = (),
    ephemeral_key: str | None = None,
    preshared_key: str | None = None,
) -> str:
    """Lines of a WireGuard key log, keys being base64 text.

    A preshared key belongs to the ephemeral key before it (Wireshark, packet-wireguard.c).
    """
    lines = []
    if private_key is not None:
        lines.append(f"LOCAL_STATIC_PRIVATE_KEY = {private_key}\n")
    lines += [f"REMOTE_STATIC_PUBLIC_KEY = {key}\n" for key in public_keys]
    if ephemeral_key is not None:
        lines.append(f"LOCAL_EPHEMERAL_PRIVATE_KEY = {ephemeral_key}\n")
    if preshared_key is not None:
        lines.append(f"PRESHARED_KEY = {preshared_key}\n")
    return "".join(lines)


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def _options(options: Iterable[tuple[int, bytes]]) -> bytes:
    parts = [struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options]
    return b"".join(parts) + struct.pack("<HH", _END_OF_OPTIONS, 0)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
