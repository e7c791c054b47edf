"""python -m tests.support.name_server ADDRESS NAME=ADDRESS…: a DNS server on UDP port 53.

It knows these names, answers NXDOMAIN for others, and prints each name that it is asked for.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

_HEADER = struct.Struct("!HHHHHH")
_A, _AAAA = 1, 28
_ANSWER = 0x8180  # a response, recursion wanted and available
_NAME_ERROR = 3


def answer(query: bytes, names: Mapping[str, Iterable[IPv4Address | IPv6Address]]) -> bytes:
    """The response to a query with one question."""
    identity = _HEADER.unpack_from(query)[0]
    name, end = _read_name(query)
    (kind,) = struct.unpack_from("!H", query, end)
    question = query[_HEADER.size : end + 4]
    found = [a.packed for a in names.get(name, ()) if kind == (_A if a.version == 4 else _AAAA)]
    records = b"".join(
        struct.pack("!HHHIH", 0xC000 | _HEADER.size, kind, 1, 60, len(packed)) + packed
        for packed in found
    )
    flags = _ANSWER if name in names else _ANSWER | _NAME_ERROR
    return _HEADER.pack(identity, flags, 1, len(found), 0, 0) + question + records


def _read_name(query: bytes) -> tuple[str, int]:
    labels, place = [], _HEADER.size
    while length := query[place]:
        labels.append(query[place + 1 : place + 1 + length].decode())
        place += 1 + length
    return ".".join(labels).lower(), place + 1


def main() -> None:
    names: dict[str, list[IPv4Address | IPv6Address]] = {}
    for word in sys.argv[2:]:
        name, _, address = word.partition("=")
        names.setdefault(name, []).append(ip_address(address))
    family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as served:
        served.bind((sys.argv[1], 53))
        print("ready", flush=True)
        while True:
            query, client = served.recvfrom(4096)
            print(_read_name(query)[0], flush=True)
            served.sendto(answer(query, names), client)


if __name__ == "__main__":
    main()
