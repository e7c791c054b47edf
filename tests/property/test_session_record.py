"""Two ends, of which one may die at any moment: between any two writes to its record, or in a call.

Whatever happens: no counter of a session is used twice, no packet is accepted twice, what is found
can be gone on with, and in the end both reach each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.revivals import End, Time, exchange
from tunnel import datapath
from tunnel.datapath import Datapath
from tunnel.engine.session_record import SessionRecord
from tunnel.io.endpoint import Endpoint

ELSEWHERE = Endpoint(bytes([198, 51, 100, 9]), 4444)

Step = tuple[str, int]

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 9)),
        st.tuples(st.just("receive"), st.integers(1, 5)),
        st.tuples(st.sampled_from(["carry", "replay", "initiate", "be initiated"]), st.just(0)),
        st.tuples(st.just("elapse"), st.sampled_from([1, 6, 25, 125, 181])),
        st.tuples(st.sampled_from(["move", "kill", "restart"]), st.just(0)),
        st.tuples(st.sampled_from(["die before", "die after"]), st.integers(0, 6)),
    ),
    max_size=25,
)


class Killed(BaseException):
    """The process is no more."""


class World:
    """Both ends, and all that was ever on the wire between them."""

    def __init__(self, path: Datapath) -> None:
        self.path = path
        self.time = Time()
        self.record = SessionRecord.create()
        self.kept = os.dup(self.record.fileno())
        self.a = End(1, self.time, self.record, path)
        self.b = End(2, self.time, None, path)
        self.a.add(self.b)
        self.b.add(self.a)
        self.sent: set[tuple[bytes, bytes]] = set()
        self.to_a: list[bytes] = []
        self.accepted: set[bytes] = set()
        self.wire: list[bytes] = []
        self.moved = False

    def note(self) -> None:
        """What `a` has sent is on the wire: nothing twice."""
        for data, *_ in self.a.udp.sent:
            if data[0] == 4:
                place = data[4:8], data[8:16]
                assert place not in self.sent
                self.sent.add(place)
            self.wire.append(data)
        self.a.udp.sent.clear()

    def to_b(self) -> None:
        """What `a` has sent arrives."""
        self.note()
        self.b.take(self.wire, self.a.udp.own)
        self.wire.clear()

    def from_b(self, messages: list[bytes]) -> None:
        """Messages of `b` arrive, each of which may be taken once."""
        source = ELSEWHERE if self.moved else self.b.udp.own
        for message in messages:
            self.to_a.append(message)
            if self.a.take([message], source):
                assert message not in self.accepted
                self.accepted.add(message)

    def step(self, name: str, amount: int) -> None:
        a, b = self.a, self.b
        match name:
            case "send":
                a.send(b, amount)
                self.to_b()
            case "receive":
                b.send(a, amount)
            case "carry":
                messages = [data for data, *_ in b.udp.sent]
                b.udp.sent.clear()
                self.from_b(messages)
                self.to_b()
            case "replay":
                self.from_b(self.to_a[-30:])
            case "initiate":
                b.take(a.initiate(b), a.udp.own)
            case "be initiated":
                self.from_b(b.initiate(a))
            case "elapse":
                a.elapse(amount)
            case "move":
                self.moved = not self.moved
            case "restart":
                a.engine.hand_over()
                self.go_on()
            case "kill":
                self.go_on()

    def go_on(self) -> None:
        """The next process of `a`."""
        self.note()
        self.record.close()
        self.record = SessionRecord.adopt(os.dup(self.kept))
        self.a = End(1, self.time, self.record, self.path)
        self.a.add(self.b)
        revived = self.a.engine.revive()
        assert revived.peers <= 1
        assert revived.sessions <= 3
        # Half of what was sent last still arrives.
        del self.wire[1::2]
        self.to_b()


@contextmanager
def dying(after: bool, writes: int) -> Iterator[None]:
    """Die at the write after so many, before or after it is done."""
    left = writes
    write = os.pwrite

    def pwrite(fd: int, data: bytes, at: int) -> int:
        nonlocal left
        left -= 1
        if left == -1 and not after:
            raise Killed
        done = write(fd, data, at)
        if left == -1:
            raise Killed
        return done

    with patch("os.pwrite", pwrite):
        yield


def small_blocks(name: str) -> Datapath:
    path = datapath.load(name)
    return path._replace(ledger=partial(path.ledger, block=3))


def live(path: Datapath, steps: list[Step]) -> None:
    world = World(path)
    death: Step | None = None
    for name, amount in steps:
        if name.startswith("die"):
            death = name, amount
            continue
        try:
            if death is None:
                world.step(name, amount)
            else:
                with dying(death[0] == "die after", death[1]):
                    world.step(name, amount)
        except Killed:
            death = None
            world.go_on()
        world.note()
    # Whatever happened: a handshake at worst, and they reach each other.
    world.to_b()
    for _ in range(3):
        world.a.peer(world.b).set_endpoint(world.b.udp.own)
        world.a.send(world.b)
        exchange(world.a, world.b)
        world.a.elapse(6)
        world.b.elapse(0)
    assert world.a.send(world.b)[0][0] == 4
    world.record.close()
    os.close(world.kept)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_an_end_that_dies_anywhere_repeats_nothing(steps: list[Step]) -> None:
    live(small_blocks("python"), steps)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_neither_does_the_preferred_datapath(steps: list[Step]) -> None:
    """Whose own writes are not interrupted here."""
    live(small_blocks(datapath.available()[0]), steps)
