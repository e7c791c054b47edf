"""TAI64N, the timestamp of an initiation (https://cr.yp.to/libtai/tai64.html).

12 bytes, big-endian: seconds 8 (2^62 is 1970 TAI), nanoseconds 4. Bytes compare as times do.
"""

import struct
from typing import Final

TIMESTAMP_LENGTH: Final = 12

# TAI was 10 s ahead of UTC in 1970; leap seconds since are left out, as in every WireGuard.
_UNIX_EPOCH: Final = (1 << 62) + 10
_NANOSECONDS: Final = 1_000_000_000
# Exact time would let an observer of many hosts identify a clock, and measure our machine by
# its handshakes; the low 24 bits (16.8 ms) are cleared, as wireguard-go does.
_WHITEN: Final = (1 << 24) - 1
_LAYOUT: Final = struct.Struct(">QI")


def encode(unix_ns: int) -> bytes:
    """Encode nanoseconds since 1970 UTC as 12 bytes, the low 24 bits of the fraction cleared.

    Two times less than 16.8 ms apart may encode alike, and a responder refuses the second.
    Raises ValueError outside the range of TAI64N.
    """
    seconds, nanoseconds = divmod(unix_ns, _NANOSECONDS)
    tai = seconds + _UNIX_EPOCH
    # The upper half of the 64 bits is reserved by TAI64.
    if not 0 <= tai < 1 << 63:
        raise ValueError(f"TAI64N cannot hold {unix_ns} ns since 1970")
    return _LAYOUT.pack(tai, nanoseconds & ~_WHITEN)


def decode(timestamp: bytes) -> int:
    """Return nanoseconds since 1970 UTC; any 12 bytes are read as the time they spell.

    A peer chooses these bytes freely, so the result may lie far outside any plausible year.
    Raises ValueError on another length.
    """
    if len(timestamp) != TIMESTAMP_LENGTH:
        raise ValueError(f"a TAI64N timestamp is 12 bytes long, found {len(timestamp)}")
    tai, nanoseconds = _LAYOUT.unpack(timestamp)
    seconds: int = tai - _UNIX_EPOCH
    return seconds * _NANOSECONDS + int(nanoseconds)
