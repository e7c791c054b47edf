"""Capture files as tshark reads them, and as they are laid out."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from tunnel.capture import pcapng
from tunnel.capture.pcapng import Direction

ECHO = bytes.fromhex("4500001c00010000400166ce0a0000010a0000020800f7fd00010001")
TIME = 1_700_000_000_123_456_789


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    """Kind and body of every block; checks that lengths agree, and are whole words."""
    found = []
    while data:
        kind, length = struct.unpack_from("<II", data)
        assert length % 4 == 0
        assert struct.unpack_from("<I", data, length - 4) == (length,)
        found.append((kind, data[8 : length - 4]))
        data = data[length:]
    return found


def test_a_packet_is_laid_out_as_the_draft_says() -> None:
    ((kind, body),) = blocks(pcapng.packet(1, TIME, b"abcde", length=9, direction=Direction.OUT))
    assert kind == 6
    number, high, low, kept, length = struct.unpack_from("<IIIII", body)
    assert (number, high << 32 | low, kept, length) == (1, TIME, 5, 9)
    assert body[20:28] == b"abcde\0\0\0"
    assert body[28:] == struct.pack("<HHIHH", 2, 4, 2, 0, 0)


def test_secrets_carry_their_length_without_the_padding() -> None:
    ((kind, body),) = blocks(pcapng.secrets("AB\n"))
    assert kind == 0x0000000A
    assert body == struct.pack("<II", 0x57474B4C, 3) + b"AB\n\0"


def test_the_key_log_names_every_key() -> None:
    log = pcapng.wireguard_keys(
        private_key="a=", public_keys=["b=", "c="], ephemeral_key="d=", preshared_key="e="
    )
    assert log.splitlines() == [
        "LOCAL_STATIC_PRIVATE_KEY = a=",
        "REMOTE_STATIC_PUBLIC_KEY = b=",
        "REMOTE_STATIC_PUBLIC_KEY = c=",
        "LOCAL_EPHEMERAL_PRIVATE_KEY = d=",
        "PRESHARED_KEY = e=",
    ]
    assert pcapng.wireguard_keys() == ""


@pytest.mark.foreign("tshark")
def test_tshark_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "made.pcapng"
    file.write_bytes(
        pcapng.section_header("tunnel")
        + pcapng.interface("wg0", "inner", snap_length=64)
        + pcapng.interface("udp", "outer", snap_length=64)
        + pcapng.secrets(pcapng.wireguard_keys(public_keys=[f"{'A' * 42}E="]))
        + pcapng.packet(0, TIME, ECHO, direction=Direction.OUT)
        + pcapng.packet(1, TIME + 1, ECHO[:24], length=28, direction=Direction.IN)
        + pcapng.statistics(0, TIME + 2, received=1, dropped=0)
    )
    fields = ["frame.interface_name", "frame.time_epoch", "frame.len", "frame.cap_len", "ip.dst"]
    ran = subprocess.run(
        ["tshark", "-r", str(file), "-T", "fields"]
        + [word for field in fields for word in ("-e", field)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split("\t") for line in ran.stdout.splitlines()] == [
        ["wg0", "1700000000.123456789", "28", "28", "10.0.0.2"],
        ["udp", "1700000000.123456790", "28", "24", "10.0.0.2"],
    ]
