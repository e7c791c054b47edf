"""What a pump is: one call for everything between a wake-up and the next sleep that needs no
decision.

Out: frames are read from the TUN, looked up, split, sealed and sent. In: datagrams are received,
looked up, opened, checked and merged, and their packets written.

A pump decides nothing. It does what it was taught: whose an inner address is, how to send to a
peer, which sessions there are and from where their datagrams come. What it was not taught it gives
back, to be done by the caller, who then may teach it. So whatever changes, the caller need only
make it forget.

There is one in the native datapath. Without it the engine takes each step itself.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

from tunnel.datapath.interface import Offload, Session

Source: TypeAlias = tuple[bytes, int] | None
"""One of our addresses, packed, and an interface index or 0; None leaves both to the kernel."""

Message: TypeAlias = tuple[int, int, bytes]
"""A control message: level, type, data."""

READ_SIZE = 65_536 + 64
"""Bytes that a frame may have."""

ARENA_SIZE = 2 * READ_SIZE
"""Bytes of the buffer that frames are given back in."""


class Sealing(NamedTuple):
    """Frames sealed for one peer: its number, and the datagrams and bytes that they became."""

    peer: int
    packets: int
    wire_bytes: int


class Unsent(NamedTuple):
    """A batch that the socket did not take: datagrams of `stride` bytes with these ECN bits."""

    peer: int
    datagrams: bytes
    stride: int
    ecn: int


class Outgoing(NamedTuple):
    """What `Pump.send` did.

    frames  read from the TUN, those that are left included.
    cost    what they took off the budget.
    sealed  in the order of sending.
    drops   frames dropped, by reason.
    unsent  to be sent before anything else.
    left    frames that it was not taught what to do with: spans of `arena`, in order. They are to
            be sent after what is unsent, and before the next call.
    error   errno of the read that ended it, or 0.
    empty   whether the TUN had no more frames.
    """

    frames: int
    cost: int
    sealed: Sequence[Sealing]
    drops: dict[str, int] | None
    unsent: Sequence[Unsent]
    left: list[tuple[int, int]]
    error: int
    empty: bool


class Opening(NamedTuple):
    """What one session, of this receiver index, opened of one batch.

    packets     datagrams that were authentic and new, `keepalives` of them without a packet.
    wire_bytes  their length.
    """

    local_index: int
    packets: int
    keepalives: int
    wire_bytes: int


class Refused(NamedTuple):
    """What `Pump.receive` dropped, in datagrams and packets.

    drops       by the reasons of the datapath.
    unknown     data of no session.
    forged      handshake messages with a wrong mac1: initiations without a mac2, and others.
    unanswered  initiations without a mac2, of those who are sent no cookie.
    malformed   no message at all.
    congested   not dropped: packets in datagrams that were marked CE on the way.
    busy        frames that the TUN had no room for.
    """

    drops: dict[str, int]
    unknown: int
    forged: tuple[int, int]
    unanswered: int
    malformed: int
    congested: int
    busy: int


class Datagrams(NamedTuple):
    """A batch given back, as `socket.recvmsg_into` gives it. It lies at the start of `buffer`."""

    length: int
    messages: list[Message]
    flags: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int]


Initiation: TypeAlias = tuple[
    bytes, tuple[Message, ...], tuple[str, int] | tuple[str, int, int, int]
]
"""An initiation with a right mac1: the message, its control messages, the address of its sender."""


class Frames(NamedTuple):
    """Frames given back, all of the session with this receiver index: spans of `out`, in order.

    The first is not known to come from an allowed source, or the TUN refused it.
    """

    local_index: int
    spans: list[tuple[int, int]]


class Incoming(NamedTuple):
    """What `Pump.receive` did.

    batches      received, but for the one given back.
    cost         what they took off the budget.
    opened       in order.
    initiations  gathered, in order.
    refused      what was counted; None if there was nothing.
    stop         what has to be decided before the next call, or errno of a receive; None if nothing
                 more was there, or the budget was used up.
    alone        whether a packet that came alone was written, and no other looked for.
    answer       what became of the kernel's answer to what was written, if that was looked for.
    """

    batches: int
    cost: int
    opened: Sequence[Opening]
    initiations: Sequence[Initiation]
    refused: Refused | None
    stop: Datagrams | Frames | int | None
    alone: bool
    answer: Outgoing | None


class Pump(Protocol):
    """See the module. Times are seconds of one clock; addresses are packed."""

    def set_descriptors(self, tun: int, v4: int, v6: int) -> None:
        """Work on these, which the caller keeps open; -1 for a socket that there is not."""

    def set_mac1_key(self, key: bytes | None) -> None:
        """Drop handshake messages to us that have not the right mac1; None: give all back."""

    def teach_address(self, address: bytes, peer: int) -> None:
        """An inner address is the peer's, as a destination and as a source."""

    def teach_way(
        self,
        peer: int,
        session: Session,
        address: bytes,
        port: int,
        scope_id: int,
        source: Source,
        gso: bool,
        until: float,
    ) -> None:
        """Seal with this session and send there, before `until`. `gso`: batches in one call."""

    def teach_receiver(
        self,
        peer: int,
        session: Session,
        address: bytes,
        port: int,
        scope_id: int,
        source: Source,
        until: float,
    ) -> None:
        """Open what comes from there to `source` with this session, before `until`.

        Without effect unless `set_indices` named its local index.
        """

    def set_indices(self, peer: int, indices: Sequence[int]) -> None:
        """The peer's sessions have these local indices; nothing else is known of it."""

    def forget_addresses(self) -> None:
        """Whose an inner address is, is to be asked for again."""

    def forget(self) -> None:
        """All is to be asked for again; indices of sessions stay known."""

    def send(self, now: float, mtu: int, most: int, budget: int, arena: bytearray) -> Outgoing:
        """Read frames and send them, `most` of them, until `budget` is used up.

        `arena` has room for ARENA_SIZE bytes.
        """

    def receive(
        self,
        v6: bool,
        now: float,
        mtu: int,
        budget: int,
        coalesce: Offload,
        lone: bool,
        look: bool,
        may_answer: bool,
        show_forged: bool,
        unanswered: bool | tuple[bytes, int],
        gather: bool,
        buffer: bytearray,
        out: bytearray,
        arena: bytearray,
    ) -> Incoming:
        """Receive from the socket of IPv4, or IPv6, and write, until `budget` is used up.

        With `lone`, a single packet is taken to come alone, and no other looked for unless `look`.
        With `may_answer`, what the kernel answers is sent. With `show_forged`, a
        message with a wrong mac1 is given back. Initiations without a mac2 are dropped if they
        come from the address and port `unanswered`, or if that is True. With `gather`, batches of
        nothing but initiations with a right mac1 are gathered, and not given back. `buffer` has
        room for a batch, `out` for the frames of one, `arena` for ARENA_SIZE bytes.
        """
