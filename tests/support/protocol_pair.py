"""Two nodes and the wire between them, moved by hand: nothing arrives until a test says so."""

from dataclasses import dataclass

from tests.support.simulation.node import Address, Cipher, Node
from tunnel.protocol import Peer

START_UNIX_NS = 1_750_000_000 * 10**9

INITIATION, RESPONSE, COOKIE_REPLY, DATA, KEEPALIVE = "IRCDK"


@dataclass(frozen=True)
class Sent:
    """A datagram on the wire, and when it was put there."""

    when: float
    source: Address
    destination: Address
    data: bytes

    @property
    def kind(self) -> str:
        if self.data[0] == 4:
            return KEEPALIVE if len(self.data) == 32 else DATA
        return (INITIATION, RESPONSE, COOKIE_REPLY)[self.data[0] - 1]


class Pair:
    """Two peers. `wire` holds what is under way, `log` all there ever was."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 0.0
        self.wall_offset_ns = 0
        self.wire: list[Sent] = []
        self.log: list[Sent] = []
        self._serial = 0
        self.a = self.node("a", 1, seed)
        self.b = self.node("b", 2, seed)
        self.ab = self.a.add_peer(self.b)
        self.ba = self.b.add_peer(self.a)

    def node(self, name: str, number: int, seed: int = 0, cipher: type[Cipher] = Cipher) -> Node:
        node = Node(
            name,
            seed=1000 * number + seed,
            address=Address(bytes([192, 0, 2, number])),
            inner=bytes([10, 0, 0, number]),
            transmit=self._transmit,
            unix_time_ns=lambda: START_UNIX_NS + int(self.now * 1e9) + self.wall_offset_ns,
            cipher=cipher,
        )
        node.now = self.now
        return node

    def _transmit(self, source: Address, destination: Address, data: bytes) -> None:
        sent = Sent(self.now, source, destination, data)
        self.wire.append(sent)
        self.log.append(sent)

    # --- Time ------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        self.advance_to(self.now + seconds)

    def live_to(self, when: float) -> None:
        """As `advance_to`, but everything sent arrives at once."""
        self.advance_to(when, live=True)

    def advance_to(self, when: float, *, live: bool = False) -> None:
        """Let timers run, in order, up to and including `when`. The wire stands still."""
        while True:
            due = [
                (deadline, node.name, node)
                for node in (self.a, self.b)
                if (deadline := node.interface.next_deadline()) is not None and deadline <= when
            ]
            if not due:
                break
            deadline, _, node = min(due)
            self.at(max(self.now, deadline))
            node.wake()
            if live:
                self.flow()
        self.at(when)

    def at(self, now: float) -> None:
        self.now = self.a.now = self.b.now = now

    # --- Traffic ---------------------------------------------------------------------------------

    def send(self, source: Node, destination: Node | None = None) -> int:
        """An application sends a packet to the other side."""
        self._serial += 1
        other = destination or (self.b if source is self.a else self.a)
        source.send(other.inner, self._serial)
        return self._serial

    def take(self) -> list[Sent]:
        """Empty the wire."""
        taken, self.wire[:] = list(self.wire), []
        return taken

    def deliver(self, sent: Sent, source: Address | None = None) -> None:
        for node in (self.a, self.b):
            if node.address == sent.destination:
                node.receive(sent.data, source or sent.source)

    def flow(self) -> None:
        """Deliver everything, and what comes of it."""
        while self.wire:
            for sent in self.take():
                self.deliver(sent)

    def connect(self) -> None:
        """A keypair that `a` initiated, confirmed, with a packet delivered."""
        serial = self.send(self.a)
        self.flow()
        assert serial in self.b.received

    def kinds(self, since: int = 0) -> str:
        """Everything sent since that point of the log, a letter each."""
        return "".join(sent.kind for sent in self.log[since:])

    def times(self, kind: str, since: int = 0) -> list[float]:
        return [sent.when for sent in self.log[since:] if sent.kind == kind]


def remaining(peer: Peer[Address, Cipher]) -> tuple[bool, bool, bool]:
    """Whether there is a previous, a current, a next keypair."""
    keypairs = peer.keypairs
    return keypairs.previous is not None, keypairs.current is not None, keypairs.next is not None
