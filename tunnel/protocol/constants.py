"""Every number the protocol depends on. Times are seconds, counters are messages.

The first half belongs to the protocol: with another value there it is not WireGuard. The second
half is ours to choose; the peer cannot see it.
"""

from typing import Final

# --- The whitepaper's, section 6.1, in the values that Linux and wireguard-go deploy -------------

REKEY_AFTER_MESSAGES: Final = 2**60
"""A keypair that sealed this many messages is replaced, by either side."""

REJECT_AFTER_MESSAGES: Final = 2**64 - 2**13 - 1
"""A keypair that sealed this many messages sends nothing more."""

REKEY_AFTER_TIME: Final = 120.0
"""The side that initiated a keypair asks for a successor when it sends and the keypair is older."""

REJECT_AFTER_TIME: Final = 180.0
"""A keypair this old neither sends nor receives."""

REKEY_ATTEMPT_TIME: Final = 90.0
"""A handshake that got no answer for this long is given up."""

REKEY_TIMEOUT: Final = 5.0
"""The shortest time between two initiations to one peer, and the wait before a retry."""

KEEPALIVE_TIMEOUT: Final = 10.0
"""Data received and nothing sent for this long is answered by an empty message."""

# --- Agreed by the deployed implementations ------------------------------------------------------

REKEY_TIMEOUT_JITTER: Final = 1 / 3
"""Upper bound of the random addition to REKEY_TIMEOUT, so that two peers do not stay in step."""

REFUSAL_PERIOD: Final = 60.0
"""Seconds between two reports of handshake messages refused for the same reason."""

NEW_HANDSHAKE_TIMEOUT: Final = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT
"""Data sent and nothing received for this long: the keypair is taken for lost."""

REKEY_ON_RECEIVE_AFTER_TIME: Final = REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT
"""The initiator of a keypair this old asks for a successor when it merely receives."""

ERASE_AFTER_TIME: Final = 3 * REJECT_AFTER_TIME
"""With no new keypair for this long, all that is secret about a peer but its keys is erased."""

HANDSHAKE_QUEUE: Final = 4096
"""Handshake messages that may wait in the driver; more are dropped."""

UNDER_LOAD_QUEUE: Final = HANDSHAKE_QUEUE // 8
"""With this many waiting the driver is under load (`Interface.set_under_load`)."""

INITIATION_SPACING: Final = 0.020
"""Initiations of one peer that come closer together than this are dropped."""

MAX_STAGED_FRAMES: Final = 128
"""Frames of one peer that wait for a keypair; the newest pushes out the oldest."""

INITIATIONS_PER_SECOND: Final = 20
INITIATIONS_BURST: Final = 5
"""Handshake messages of one IPv4 address or IPv6 /64 that are looked at under load."""

UNDER_LOAD_TIME: Final = 1.0
"""How long `Interface.set_under_load` holds."""

# --- Our own choices -----------------------------------------------------------------------------

MAX_STAGED_BYTES_PER_PEER: Final = 1 << 20
"""A frame may be 64 KiB, so the number of frames alone would not bound the memory."""

MAX_STAGED_BYTES: Final = 32 << 20
"""Bytes staged for all peers of an interface together."""

COOKIE_REPLY_SPACING: Final = 0.9 * REKEY_TIMEOUT
"""Seconds in which a source is sent one cookie reply. It asks again later than that."""

COOKIE_REPLIES_PER_SECOND: Final = 5000
COOKIE_REPLIES_BURST: Final = 64
"""Cookie replies that a flood brings about; each takes some 20 microseconds."""

KNOWN_COOKIE_REPLIES_PER_SECOND: Final = 1000
"""The same for all addresses of peers together, however often they ask."""

MAX_RATE_LIMITED_SOURCES: Final = 16_384
"""Sources the rate limiter remembers at a time; when all are in use a new one has to wait."""

RESTART_SPACING: Final = INITIATION_SPACING + 0.005
"""A handshake that starts over sends its initiation this long after the one before it: closer
together the peer would drop it, and on the way they may come a little closer."""

MAX_PEERS_PER_DEADLINE: Final = 16
"""Peers whose timers one `handle_deadline` runs before it lets the driver move packets again: at
worst each sends an initiation, which takes a third of a millisecond."""

MAX_REMEMBERED_STAMPS: Final = 4096
"""Removed peers whose last timestamp is remembered, so that adding one again goes on above it."""

EARLIEST_PLAUSIBLE_UNIX_NS: Final = 1_577_836_800 * 10**9
"""2020-01-01T00:00:00Z. An earlier clock was never set: worth a warning, harmless to a key."""

LATEST_PLAUSIBLE_UNIX_NS: Final = 4_102_444_800 * 10**9
"""2100-01-01T00:00:00Z. A later timestamp would make our key useless with each peer that accepts
it."""

CLOCK_JUMP: Final = 86_400.0
"""A wall clock that gains or loses more than this on the monotonic one was set."""

CLOCK_WARNING_INTERVAL: Final = 60.0
"""The shortest time between two warnings of one kind about the clock."""
