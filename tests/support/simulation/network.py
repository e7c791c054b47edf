"""A seeded, terrible network in virtual time: loss, duplication, delay, reordering, corruption.

Everything happens in one queue of (time, what). Nodes are awake when the queue says so; hours pass
as fast as they can be computed, and the same seed gives the same hours.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from .node import Address, Cipher, Node
from .reference import ReferenceNode

START_UNIX_NS = 1_750_000_000 * 10**9

Station: TypeAlias = Node | ReferenceNode


@dataclass
class Weather:
    """What happens to a datagram: probabilities, and seconds of delay (uniform, so it reorders)."""

    loss: float = 0.0
    duplication: float = 0.0
    corruption: float = 0.0
    delay: tuple[float, float] = (0.005, 0.020)


class Network:
    """Nodes, the datagrams between them, and the clock."""

    def __init__(self, seed: int, weather: Weather | None = None) -> None:
        self.random = random.Random(seed)
        self.weather = weather or Weather()
        self.now = 0.0
        self.wall_offset_ns: dict[str, int] = {}
        self.nodes: list[Node] = []
        self.counts: Counter[str] = Counter()
        self.taps: list[Callable[[Address, Address, bytes], None]] = []
        self.lose: set[int] = set()
        """Datagrams that are lost whatever the weather, counted from 0."""
        self._at: dict[Address, Station] = {}
        self._asleep: dict[str, float] = {}
        self._armed: dict[str, float] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._packets = 0

    # --- Building --------------------------------------------------------------------------------

    def add_node(self, name: str, cipher: type[Cipher] = Cipher) -> Node:
        number = len(self.nodes) + 1
        node = Node(
            name,
            seed=self.random.getrandbits(64),
            address=Address(bytes([192, 0, 2, number])),
            inner=bytes([10, 0, 0, number]),
            transmit=self.transmit,
            unix_time_ns=lambda: self.unix_time_ns(name),
            cipher=cipher,
            keep_events=False,
        )
        self.nodes.append(node)
        self._at[node.address] = node
        return node

    def add_reference_node(self, other: Node) -> ReferenceNode:
        """A node that answers as wireguard-go does; it and `other` are peers of each other."""
        number = 100 + len(self.nodes)
        node = ReferenceNode(
            "reference",
            seed=self.random.getrandbits(64),
            address=Address(bytes([192, 0, 2, number])),
            inner=bytes([10, 0, 0, number]),
            transmit=self.transmit,
            unix_time_ns=lambda: self.unix_time_ns("reference"),
        )
        self._at[node.address] = node
        node.set_peer(other.public_key, other.address)
        other.add_peer(node)
        return node

    def join(self, a: Node, b: Node) -> None:
        """Make two nodes peers of each other, with endpoints."""
        a.add_peer(b)
        b.add_peer(a)

    def unix_time_ns(self, name: str) -> int:
        return START_UNIX_NS + int(self.now * 1e9) + self.wall_offset_ns.get(name, 0)

    @property
    def stations(self) -> list[Station]:
        """All that are there, in the order in which they were added."""
        return list(self._at.values())

    # --- What befalls nodes ----------------------------------------------------------------------

    def move(self, node: Node, address: Address) -> None:
        """The node gets another address; its peers do not know."""
        del self._at[node.address]
        node.address = address
        self._at[address] = node

    def suspend(self, node: Node, seconds: float) -> None:
        """The node does nothing and hears nothing; its clock runs on."""
        self._asleep[node.name] = self.now + seconds
        self.at(self.now + seconds, lambda: self._act(node, node.wake))

    def restart(self, node: Node) -> None:
        """The node forgets everything but its key and its configuration."""
        others = [other for other in self.nodes if other.public_key in node.interface.peers]
        node.now = self.now
        node.restart()
        for other in others:
            node.add_peer(other)
        self._armed.pop(node.name, None)

    # --- Running ---------------------------------------------------------------------------------

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._queue, (when, self._serial, what))

    def run(self, until: float) -> None:
        """Let time pass up to `until`."""
        while self._queue and self._queue[0][0] <= until:
            when, _, what = heapq.heappop(self._queue)
            self.now = max(self.now, when)
            what()
        self.now = until

    def send(self, source: Station, destination: Station) -> int:
        """An application on `source` sends a packet; its serial number."""
        self._packets += 1
        serial = self._packets
        self._act(source, lambda: source.send(destination.inner, serial))
        return serial

    def transmit(self, source: Address, destination: Address, datagram: bytes) -> None:
        for tap in self.taps:
            tap(source, destination, datagram)
        weather, draw = self.weather, self.random.random
        number = self.counts["sent"]
        self.counts["sent"] += 1
        if number in self.lose or draw() < weather.loss:
            self.counts["lost"] += 1
            return
        copies = 1
        if draw() < weather.duplication:
            self.counts["duplicated"] += 1
            copies = 2
        for _ in range(copies):
            data = datagram
            if weather.corruption and draw() < weather.corruption:
                self.counts["corrupted"] += 1
                flipped = bytearray(data)
                flipped[self.random.randrange(len(flipped))] ^= 1 << self.random.randrange(8)
                data = bytes(flipped)
            arrival = self.now + self.random.uniform(*weather.delay)
            self.at(arrival, self._delivery(source, destination, data))

    def _delivery(self, source: Address, destination: Address, data: bytes) -> Callable[[], None]:
        def deliver() -> None:
            node = self._at.get(destination)
            if node is None or self._asleep.get(node.name, 0.0) > self.now:
                self.counts["no node there"] += 1
                return
            self._act(node, lambda: node.receive(data, source))

        return deliver

    def _act(self, node: Station, what: Callable[[], None]) -> None:
        """Let a node do something now, then see to its timer."""
        if self._asleep.get(node.name, 0.0) > self.now:
            return
        node.now = self.now
        what()
        deadline = node.next_deadline()
        if deadline is not None and deadline < self._armed.get(node.name, float("inf")):
            self._armed[node.name] = deadline
            self.at(max(deadline, self.now), lambda: self._alarm(node, deadline))

    def _alarm(self, node: Station, deadline: float) -> None:
        if self._armed.get(node.name) == deadline:
            del self._armed[node.name]
        self._act(node, node.wake)
