"""Batches of datagrams that a segmentation offload made one packet of, taken apart again.

Where a packet socket sits, UDP_SEGMENT has not yet cut a batch, and UDP_GRO has already joined it:
one IP packet of up to 64 KiB. The place of the cuts is not in it, but transport messages show it:
each begins with its type and the receiver's index, all have the same length but the last, which
may be shorter.
"""

from __future__ import annotations

import struct

from tunnel.packet.checksum import checksum
from tunnel.packet.headers import UDP, UDP_HEADER, header_length

_MARK = 8
"""Type, reserved zeros and receiver index of a message."""
_SHORTEST = 32
_TRANSPORT = b"\4\0\0\0"


def split(packet: bytes) -> list[bytes]:
    """The datagrams of an IP packet, with headers as the wire has them; [packet] if it is one."""
    version = packet[0] >> 4
    start = header_length(packet) + UDP_HEADER
    messages = packet[start:]
    if messages[:4] != _TRANSPORT or packet[9 if version == 4 else 6] != UDP:
        return [packet]
    size = _message_size(messages)
    if size >= len(messages):
        return [packet]
    return [
        _datagram(packet[:start], messages[at : at + size], number)
        for number, at in enumerate(range(0, len(messages), size))
    ]


def _message_size(messages: bytes) -> int:
    mark = messages[:_MARK]
    at = messages.find(mark, _SHORTEST)
    while at >= 0:
        if all(messages.startswith(mark, place) for place in range(at, len(messages), at)):
            return at
        at = messages.find(mark, at + 1)
    return len(messages)


def _datagram(headers: bytes, message: bytes, number: int) -> bytes:
    ip, udp = bytearray(headers[:-UDP_HEADER]), bytearray(headers[-UDP_HEADER:])
    length = UDP_HEADER + len(message)
    udp[4:6] = struct.pack("!H", length)
    udp[6:8] = bytes(2)
    if ip[0] >> 4 == 4:
        identification = int.from_bytes(ip[4:6], "big") + number
        ip[2:6] = struct.pack("!HH", len(ip) + length, identification & 0xFFFF)
        ip[10:12] = bytes(2)
        ip[10:12] = struct.pack("!H", checksum(bytes(ip)))
        addresses = bytes(ip[12:20])
    else:
        ip[4:6] = struct.pack("!H", length)
        addresses = bytes(ip[8:40])
    pseudo = addresses + struct.pack("!HH", UDP, length)
    udp[6:8] = struct.pack("!H", checksum(pseudo + bytes(udp) + message))
    return bytes(ip + udp) + message
