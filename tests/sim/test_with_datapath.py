"""The same hours with the product's own sessions: protocol and datapath fit together."""

import struct

from tests.support.simulation.network import Network, Weather
from tests.support.simulation.node import Cipher
from tests.support.simulation.scenarios import TERRIBLE, answers, check_all, talk
from tunnel.datapath import reference
from tunnel.protocol.constants import REKEY_AFTER_MESSAGES

_IPV4 = struct.Struct(">BBHHHBBH4s4s")
_FRAME_HEAD = bytes(10)  # struct virtio_net_hdr of a packet that is whole
_EXPERIMENTAL = 253
MTU = 1420


class DatapathCipher(Cipher):
    """The Python datapath behind the methods of the simulation's cipher."""

    def __init__(
        self, send_key: bytes, receive_key: bytes, local_index: int, remote_index: int
    ) -> None:
        self.session = reference.ReferenceSession(
            send_key, receive_key, local_index, remote_index, initial_counter=self.first_counter
        )
        super().__init__(send_key, receive_key, local_index, remote_index)
        self.out = bytearray(65_536)

    @property
    def send_counter(self) -> int:
        counter: int = self.session.send_counter
        return counter

    @send_counter.setter
    def send_counter(self, counter: int) -> None:
        assert counter == self.send_counter

    def seal(self, packet: bytes) -> bytes:
        if not packet:
            keepalive: bytes = self.session.seal_keepalive()
            return keepalive
        length = _IPV4.size + len(packet)
        head = _IPV4.pack(0x45, 0, length, 0, 0, 64, _EXPERIMENTAL, 0, packet[4:8], packet[:4])
        frame = _FRAME_HEAD + head + packet
        sealed = self.session.seal(frame, [(0, len(frame))], MTU, self.out)
        assert sealed.packets == sealed.consumed == 1
        (batch,) = sealed.batches
        return bytes(self.out[batch.start : batch.end])

    def open(self, datagram: bytes) -> bytes | None:
        opened = self.session.open(datagram, 0, len(datagram), len(datagram), self.out)
        if not opened.packets:
            assert opened.drops
            return None
        if opened.keepalives:
            return b""
        ((start, end),) = opened.frames
        return bytes(self.out[start + len(_FRAME_HEAD) + _IPV4.size : end])


class NearlySpentDatapath(DatapathCipher):
    first_counter = REKEY_AFTER_MESSAGES - 20


def test_hours_of_terrible_network() -> None:
    network = Network(1, TERRIBLE)
    a, b = network.add_node("a", DatapathCipher), network.add_node("b", DatapathCipher)
    network.join(a, b)
    for hour in range(1, 5):
        talk(network, [(a, b)], hour * 3600.0)
        check_all(network)
    network.weather = Weather()
    assert answers(network, a, b, 15.0)
    assert answers(network, b, a, 15.0)
    assert a.counts["refused"] > 0, "duplicates meet the replay window"


def test_message_limit() -> None:
    network = Network(2)
    a = network.add_node("a", NearlySpentDatapath)
    b = network.add_node("b", DatapathCipher)
    network.join(a, b)
    for _ in range(200):
        network.send(a, b)
        network.run(network.now + 0.5)
    assert len(b.received) == 200
    assert a.counts["initiation"] >= 4
