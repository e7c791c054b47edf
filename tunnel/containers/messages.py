"""What the process inside and the one outside say to each other: JSON and descriptors.

One message is one packet of a unix socket (SOCK_SEQPACKET). A request gets one answer.
"""

from __future__ import annotations

import array
import json
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

MAX_MESSAGE = 65_536
MAX_DESCRIPTORS = 4
ANCILLARY_ROOM = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)

Ancillary = tuple[int, int, bytes]


class ChannelMessage(NamedTuple):
    """A message that was received; its descriptors are the receiver's to close."""

    body: dict[str, Any]
    descriptors: tuple[int, ...] = ()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def encode(body: dict[str, Any]) -> bytes:
    """The packet of a message."""
    return json.dumps(body).encode()


def ancillary(descriptors: Sequence[int]) -> list[tuple[int, int, array.array[int]]]:
    """What `sendmsg` takes to pass descriptors on."""
    if not descriptors:
        return []
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]


def decode(data: bytes, messages: Sequence[Ancillary]) -> ChannelMessage | None:
    """The message of a packet and its ancillary data; None at the end of the channel."""
    numbers = array.array("i")
    for level, kind, content in messages:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
    if not data:
        return None
    return ChannelMessage(json.loads(data), tuple(numbers))


def send(channel: socket.socket, body: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send a message. Blocks; raises OSError."""
    channel.sendmsg([encode(body)], ancillary(descriptors))


def receive(channel: socket.socket) -> ChannelMessage | None:
    """The next message; None at the end of the channel. Blocks; raises OSError."""
    data, messages, _, _ = channel.recvmsg(MAX_MESSAGE, ANCILLARY_ROOM, socket.MSG_CMSG_CLOEXEC)
    return decode(data, messages)
