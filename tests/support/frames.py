"""Ethernet frames for the tests of the switch."""

from __future__ import annotations

from ipaddress import ip_address

from tunnel.switch import Frame

BROADCAST = bytes([255] * 6)


def mac(number: int) -> bytes:
    """The address of a station, by its number."""
    return b"\2\0" + number.to_bytes(4, "big")


def packed(address: str) -> bytes:
    return ip_address(address).packed


def ethernet(source: bytes, destination: bytes, kind: int, payload: bytes, vlan: int = 0) -> bytes:
    """A frame, with a tag if there is a VLAN."""
    tag = b"\x81\0" + vlan.to_bytes(2, "big") if vlan else b""
    return destination + source + tag + kind.to_bytes(2, "big") + payload


def ipv4_packet(source: str, destination: str) -> bytes:
    head = b"\x45\0\0\x1c" + bytes(4) + b"\x40\x63\0\0"
    return head + packed(source) + packed(destination) + b"payload!"


def ipv6_packet(
    source: str, destination: str, protocol: int = 59, payload: bytes = b"payload!"
) -> bytes:
    head = b"\x60\0\0\0" + len(payload).to_bytes(2, "big") + bytes([protocol, 255])
    return head + packed(source) + packed(destination) + payload


def arp(operation: int, sender: str, target: str, sender_mac: bytes = mac(1)) -> bytes:
    """An ARP message, of Ethernet and IPv4."""
    head = b"\0\1\x08\0\6\4" + operation.to_bytes(2, "big")
    return head + sender_mac + packed(sender) + bytes(6) + packed(target)


def neighbour(kind: int, target: str) -> bytes:
    """A neighbour solicitation (135) or advertisement (136)."""
    return bytes([kind, 0, 0, 0]) + bytes(4) + packed(target)


def of_ipv4(source: bytes, destination: bytes, addresses: tuple[str, str], vlan: int = 0) -> Frame:
    return Frame(ethernet(source, destination, 0x0800, ipv4_packet(*addresses), vlan))


def of_arp(source: bytes, destination: bytes, message: bytes) -> Frame:
    return Frame(ethernet(source, destination, 0x0806, message))


def of_ipv6(source: bytes, destination: bytes, packet: bytes) -> Frame:
    return Frame(ethernet(source, destination, 0x86DD, packet))
