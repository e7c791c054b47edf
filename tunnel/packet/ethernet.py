"""Ethernet frames, and how a tunnel carries them: as EtherIP, whose version nibble is 3.

So no frame can be taken for a packet of IPv4 or IPv6. The checksum of the frame is left out.
Sources: IEEE 802.3, 802.1Q; RFC 894, RFC 2464; RFC 3378.
"""

from hashlib import blake2s
from typing import Final

ETHERIP: Final = b"\x30\x00"
"""The header of EtherIP: version 3 and twelve reserved bits, which are zero."""

HEADER_LENGTH: Final = 14
TAG_LENGTH: Final = 4
TAGS: Final = frozenset({0x8100, 0x88A8})
"""Types of a VLAN tag: the customer's and the provider's."""
MOST_TAGS: Final = 2
LONGEST_HEADER: Final = HEADER_LENGTH + MOST_TAGS * TAG_LENGTH

IPV4: Final = 0x0800
ARP: Final = 0x0806
IPV6: Final = 0x86DD

OVERHEAD: Final = len(ETHERIP) + HEADER_LENGTH + TAG_LENGTH
"""Bytes by which a message is longer than the packet in the frame, with one VLAN tag (20)."""


def ethertype_untrusted(frame: bytes | memoryview) -> tuple[int, int]:
    """The type of what a frame of at least `HEADER_LENGTH` bytes carries, and where that begins.

    That is behind up to `MOST_TAGS` VLAN tags; a tag that is cut off, or one more, is its own type.
    """
    place = HEADER_LENGTH
    kind = frame[12] << 8 | frame[13]
    for _ in range(MOST_TAGS):
        if kind not in TAGS or len(frame) < place + TAG_LENGTH:
            break
        kind = frame[place + 2] << 8 | frame[place + 3]
        place += TAG_LENGTH
    return kind, place


def ip_of_ethernet(frame: bytes) -> bytes:
    """What a frame carries if it is of the type of IPv4 or IPv6; else nothing."""
    if len(frame) < HEADER_LENGTH:
        return b""
    kind, place = ethertype_untrusted(frame)
    return frame[place:] if kind in (IPV4, IPV6) else b""


def station_address(seed: bytes) -> bytes:
    """A MAC address of a station, locally administered; the same for the same seed."""
    digest = blake2s(seed, digest_size=6).digest()
    return bytes((digest[0] & 0xFC | 0x02,)) + digest[1:]
