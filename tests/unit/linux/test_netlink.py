"""The framing of netlink: what is whole is read, and reading stops at what is broken."""

from __future__ import annotations

import struct

import pytest

from tunnel.linux import netlink

ONE = netlink.message(16, 1, b"abcde")


def test_messages_are_padded_to_four_bytes() -> None:
    data = ONE + bytes(3) + netlink.message(17, 0, b"")
    assert list(netlink.messages(data)) == [(16, b"abcde"), (17, b"")]


@pytest.mark.parametrize("length", [0, 15, 22, 1 << 31])
def test_a_message_of_a_wrong_length_ends_the_reading(length: int) -> None:
    broken = struct.pack("=I", length) + ONE[4:]
    assert list(netlink.messages(ONE + bytes(3) + broken)) == [(16, b"abcde")]


def test_attributes_without_their_flags() -> None:
    data = struct.pack("=HH4sHHc", 8, 3 | 0x8000, b"eth0", 5, 4, b"\x01")
    assert list(netlink.attributes(data)) == [(3, b"eth0"), (4, b"\x01")]


@pytest.mark.parametrize("length", [0, 3, 9])
def test_an_attribute_of_a_wrong_length_ends_the_reading(length: int) -> None:
    data = struct.pack("=HH4sHH4s", 8, 3, b"eth0", length, 4, b"\x01\0\0\0")
    assert list(netlink.attributes(data)) == [(3, b"eth0")]
