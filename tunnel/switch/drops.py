"""The reasons for which the switch drops a frame. Each drop is counted under exactly one."""

from enum import StrEnum, unique


@unique
class SwitchDrop(StrEnum):
    """Why a frame went no further; the value is the name users see."""

    SOURCE_MAC = "source_mac"
    """A frame whose source MAC address is a group's, or all zeros: no station has such a one."""
    RESERVED_GROUP = "reserved_group"
    """A frame for the next bridge alone (01:80:c2:00:00:01 to 0f, as LACP, 802.1X and LLDP)."""
    ETHERTYPE_NOT_ALLOWED = "ethertype_not_allowed"
    """A frame from or to a peer with AllowedIPs that is neither ARP, IPv4 nor IPv6."""
    NO_DESTINATION = "no_destination"
    """A frame for a MAC or IP address that no peer can have."""
    DESTINATION_NOT_ALLOWED = "destination_not_allowed"
    """A frame for a MAC address of a peer, and an IP address that is another's, or no peer's."""
