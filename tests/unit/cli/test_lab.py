"""Which of the packets on a lab's cables belong to the ping."""

from __future__ import annotations

from tunnel.cli.lab import find_steps
from tunnel.lab.crossings import LabPacket
from tunnel.linux.packet_socket import SeenPacket
from tunnel.packet.headers import Headers


def sighting(payload: bytes) -> LabPacket:
    """A datagram from 192.0.2.1 to 192.0.2.2, both of port 51820, on A's cable."""
    udp = bytes.fromhex("ca6cca6c") + (8 + len(payload)).to_bytes(2, "big") + bytes(2) + payload
    packet = bytes.fromhex("4500") + (20 + len(udp)).to_bytes(2, "big") + bytes(5)
    packet += b"\x11" + bytes(2) + bytes([192, 0, 2, 1, 192, 0, 2, 2]) + udp
    headers = Headers.parse(packet)
    assert headers is not None
    return LabPacket("A", "eth0", SeenPacket(0, True, "eth0", packet), headers)


def test_a_keepalive_is_no_step_of_the_ping() -> None:
    transport = b"\4" + bytes(3)
    data, keepalive, initiation = (
        transport + bytes(12 + 96 + 16),
        transport + bytes(12 + 16),
        b"\1" + bytes(147),
    )
    steps = list(find_steps([sighting(each) for each in (keepalive, data, initiation)]))
    assert [(step.layer, step.size) for step in steps] == [("outer", 20 + 8 + 128)]
