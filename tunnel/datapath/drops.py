"""Why a packet went no further: the names under which the data path counts its drops."""

from enum import StrEnum


class DatapathDrop(StrEnum):
    """One reason for each way in which a frame or a datagram can be refused.

    The value is the name of the counter. Both datapaths report the same names.
    """

    # seal and open: the IP packet itself
    TRUNCATED = "truncated"
    """A frame that is shorter than the headers of virtio and Ethernet, or without any packet."""
    IP_VERSION = "ip_version"
    """The first nibble is neither 4 nor 6."""
    ETHERNET = "ethernet"
    """An Ethernet frame in a tunnel of packets: the peer has `Mode = tap`, and this end has not."""
    NOT_ETHERNET = "not_ethernet"
    """No Ethernet frame in a tunnel of frames: this end has `Mode = tap`, and the peer has not."""
    IP_LENGTH = "ip_length"
    """A header is cut off, or the packet's length field is more than the bytes there are."""

    # seal: what the kernel asks for in the virtio header
    GSO_TYPE = "gso_type"
    """An unknown kind of segmentation, or one that does not fit the packet."""
    GSO_SIZE = "gso_size"
    """Segmentation into pieces of zero bytes."""
    CHECKSUM_OFFSET = "checksum_offset"
    """csum_start or csum_offset point outside the packet or not at its transport header."""
    TOO_LONG = "too_long"
    """A packet that is too long for a UDP datagram (MAX_PACKET)."""
    TOO_MANY_SEGMENTS = "too_many_segments"
    """One frame that would be sealed into more than MAX_SEALED_FRAME bytes."""

    # open: the transport message
    COUNTER_LIMIT = "counter_limit"
    """A counter at or past the message limit of a session."""
    REPLAY = "replay"
    """A counter seen before, or older than the replay window."""
    AUTHENTICATION = "authentication"
    """The Poly1305 tag does not match."""
