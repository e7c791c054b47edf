"""The reasons for which the protocol drops a packet. Each drop is counted under exactly one."""

from enum import StrEnum, unique


@unique
class ProtocolDrop(StrEnum):
    """Why a packet went no further; the value is the name users see."""

    # Datagrams that are no handshake message of ours.
    MALFORMED = "malformed"
    """Shorter than a header, unknown type, wrong length, or reserved bytes that are not zero."""
    BAD_MAC1 = "bad_mac1"
    """The sender does not know our public key."""
    NO_PRIVATE_KEY = "no_private_key"
    """The interface has no private key yet."""
    # Handshake messages under load.
    COOKIE_REQUIRED = "cookie_required"
    """No valid mac2 while under load; a cookie reply was sent instead."""
    COOKIE_UNANSWERED = "cookie_unanswered"
    """No valid mac2 while under load, and no cookie reply: the sender was sent one in the last
    seconds, or more senders than can be answered have asked."""
    RATE_LIMITED = "rate_limited"
    """Too many handshake messages from this address while under load."""
    # Handshake messages.
    HANDSHAKE_INVALID = "handshake_invalid"
    """A handshake message that does not decrypt, or whose Diffie-Hellman result is zero; or whose
    answer would use a preshared key that has been changed meanwhile."""
    UNKNOWN_PEER = "unknown_peer"
    """A valid initiation, from a public key that is no peer's."""
    OLD_TIMESTAMP = "old_timestamp"
    """An initiation that is not newer than the last accepted one: a replay, or a clock set back."""
    HANDSHAKE_FLOOD = "handshake_flood"
    """An initiation less than 20 ms after the last one from the same peer."""
    UNKNOWN_HANDSHAKE = "unknown_handshake"
    """A response or cookie reply that we do not wait for: late, duplicate, or forged."""
    COOKIE_INVALID = "cookie_invalid"
    """A cookie reply that does not decrypt."""
    # Transport messages.
    UNKNOWN_SESSION = "unknown_session"
    """A transport message whose receiver index belongs to none of our keypairs."""
    SESSION_EXPIRED = "session_expired"
    """A transport message for a keypair that is too old."""
    SOURCE_NOT_ALLOWED = "source_not_allowed"
    """A decrypted packet whose source address is another peer's, or no peer's; of frames also the
    sender of ARP and the target of neighbour discovery."""
    # Packets to send.
    NO_PEER = "no_peer"
    """No peer's AllowedIPs cover the destination."""
    LINK_MULTICAST = "link_multicast"
    """Like no_peer, but to a multicast group of the link, to which no router forwards: this host's
    own router solicitations, MLD reports and the like. It is no fault, so `show`, `top`, `doctor`
    and events leave it out; `show --json` and the metrics have it."""
    ROUTING_LOOP = "routing_loop"
    """One of our own datagrams: the route to a peer's endpoint leads into the tunnel."""
    LOW_ORDER_PEER = "low_order_peer"
    """The peer's public key is a low-order point; nothing sent to it could be secret."""
    STAGED_OVERFLOW = "staged_overflow"
    """Staged for a keypair, then pushed out by newer packets or by the memory limit."""
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    """Staged for a handshake that did not complete in 90 s."""
    INTERFACE_DOWN = "interface_down"
    """Still staged when the interface went down, or received while it was down."""
    OVER_RATE = "over_rate"
    """Above the RateLimit of the peer, and its queue is full."""
    OVER_QUOTA = "over_quota"
    """Larger than what is left of the Quota of the peer."""
    PEER_REMOVED = "peer_removed"
    """Staged for a peer that was removed, or waiting for its rate."""
