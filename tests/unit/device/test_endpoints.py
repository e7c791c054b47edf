from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from tests.support.uapi_device import make_engine
from tunnel.config import EndpointConfig, PeerConfig, PrivateKey
from tunnel.control.uapi_changes import PeerChange
from tunnel.device import configure
from tunnel.device.endpoints import FIRST_PAUSE, Endpoints
from tunnel.device.resolve import ResolveError
from tunnel.engine import Clock, Engine, Peer
from tunnel.io.endpoint import Endpoint, Source
from tunnel.protocol import HandshakeCompleted, HandshakeUnanswered

KEY = PrivateKey.from_bytes(bytes([7] * 32)).public_key()
NAME = EndpointConfig("peer.example", 51820)
PEER = PeerConfig(KEY, endpoint=NAME)


def at(number: int) -> Endpoint:
    return Endpoint(bytes([192, 0, 2, number]), 51820)


@dataclass
class Book:
    """What the names mean, and how often was asked."""

    addresses: list[Endpoint] = field(default_factory=list)
    asked: int = 0

    async def look_up(self, wanted: EndpointConfig) -> Sequence[Endpoint]:
        self.asked += 1
        if not self.addresses:
            raise ResolveError(wanted, "unknown")
        return self.addresses


def make(*addresses: Endpoint, clock: Clock = lambda: 0.0) -> tuple[Endpoints, Book, Engine, Peer]:
    book = Book(list(addresses))
    names = Endpoints(book.look_up, clock)
    trio.run(names.update, [PEER], {KEY: list(addresses)})
    engine, _ = make_engine()
    peer = engine.interface.add_peer(KEY)
    peer.set_endpoint(addresses[0])
    return names, book, engine, peer


def completed(peer: Peer) -> HandshakeCompleted:
    return HandshakeCompleted(peer.public_key, peer.endpoint, True, 1, 2, 0.01)


def test_addresses_are_tried_in_turn() -> None:
    names, *_ = make(at(1), at(2), at(3))
    tried = [at(1)]
    for _ in range(4):
        tried.append(names.retry(tried[-1]))
    assert tried == [at(1), at(2), at(3), at(1), at(2)]


def test_address_that_worked_gets_a_second_chance() -> None:
    names, _, _, peer = make(at(1), at(2))
    names.handle_event(completed(peer))
    assert names.retry(at(1)) == at(1)
    assert names.retry(at(1)) == at(2)


def test_source_address_is_forgotten_on_retry_whoever_it_is() -> None:
    names, *_ = make(at(1))
    source = Source(bytes([192, 0, 2, 9]), 3)
    for number in (1, 50):
        sticky = Endpoint(bytes([192, 0, 2, number]), 51820, 0, source)
        assert names.retry(sticky) == at(number)


def test_endpoint_given_as_an_address_is_left_alone() -> None:
    names = Endpoints()
    peer = PeerConfig(KEY, endpoint=EndpointConfig("192.0.2.1", 51820))
    trio.run(names.update, [peer], {KEY: [at(1)]})
    assert names.retry(at(1)) == at(1)
    assert names.names().get(KEY) is None


async def _unanswered(names: Endpoints, engine: Engine, peer: Peer, times: int = 1) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(names.run, engine)
        for attempt in range(times):
            names.handle_event(HandshakeUnanswered(peer.public_key, peer.endpoint, attempt + 1))
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


def test_changed_name_leads_the_peer_to_its_new_address() -> None:
    names, book, engine, peer = make(at(1))
    book.addresses = [at(5), at(6)]
    trio.run(_unanswered, names, engine, peer)
    assert peer.endpoint == at(5)
    assert names.retry(at(5)) == at(6)


def test_roamed_peer_that_is_silent_is_led_back_to_its_name() -> None:
    names, _, engine, peer = make(at(1), at(2))
    peer.set_endpoint(at(77))
    trio.run(_unanswered, names, engine, peer)
    assert peer.endpoint == at(1)


def test_endpoint_set_by_hand_outlives_an_unanswered_attempt() -> None:
    names, _, engine, peer = make(at(1), at(2))
    trio.run(configure.apply, engine, [PeerChange(KEY, endpoint=at(77))], names)
    trio.run(_unanswered, names, engine, peer, 3)
    assert peer.endpoint == at(77)
    assert names.retry(at(77)) == at(77)
    assert names.names().get(KEY) is None
    # Nor does a reload of the same conf bring the name back; one with another name does.
    trio.run(names.update, [PEER], {})
    assert names.names().get(KEY) is None
    trio.run(names.update, [PEER], {KEY: [at(3)]})
    assert names.names().get(KEY) == NAME
    assert names.retry(at(3)) == at(3)


def test_address_of_the_name_set_by_hand_leaves_it_the_name() -> None:
    names, _, engine, _ = make(at(1), at(2))
    trio.run(configure.apply, engine, [PeerChange(KEY, endpoint=at(2))], names)
    assert names.names().get(KEY) == NAME
    assert names.retry(at(2)) == at(1)


def test_peer_that_was_removed_by_hand_comes_back_without_its_name() -> None:
    names, _, engine, _ = make(at(1))
    trio.run(configure.apply, engine, [PeerChange(KEY, remove=True), PeerChange(KEY)], names)
    trio.run(_unanswered, names, engine, engine.interface.peers[KEY])
    assert engine.interface.peers[KEY].endpoint is None


def test_address_still_in_the_name_is_kept() -> None:
    names, book, engine, peer = make(at(1), at(2))
    book.addresses = [at(3), at(1)]
    trio.run(_unanswered, names, engine, peer)
    assert peer.endpoint == at(1)


def test_name_is_asked_for_ever_more_seldom_and_at_once_after_an_answer() -> None:
    clock = [1000.0]
    names, book, engine, peer = make(at(1), clock=lambda: clock[0])

    async def main() -> list[float]:
        asked = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(names.run, engine)
            for _ in range(80):
                before = book.asked
                names.handle_event(HandshakeUnanswered(peer.public_key, peer.endpoint, 1))
                await trio.testing.wait_all_tasks_blocked()
                if book.asked > before:
                    asked.append(clock[0] - 1000)
                clock[0] += FIRST_PAUSE
            nursery.cancel_scope.cancel()
        return asked

    assert trio.run(main) == [0, 5, 15, 35, 75, 155, 275, 395]
    names.handle_event(completed(peer))
    clock[0] += 200
    book.asked = 0
    trio.run(_unanswered, names, engine, peer, 2)
    assert book.asked == 1


def test_name_that_cannot_be_found_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    names, book, engine, peer = make(at(1))
    book.addresses = []
    trio.run(_unanswered, names, engine, peer)
    assert peer.endpoint == at(1)
    assert "Endpoint = peer.example:51820: unknown" in caplog.text


def test_answer_for_a_peer_that_is_gone_is_ignored() -> None:
    names, book, engine, peer = make(at(1))
    book.addresses = [at(2)]
    engine.interface.remove_peer(KEY)
    trio.run(_unanswered, names, engine, peer)
    assert peer.endpoint == at(1)


def look_up_at_leisure(scenario: Callable[[Book, Endpoints, Peer], Awaitable[None]]) -> None:
    """Run `scenario` with a name that had no address, and what looks it up."""
    book = Book()
    engine, _ = make_engine()
    peer = engine.interface.add_peer(KEY)

    async def main() -> None:
        names = Endpoints(book.look_up, trio.current_time)
        await names.update([PEER], {KEY: []})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(names.run, engine)
            await scenario(book, names, peer)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_name_without_an_address_is_looked_up_until_it_has_one() -> None:
    async def scenario(book: Book, names: Endpoints, peer: Peer) -> None:
        await trio.sleep(FIRST_PAUSE * 2)
        assert book.asked == 2
        assert peer.endpoint is None
        book.addresses = [at(3)]
        await trio.sleep(FIRST_PAUSE * 2)
        assert peer.endpoint == at(3)
        asked = book.asked
        # It stays the name's, and has no need of further look-ups.
        await trio.sleep(1000)
        assert book.asked == asked
        assert names.names() == {KEY: NAME}

    look_up_at_leisure(scenario)


def test_reload_looks_a_name_without_an_address_up_at_once() -> None:
    async def scenario(book: Book, names: Endpoints, peer: Peer) -> None:
        await trio.testing.wait_all_tasks_blocked()
        book.addresses = [at(3)]
        await names.update([PEER], {})
        await trio.testing.wait_all_tasks_blocked()
        assert peer.endpoint == at(3)

    look_up_at_leisure(scenario)
