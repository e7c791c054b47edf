"""What a datapath is: the interface that the Python reference and the native twin share.

Words
    packet      an IPv4 or IPv6 packet.
    frame       what the TUN device reads and writes: the 10-byte ``struct virtio_net_hdr``
                followed by a packet, which may be longer than the MTU and meant to be split (GSO).
                Of a TAP device: followed by an Ethernet frame.
    datagram    one sealed WireGuard transport message: 16-byte header (type 4 and three zero bytes,
                receiver index u32 LE, counter u64 LE), ciphertext, 16-byte tag.
    span        ``(start, end)``, offsets into one buffer.
    batch       equally long datagrams back to back in one buffer, as UDP_SEGMENT and UDP_GRO see
                them: `stride` bytes each, the last one may be shorter.

With Ethernet, a session carries the frames of TAP devices as EtherIP: what is sealed is two bytes
30 00 and the Ethernet frame. Where the frame holds, behind its header and up to two VLAN tags
(8100, 88a8), an IP packet of the version that its type says, as long as it says at most, all that
is said of packets below is true of that one: each segment gets the same Ethernet header, packets
are merged if they have the same, csum_start and hdr_len count from the start of the Ethernet
frame, and bytes behind the packet are left out. Any other frame is carried as it is, not padded.

A datapath holds no file descriptor, knows no peer and no clock. Every function works on buffers the
caller owns, and keeps no reference to them. The two datapaths give the same bytes, the same results
and the same drop counts for the same calls.
"""

from collections.abc import Sequence
from enum import IntFlag
from typing import NamedTuple, Protocol, TypeAlias

ReadableBuffer: TypeAlias = bytes | bytearray | memoryview
"""Contiguous bytes. (A memoryview has format "B" and is C-contiguous.)"""

REJECT_AFTER_MESSAGES = 2**64 - 2**13 - 1
"""Counters of a session are below this, in both directions (whitepaper section 6.5)."""
MESSAGE_OVERHEAD = 32
"""Bytes a datagram is longer than its padded packet: header and tag."""
PADDING = 16
"""Packets are zero-padded to a multiple of this before they are sealed, but not past the MTU."""
MAX_DATAGRAM = 65_507
"""The most a UDP datagram carries over IPv4; also the most bytes of one batch."""
MAX_PACKET = MAX_DATAGRAM - MESSAGE_OVERHEAD
"""The longest packet that can be sealed (65,475 bytes)."""
MAX_BATCH_SEGMENTS = 64
"""The most datagrams of one batch, and of one coalesced UDP frame (UDP_MAX_SEGMENTS in Linux)."""
MAX_FRAME_PACKET = 65_535
"""The longest packet of a coalesced frame, its IP header included."""
REPLAY_WINDOW = 8_128
"""A counter further than this behind the greatest one is refused: 8192 bits less one word."""

MAX_SEALED_FRAME = 262_144
"""The most bytes one frame may be sealed into, without tails.

A frame that would need more (a 64 KiB frame of 40-byte segments) is dropped as too_many_segments.
"""
SEAL_OUT_SIZE = MAX_SEALED_FRAME + 128 * MESSAGE_OVERHEAD
"""Bytes of `out` beyond `start` in which `seal` always makes progress, with tails, too."""
OPEN_OUT_SIZE = 65_536
"""Bytes of `out` enough for `open` on any batch that one UDP receive can give."""


def most_tails(count: int, stride: int) -> int:
    """How many tails `count` datagrams of `stride` bytes may need at most, with one for the batch
    before them.
    """
    together = min(MAX_BATCH_SEGMENTS - 1, (MAX_DATAGRAM - MESSAGE_OVERHEAD) // stride)
    return 1 - (-count // max(1, together))


class Offload(IntFlag):
    """Kinds of packets that `open` may coalesce, because the TUN accepts such GSO frames."""

    NONE = 0
    TCP4 = 1
    TCP6 = 2
    UDP4 = 4
    UDP6 = 8
    ALL = 15


class Batch(NamedTuple):
    """Datagrams ready for one sendmsg: ``out[start:end]``, cut every `stride` bytes.

    `ecn` (0–3) is the ECN field of the packets inside and goes to the outer header (RFC 6040,
    normal mode). ``end - start <= 65,507``; at most 64 datagrams; only the last may be shorter.
    """

    start: int
    end: int
    stride: int
    ecn: int


class Sealed(NamedTuple):
    """What `Session.seal` did.

    batches     in the order of sending; back to back in `out`, the first begins at `start`.
    consumed    frames taken, sealed or dropped. Fewer than given: `out` is full (or the message
                limit is near); send the batches and call again with the rest.
    packets     datagrams sealed, the sum over all batches.
    drops       frames dropped, by name (`DatapathDrop`); reasons that did not occur are absent.
    """

    batches: list[Batch]
    consumed: int
    packets: int
    drops: dict[str, int]


class Opened(NamedTuple):
    """What `Session.open` did.

    frames        spans in `out` of frames to write to the TUN in this order; back to back from 0.
    consumed      bytes of datagrams taken, valid or dropped; 0 if the first is not for this
                  session. Always a whole number of datagrams.
    packets       datagrams that were authenticated and new, keepalives and those whose packet was
                  dropped afterwards included.
    keepalives    those among them without a packet inside.
    wire_bytes    bytes of those datagrams, header and tag included.
    payload_bytes bytes of the packets handed on, padding removed, before they were coalesced.
    drops         datagrams dropped, by name (`DatapathDrop`), as far as there were any.
    """

    frames: list[tuple[int, int]]
    consumed: int
    packets: int
    keepalives: int
    wire_bytes: int
    payload_bytes: int
    drops: dict[str, int]


SEND_BLOCK = 1 << 20
"""Counters that a session reserves in its ledger at a time."""


class Ledger(Protocol):
    """A file in which sessions note, for a process after this one, how far their counters went.

    Each session has a place there, two words of 16 bytes: a count c, and c exclusive-or a mask,
    both u64 LE. The first: counters below c may have been sealed. It is written before the first of
    a block of counters is used. The second: counters below c were accepted. It is written before a
    packet of them is handed out, once a call. What reads a word checks it by the mask, which only
    the place's present owner has.

    One call writes a word; the file has the place already. Should that fail, nothing more is
    sealed.
    """


class LedgerFactory(Protocol):
    """The constructor that a datapath offers under the name ``Ledger``."""

    def __call__(self, fd: int, block: int = SEND_BLOCK) -> Ledger:
        """Make one of the file of `fd`, which is opened again. `block` counters are reserved at a
        time.

        Raises OSError if the file cannot be opened, ValueError if `block` is below 1.
        """


Place: TypeAlias = tuple[Ledger, int, int]
"""A ledger, the offset of a session's two words in it, and their mask (64 bits)."""


class Session(Protocol):
    """One session's pair of transport keys with its counters and its replay window."""

    @property
    def send_counter(self) -> int:
        """Messages sealed so far, which is also the counter of the next one."""

    @property
    def local_index(self) -> int:
        """Receiver index of the datagrams that `open` takes."""

    @property
    def remote_index(self) -> int:
        """Receiver index written into sealed datagrams."""

    def seal(
        self,
        frames: ReadableBuffer,
        spans: Sequence[tuple[int, int]],
        mtu: int,
        out: bytearray,
        start: int = 0,
    ) -> Sealed:
        """Turn frames into sealed datagrams, split and checksummed.

        frames  buffer that holds the frames; not modified.
        spans   where each frame is: virtio header and packet.
        mtu     MTU of the TUN device. A packet of n bytes is zero-padded to
                ``min(n rounded up to 16, max(n, min(mtu, MAX_PACKET)))``. With Ethernet n counts
                what comes before the packet, too, and 20 is added to `mtu`.
        out     receives the datagrams, from `start` on. Never resized.

        Order: datagrams appear in the order of the frames, the segments of a frame in the order of
        their bytes; counters count up by one from `send_counter`.

        One frame is taken whole or not at all. Taking ends before a frame whose datagrams do not
        all fit between the current end and ``len(out)``, or would pass REJECT_AFTER_MESSAGES.

        A batch ends: at 64 datagrams; when the next one would make it longer than 65,507 bytes;
        after a datagram shorter than its stride; before a longer one; before one of another ECN.
        Otherwise it goes on, across frames too. Its stride is the length of its first datagram.

        With short tails no batch of several datagrams is of equal ones only: where one would be, a
        tail ends it, an empty message (32 bytes). Its counter follows that of the datagram before
        it, it counts in `Sealed.packets`, and the place for it is kept free: a datagram as long as
        the stride begins a new batch as the 64th, and where a tail behind it would pass 65,507
        bytes. A frame is taken if there is room, and the message limit allows, for
        ``most_tails(segments, length of the first datagram)`` tails besides.

        Split. A frame with gso_type TCPV4, TCPV6 or UDP_L4 (the ECN bit 0x80 is ignored) is cut
        into pieces of gso_size payload bytes (a frame without payload is one piece). Each gets the
        frame's headers: IPv4 options, IPv6 extension headers and TCP options as they are; IPv4
        identification plus the number of the segment (mod 2^16), new IPv4 header checksum; length
        fields; TCP sequence number; FIN and PSH only on the last, CWR only on the first. hdr_len of
        the virtio header is not looked at. The checksum field of the frame holds the folded sum of
        the pseudo-header with the length of the whole transport packet (virtio 1.2, 5.1.6.2); it is
        carried over to each segment by exchanging the lengths, so that routing headers need no
        special treatment.

        Checksums. A frame of gso_type NONE with NEEDS_CSUM gets the complement of the folded sum of
        its bytes from csum_start to the packet's end, at csum_start + csum_offset. Computed
        transport checksums that come out as zero are written as 0xffff, for TCP as well.
        Without NEEDS_CSUM the packet is sealed as it is.

        The packet is as long as its IP header says; bytes of the frame after that are left out.

        Drops, in this order of checks (the first that applies is counted, once per frame):
            truncated           frame shorter than 11 bytes (with Ethernet: 24)
            gso_type            with Ethernet and no IP packet: gso_type not NONE
            ip_version          first nibble of the packet neither 4 nor 6
            ip_length           IPv4: fewer than 20 bytes, IHL < 5, total length less than the
                                header or more than there is. IPv6: fewer than 40 bytes, 40 +
                                payload length more than there is.
          gso_type NONE:
            checksum_offset     NEEDS_CSUM and csum_start less than the IP header (IPv6: 40; with
                                Ethernet and no IP packet: 14), or csum_start + csum_offset + 2 more
                                than the packet
            too_long            packet longer than MAX_PACKET
          any other gso_type:
            gso_type            (gso_type & 0x7f) none of TCPV4 1, TCPV6 4, UDP_L4 5; or TCPV4 on
                                IPv6, TCPV6 on IPv4
            gso_size            gso_size zero
            gso_type            no such transport header: another protocol, a fragment (IPv4: MF or
                                offset not zero; IPv6: a fragment header), or extension headers
                                (0, 43, 60: 8 + 8 n bytes; 51: 8 + 4 n) that run past the packet
            ip_length           TCP: fewer than 20 bytes, data offset < 5 or past the packet.
                                UDP: fewer than 8 bytes.
            checksum_offset     NEEDS_CSUM not set, csum_start is not where the transport header
                                begins, or csum_offset is not 16 (TCP) or 6 (UDP)
            too_long            the first segment longer than MAX_PACKET
            too_many_segments   more than MAX_SEALED_FRAME bytes of datagrams

        Raises SessionExhausted if the message limit leaves no room for the first frame (after
        nothing was consumed; otherwise the call returns early and the next one raises), ValueError
        for spans or a start outside the buffers.
        """

    def seal_keepalive(self) -> bytes:
        """Seal an empty message: 32 bytes. Raises SessionExhausted like `seal`."""

    def hand_over(self) -> None:
        """Seal nothing more, as at the message limit, and note in the ledger how far it came:
        reserved counters that were not used are free again."""

    def forget_ledger(self) -> None:
        """Note nothing more: the place is another's. The session goes on without one."""

    def open(
        self,
        datagrams: ReadableBuffer,
        start: int,
        end: int,
        stride: int,
        out: bytearray,
        *,
        coalesce: Offload = Offload.ALL,
        outer_ecn: int = 0,
    ) -> Opened:
        """Authenticate, decrypt, check for replay, trim and coalesce a batch of datagrams.

        datagrams   buffer with the batch at ``[start:end]``, cut every `stride` bytes; not
                    modified. The bytes are hostile.
        out         receives the frames, from 0 on; never resized. ``len(out) >= end - start``
                    always suffices and is required.
        coalesce    kinds of packets that may be merged.
        outer_ecn   ECN field (two bits) of the outer header of all these datagrams.

        Taking ends before the first datagram that is not a transport message for this session: its
        length under 32, its first 4 bytes not 04 00 00 00, or its receiver not `local_index`. The
        caller hands that one to the protocol, or to the session it belongs to, and calls again.

        Drops, in this order of checks (the first that applies is counted, once per datagram):
            counter_limit   counter >= REJECT_AFTER_MESSAGES
            replay          counter + REPLAY_WINDOW < greatest counter so far, or seen before
            authentication  the tag is wrong
          from here on the datagram counts in `packets`, and its counter is marked as seen (never
          before); an empty plaintext counts in `keepalives` and ends here
            ethernet        without Ethernet: the first nibble is 3
            ip_version, ip_length   as in `seal`
            not_ethernet    with Ethernet: it does not begin with 30 00
            truncated       with Ethernet: fewer than 16 bytes
        The packet is as long as its IP header says; the padding behind it is removed.

        ECN (RFC 6040, figure 4): outer CE makes inner ECT(0), ECT(1) and CE to CE; outer ECT(1)
        makes inner ECT(0) to ECT(1); otherwise the inner field stays. The IPv4 header checksum is
        updated incrementally (RFC 1624, eqn. 3: ~(~HC + ~m + m'), carries folded, on the header's
        first word, and only if the field changes), so that a wrong one stays wrong. Not-ECT inside
        CE is delivered as it is, unlike in the RFC; the kernel's WireGuard does so.

        Coalescing. A *plain* packet is: IPv4 with first byte 0x45, neither MF nor offset nor the
        reserved flag, protocol TCP or UDP; or IPv6 with next header TCP or UDP; and a TCP header of
        at least 20 bytes whose data offset is >= 5 and inside the packet, or 8 bytes for UDP. Its
        flow is protocol, addresses and ports. Any packet that is not plain ends every run and is a
        frame by itself.
        A plain packet is *mergeable* if its kind is in `coalesce`, its payload is not empty, its
        IPv4 header checksum is right, its transport checksum is right (for UDP also: not zero), and
            TCP: flags are ACK or ACK+PSH with all others and the four reserved bits zero
            UDP: the length field is the length of the IP payload
        A plain packet that is not mergeable ends the run of its flow and is a frame by itself.
        A mergeable packet joins the run of its flow if
            TOS and TTL, or traffic class, flow label and hop limit are equal, and DF is;
            DF clear: its identification is the first one's plus its place in the run (mod 2^16)
            TCP: data offset, ack, window, urgent pointer and options are equal, and its sequence
            number is the next one (mod 2^32)
            its payload is not longer than the first one's
            the packet stays within MAX_FRAME_PACKET, and UDP within 64 datagrams
        Otherwise it ends that run and begins a new one. A run ends also after a packet shorter than
        the first one, and after one with PSH (be it the first).

        Frames are ordered by their first packet, so that the order within a flow holds.
        A run of one packet is that packet behind a virtio header of ten zero bytes. A longer one
        has the first packet's headers with new length fields, IPv4 header checksum, PSH if the last
        one has it, and in the checksum field the folded, not complemented sum of the pseudo-header
        (0xffff, never 0); in the virtio header flags NEEDS_CSUM (1), gso_type TCPV4, TCPV6 or
        UDP_L4, hdr_len of all headers, gso_size of the first payload, csum_start where the
        transport header begins, csum_offset 16 or 6.

        Raises nothing whatever the bytes are; ValueError for offsets outside the buffers, a stride
        below 1 or an `out` too short.
        """


class MacCheck(Protocol):
    """The functions that a datapath offers under the names ``check_mac1`` and ``check_mac2``."""

    def __call__(
        self, key: bytes, datagrams: ReadableBuffer, start: int, end: int, stride: int, /
    ) -> bytes:
        """One byte for each datagram of a batch: 1 if its mac1, or its mac2, is right, else 0.

        They are its last 32 bytes, each a keyed BLAKE2s of 16 bytes over all before it (whitepaper,
        section 5.4.4): mac1 under a `key` of 32 bytes, mac2 under the cookie of the sender, of 16.
        Where the batch is, and that its bytes are hostile, is as in `open`.

        Raises nothing whatever the bytes are; ValueError for a key of another length, offsets
        outside the buffer, or a stride below 1.
        """


class SessionFactory(Protocol):
    """The constructor that a datapath offers under the name ``Session``."""

    def __call__(
        self,
        send_key: bytes,
        receive_key: bytes,
        local_index: int,
        remote_index: int,
        *,
        initial_counter: int = 0,
        received: int = 0,
        ledger: Place | None = None,
        ethernet: bool = False,
        short_tails: bool = False,
    ) -> Session:
        """Make a session of two 32-byte keys and two 32-bit indices.

        With `ethernet` it carries the frames of a TAP device. With `short_tails` no batch is of
        equally long datagrams only, see `Session.seal`: some kernels damage those.

        A session that goes on where another left off seals from `initial_counter` on, and takes
        counters below `received` for seen. With a `ledger` it notes there how far it goes.
        Raises ValueError if a key is not 32 bytes, or an index or the counter is out of range.
        """
