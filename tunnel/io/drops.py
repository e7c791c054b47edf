"""Why a packet was lost between us and the kernel, as names for counters."""

import errno
from enum import StrEnum


class IoDrop(StrEnum):
    """Reasons of this room. The value is the name that counters and metrics show."""

    # TUN, on read
    TUN_READ_REFUSED = "tun_read_refused"  # EINVAL: a frame that the kernel could not describe

    # TUN, on write
    TUN_DOWN = "tun_down"  # EIO: the interface is not up
    TUN_REFUSED = "tun_refused"  # EINVAL: no IP packet, or an invalid header
    TUN_NO_BUFFERS = "tun_no_buffers"  # ENOBUFS, ENOMEM
    TUN_ERROR = "tun_error"  # any other refusal

    # UDP, on send
    SEND_FIREWALL = "send_firewall"  # EPERM: a netfilter rule dropped it
    SEND_NETWORK_UNREACHABLE = "send_network_unreachable"  # ENETUNREACH: no route, link down
    SEND_HOST_UNREACHABLE = "send_host_unreachable"  # EHOSTUNREACH: unreachable route
    SEND_PROHIBITED = "send_prohibited"  # EACCES: prohibit route, or a broadcast address
    SEND_INVALID = "send_invalid"  # EINVAL: blackhole route
    SEND_NO_BUFFERS = "send_no_buffers"  # ENOBUFS, ENOMEM
    SEND_REFUSED = "send_refused"  # ECONNREFUSED: an ICMP error, twice in a row
    SEND_TOO_BIG = "send_too_big"  # EMSGSIZE
    SEND_NO_ADDRESS = "send_no_address"  # EADDRNOTAVAIL: e.g. IPv6 is disabled
    SEND_NO_FAMILY = "send_no_family"  # no socket of this address family
    SEND_ERROR = "send_error"  # any other refusal

    # UDP, on receive
    RECEIVE_TRUNCATED = "receive_truncated"  # larger than the buffer
    RECEIVE_CONTROL_TRUNCATED = "receive_control_truncated"  # control messages were cut
    RECEIVE_EMPTY = "receive_empty"  # a datagram of no bytes
    RECEIVE_NO_PORT = "receive_no_port"  # from port 0, which cannot be answered
    RECEIVE_ERROR = "receive_error"  # an ICMP error was reported instead of a datagram
    RECEIVE_QUEUE_FULL = "receive_queue_full"  # no room in the kernel's queue, or a flood kept out


TUN_WRITE_REASONS = {
    errno.EIO: IoDrop.TUN_DOWN,
    errno.EINVAL: IoDrop.TUN_REFUSED,
    errno.ENOBUFS: IoDrop.TUN_NO_BUFFERS,
    errno.ENOMEM: IoDrop.TUN_NO_BUFFERS,
}

SEND_REASONS = {
    errno.EPERM: IoDrop.SEND_FIREWALL,
    errno.ENETUNREACH: IoDrop.SEND_NETWORK_UNREACHABLE,
    errno.ENETDOWN: IoDrop.SEND_NETWORK_UNREACHABLE,
    errno.ENODEV: IoDrop.SEND_NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: IoDrop.SEND_HOST_UNREACHABLE,
    errno.EACCES: IoDrop.SEND_PROHIBITED,
    errno.EINVAL: IoDrop.SEND_INVALID,
    errno.ENOBUFS: IoDrop.SEND_NO_BUFFERS,
    errno.ENOMEM: IoDrop.SEND_NO_BUFFERS,
    errno.ECONNREFUSED: IoDrop.SEND_REFUSED,
    errno.EMSGSIZE: IoDrop.SEND_TOO_BIG,
    errno.EADDRNOTAVAIL: IoDrop.SEND_NO_ADDRESS,
    errno.EAFNOSUPPORT: IoDrop.SEND_NO_FAMILY,
}
