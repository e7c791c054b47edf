"""A flood of datagrams to a WireGuard interface, as a program in a host of a lab.

    flood_program.py KIND INTERFACE MAC ADDRESS PORT PUBLIC_KEY RATE SECONDS HOW RECORDED

HOW is `single`: frames made before the flood begins, sent by `sendmmsg`, so that one core is enough
for some hundred thousand a second. Or it is `batches`: 64 datagrams of one source in one call,
which the kernel cuts (UDP_SEGMENT) where the receiver does not take them whole. RECORDED is a file
of `record_program.py`, whose datagrams are replayed, and whose sessions the giants are for. When it
ends, it prints how many datagrams a second it sent.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from crypto.cookies import mac1
from crypto.keys import PublicKey
from tunnel.datapath.interface import MAX_DATAGRAM
from tunnel.linux import kernel
from tunnel.packet.checksum import checksum
from tunnel.packet.headers import TRANSPORT_DATA

KINDS = ("junk", "bad mac1", "one source", "many sources", "replays", "giants")
OWN_SOURCE = ("192.0.2.3", 9999)
MANY_SOURCES = "198.18.0.0/15"
"""Reserved for measurements (RFC 2544)."""

Send: TypeAlias = Callable[[], int]

BURST = 64
_FRAMES = {"many sources": 16_384}
_SIZE = 148


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr of Linux."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("iovec", ctypes.POINTER(_Iovec)),
        ("iovec_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr of Linux. A part of its own, the header ends where its padding does."""

    _fields_ = (("header", _Header), ("sent", ctypes.c_uint))


def payload(kind: str, key: PublicKey, recorded: Sequence[bytes]) -> bytes:
    """A datagram that is no use, by the first check that finds it out; of most kinds 148 bytes."""
    if kind == "replays":
        return random.choice(recorded)
    if kind == "giants":
        # Data of a session, which has to be decrypted to find out.
        index = next(each[4:8] for each in recorded if each[0] == TRANSPORT_DATA)
        counter = random.getrandbits(40).to_bytes(8, "little")
        return b"\4\0\0\0" + index + counter + bytes(MAX_DATAGRAM - 16)
    if kind == "junk":
        return b"\x07" + os.urandom(_SIZE - 1)
    body = bytes([1, 0, 0, 0]) + os.urandom(_SIZE - 36)
    return body + (os.urandom(16) if kind == "bad mac1" else mac1(key, body)) + bytes(16)


def frame(ethernet: bytes, source: tuple[str, int], target: tuple[str, int], data: bytes) -> bytes:
    """Ethernet, IPv4 and UDP without a checksum."""
    udp = struct.pack(">HHHH", source[1], target[1], 8 + len(data), 0) + data
    addresses = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + addresses
    return ethernet + head[:10] + struct.pack(">H", checksum(head)) + head[12:] + udp


def sources(kind: str) -> tuple[str, int]:
    """Where the next datagram comes from."""
    if kind != "many sources":
        return OWN_SOURCE
    number = int.from_bytes(socket.inet_aton(MANY_SOURCES.split("/")[0])) + random.getrandbits(17)
    return socket.inet_ntoa(number.to_bytes(4)), random.randrange(1024, 65536)


def frames_sender(
    kind: str,
    interface: str,
    mac: str,
    target: tuple[str, int],
    key: PublicKey,
    recorded: Sequence[bytes],
) -> Send:
    """Send `BURST` frames at each call; how many were sent."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind((interface, 0))
    own = sock.getsockname()[4]
    ethernet = bytes.fromhex(mac.replace(":", "")) + own + b"\x08\x00"
    payloads = (payload(kind, key, recorded) for _ in range(_FRAMES.get(kind, 1024)))
    frames = [
        ctypes.create_string_buffer(frame(ethernet, sources(kind), target, each))
        for each in payloads
    ]
    iovecs = [_Iovec(ctypes.cast(each, ctypes.c_void_p), len(each) - 1) for each in frames]
    # The kernel reads what these point to: they live as long as the function below.
    messages = (_Message * len(frames))(
        *(_Message(_Header(iovec=ctypes.pointer(iovec), iovec_length=1)) for iovec in iovecs)
    )
    sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
    places = itertools.cycle(range(0, len(frames), BURST))

    def send() -> int:
        return max(0, int(sendmmsg(sock.fileno(), ctypes.byref(messages[next(places)]), BURST, 0)))

    return send


def batches_sender(kind: str, target: tuple[str, int], key: PublicKey) -> Send:
    """Send `BURST` datagrams in one batch at each call; how many were sent."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(kernel.SOL_UDP, kernel.UDP_SEGMENT, _SIZE)
    batches = itertools.cycle(
        [b"".join(payload(kind, key, ()) for _ in range(BURST)) for _ in range(16)]
    )

    def send() -> int:
        sock.sendto(next(batches), target)
        return BURST

    return send


def giants_sender(target: tuple[str, int], key: PublicKey, recorded: Sequence[bytes]) -> Send:
    """Send one datagram, which the kernel sends in fragments, at each call."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    giants = itertools.cycle([payload("giants", key, recorded) for _ in range(16)])

    def send() -> int:
        sock.sendto(next(giants), target)
        return 1

    return send


def main() -> None:
    """Send for as long as asked."""
    kind, interface, mac, address, port, key_text, rate, seconds, how, file = sys.argv[1:]
    target, key = (address, int(port)), PublicKey.from_base64(key_text)
    recorded = [bytes.fromhex(line) for line in Path(file).read_text(encoding="ascii").split()]
    if kind == "giants":
        send = giants_sender(target, key, recorded)
    elif how == "batches":
        send = batches_sender(kind, target, key)
    else:
        send = frames_sender(kind, interface, mac, target, key, recorded)
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    print("begins", flush=True)
    began = time.monotonic()
    ends, per_second = began + float(seconds), float(rate)
    sent = 0
    while not stopped and (now := time.monotonic()) < ends:
        if sent > (now - began) * per_second:
            time.sleep(BURST / per_second)
        else:
            sent += send()
    print(f"{sent / (time.monotonic() - began):.0f}", flush=True)


if __name__ == "__main__":
    main()
