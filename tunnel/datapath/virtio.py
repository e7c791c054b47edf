"""``struct virtio_net_hdr``, the ten bytes before each packet of a TUN with IFF_VNET_HDR.

Source: virtio 1.2, section 5.1.6; linux/virtio_net.h. All fields are little-endian, which a TUN
uses on every little-endian machine.
"""

from struct import Struct
from typing import Final, NamedTuple, Self

from tunnel.datapath.drops import DatapathDrop
from tunnel.datapath.errors import PacketRefusedError
from tunnel.datapath.interface import ReadableBuffer

VIRTIO_NET_HDR_LEN: Final = 10

NEEDS_CSUM: Final = 1
"""flags: the checksum at csum_start + csum_offset is still to be completed."""

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80
"""Bit of gso_type: the TCP stream has a CWR, which belongs to the first segment alone."""

LAYOUT: Final = Struct("<BBHHHH")
NO_OFFLOAD: Final = bytes(VIRTIO_NET_HDR_LEN)
"""The header of a packet that is whole: nothing to complete, nothing to split."""

_UDP_HEADER: Final = 8


class VirtioNetHdr(NamedTuple):
    """The fields by their names in the standard.

    hdr_len     length of all headers; a hint that is wrong on Linux' forward path.
    gso_size    payload bytes of one segment.
    csum_start  where checksumming begins, from the start of the packet.
    csum_offset where the checksum is, from csum_start.
    """

    flags: int = 0
    gso_type: int = GSO_NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    def pack(self) -> bytes:
        """Return the 10 bytes."""
        return LAYOUT.pack(*self)

    @classmethod
    def unpack_untrusted(cls, frame: ReadableBuffer) -> Self:
        """Read the header at the start of a frame.

        Raises PacketRefusedError (truncated) if there are fewer than 10 bytes.
        """
        if len(frame) < VIRTIO_NET_HDR_LEN:
            raise PacketRefusedError(DatapathDrop.TRUNCATED)
        return cls(*LAYOUT.unpack_from(frame))


def carried_untrusted(frame: ReadableBuffer) -> tuple[int, int]:
    """How many packets a frame stands for, and their bytes: each has the headers of its own.

    A frame that is too short for what it says counts as one packet.
    """
    length = len(frame) - VIRTIO_NET_HDR_LEN
    if length < 0:
        return 1, 0
    header = VirtioNetHdr.unpack_untrusted(frame)
    if header.gso_type == GSO_NONE or not header.gso_size:
        return 1, length
    headers = header.csum_start
    if header.gso_type == GSO_UDP_L4:
        headers += _UDP_HEADER
    elif headers + 12 < length:
        headers += (frame[VIRTIO_NET_HDR_LEN + headers + 12] >> 4) * 4
    packets = max(1, -(-(length - headers) // header.gso_size))
    return packets, length + (packets - 1) * headers
