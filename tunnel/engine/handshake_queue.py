"""Handshake messages from the wire to the protocol, and what a flood of them may cost others.

Each is screened where it arrives, by what costs a microsecond or two: form, mac1, and under load
mac2. What passes waits in a bounded queue, of which at most a time slice is taken between two looks
at the sockets. Under load only those who have proved their address by a mac2 get there. All others
are sent a cookie at once, or are not answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from math import ceil
from random import Random
from typing import NamedTuple

import trio

from tunnel.datapath import Datapath
from tunnel.datapath.pump import Initiation
from tunnel.io.endpoint import SockAddr
from tunnel.io.udp_socket import Origin, Skip, UdpSocket, Writable, packed
from tunnel.protocol import ProtocolDrop, take_step
from tunnel.protocol.constants import HANDSHAKE_QUEUE, UNDER_LOAD_QUEUE

from .common import HANDSHAKE_REST, HANDSHAKE_SLICE, HANDSHAKES_TOGETHER, EngineDrop
from .shared import Shared
from .thinning import FLOOD, PERIOD, Thinning

TYPE_COOKIE_REPLY = 3
TYPE_TRANSPORT = 4
"""First byte of a cookie reply, and of a transport data message."""

INITIATION = b"\1\0\0\0"
INITIATION_LENGTH = 148
"""How an initiation begins, and its length."""

MAC_LENGTH = 16
NO_MAC = bytes(MAC_LENGTH)
"""mac2 of one who has no cookie. It ends the message."""


STEPS = 3
"""Of `Interface.initiation_steps`."""
APART = 3
"""So many initiations together are worth a thread; their next step waits until it had time."""


class Waiting(NamedTuple):
    """A message that was not looked into yet, and where it came from.

    `admitted`: it came under load, and was admitted. `mac1_key`: by which its mac1 was checked.
    """

    datagram: bytes
    origin: Origin
    admitted: bool
    mac1_key: bytes | None


class HandshakeQueue:
    """Screens and answers them. `random` chooses which messages a flood displaces.

    While `is_behind`, datagrams wait in a socket.
    """

    def __init__(self, shared: Shared, path: Datapath, *, random: Callable[[int], bytes]) -> None:
        self._shared = shared
        self._path = path
        # A generator of its own: what is drawn for every datagram must cost next to nothing.
        self._draw = Random(random(16)).getrandbits
        self._queue: deque[Waiting] = deque()
        self._under_way: list[tuple[Generator[int, float, None], int]] = []
        self._ready = trio.Event()
        self._bare = self._rest = 0
        self._flooded = trio.Event()
        self._refused: SockAddr | None = None
        self.is_behind = False

    def __len__(self) -> int:
        """Messages received and not yet looked into."""
        return len(self._queue)

    def skip(self, now: float) -> Skip | None:
        """What finds out, in a microsecond, most of the messages that need no look.

        None without load. A flood comes datagram by datagram; a batch is screened.
        """
        if not self._shared.interface.is_under_load(now):
            return None
        may_send_cookie = self._shared.interface.may_send_cookie
        count_drop = self._shared.interface.count_drop

        def is_hopeless(buffer: Writable, length: int, sockaddr: SockAddr) -> bool:
            if (
                length != INITIATION_LENGTH
                or bytes(buffer[:4]) != INITIATION
                or bytes(buffer[INITIATION_LENGTH - MAC_LENGTH : INITIATION_LENGTH]) != NO_MAC
                or may_send_cookie(packed(sockaddr), now)
            ):
                return False
            self._refused = sockaddr
            count_drop(ProtocolDrop.COOKIE_UNANSWERED)
            self.count(1, is_bare=True)
            return True

        return is_hopeless

    def unanswered(self, now: float) -> bool | tuple[bytes, int]:
        """Who is sent no cookie now: all, or one of them by address and port; False if each may be.

        For the pump, which so drops most of a flood.
        """
        interface = self._shared.interface
        if not interface.is_under_load(now):
            return False
        if not interface.may_send_cookies(now):
            return True
        if self._refused is None:
            return False
        source = packed(self._refused)
        if interface.may_send_cookie(source, now):
            return False
        return source[:-2], self._refused[1]

    def screen_untrusted(
        self, buffer: bytearray, start: int, length: int, stride: int, origin: Origin, now: float
    ) -> int:
        """Screen the messages of a batch from `start` on, up to the next transport message.

        The first is taken for none, whatever it is. Returns where they end.
        """
        interface = self._shared.interface
        kinds = bytes(buffer[start:length:stride])
        count = kinds.find(TYPE_TRANSPORT, 1)
        if count > 0:
            kinds = kinds[:count]
            length = start + count * stride
        is_bare = kinds[0] == INITIATION[0] and buffer[length - MAC_LENGTH : length] == NO_MAC
        self.count(len(kinds), is_bare=is_bare)
        alike = kinds.count(kinds[0]) == len(kinds)
        under_load = interface.is_under_load(now)
        mac2 = b""
        if under_load:
            source = origin.packed
            mac2 = self._check_mac2(buffer, start, length, stride, source, now)
            if (
                TYPE_COOKIE_REPLY not in kinds
                and not any(mac2)
                and not interface.may_send_cookie(source, now)
            ):
                interface.count_drop(ProtocolDrop.COOKIE_UNANSWERED, len(kinds))
                return length
        mac1 = self._check_mac1(buffer, start, length, stride)
        key = interface.mac1_key
        place = 0
        while place < len(kinds):
            at = start + place * stride
            datagram = bytes(buffer[at : min(at + stride, length)])
            # A batch of forgeries is found out, and counted, by the first of them. Not so cookie
            # replies, which have no mac1: each may be the one that is waited for.
            forged = alike and kinds[0] != TYPE_COOKIE_REPLY and not any(mac1[place:])
            count = len(kinds) - place if forged else 1
            right = mac1[place] == 1
            reason = interface.screen_untrusted(datagram, mac1_is_right=right, alike=count)
            if reason is ProtocolDrop.BAD_MAC1 and interface.is_refusal_news(reason, now):
                interface.report_refusal(reason, origin.endpoint, now)
            elif reason is None and (not under_load or kinds[place] == TYPE_COOKIE_REPLY):
                self._put(Waiting(datagram, origin, False, key), now)
            elif reason is None and not mac2[place]:
                # The cookie is the whole answer.
                interface.handle_message_untrusted(datagram, origin.endpoint, now)
            elif reason is None and interface.admit_proven(source, now):
                self._put(Waiting(datagram, origin, True, key), now)
            place += count
        return length

    def gather(self, sock: UdpSocket, initiations: Sequence[Initiation], now: float) -> None:
        """Let initiations wait that the pump has received from `sock`, and screened."""
        key = self._shared.interface.mac1_key
        bare = 0
        for message, control, sockaddr in initiations:
            bare += message.endswith(NO_MAC)
            self._put(Waiting(message, sock.origin(sockaddr, control), False, key), now)
        self.count(bare, is_bare=True)
        self.count(len(initiations) - bare, is_bare=False)

    def _check_mac1(self, buffer: bytearray, start: int, end: int, stride: int) -> bytes:
        """A 1 for each datagram with a right mac1."""
        key = self._shared.interface.mac1_key
        if key is None:
            return bytes(-(-(end - start) // stride))
        return self._path.check_mac1(key, buffer, start, end, stride)

    def _check_mac2(
        self, buffer: bytearray, start: int, end: int, stride: int, source: bytes, now: float
    ) -> bytes:
        """A 1 for each datagram with a right mac2."""
        ends = range(start + stride, end, stride)
        if buffer[end - MAC_LENGTH : end] == NO_MAC and all(
            buffer[each - MAC_LENGTH : each] == NO_MAC for each in ends
        ):
            cookie = None
        else:
            cookie = self._shared.interface.cookie_of(source, now)
        if cookie is None:
            return bytes(-(-(end - start) // stride))
        return self._path.check_mac2(cookie, buffer, start, end, stride)

    def _put(self, message: Waiting, now: float) -> None:
        queue = self._queue
        if len(queue) >= HANDSHAKE_QUEUE:
            # At random: to refuse the newest would leave to the flood whatever room there is.
            self._shared.counters.drop(EngineDrop.HANDSHAKE_QUEUE_FULL)
            queue[self._draw(32) % HANDSHAKE_QUEUE] = message
            return
        queue.append(message)
        if len(queue) >= UNDER_LOAD_QUEUE:
            self._shared.interface.set_under_load(now)
        self._ready.set()

    def count(self, messages: int, *, is_bare: bool) -> None:
        """Count messages that came, `is_bare`: without a mac2. A flood is noticed by that."""
        if is_bare:
            self._bare += messages
        else:
            self._rest += messages
        if self._bare + self._rest >= FLOOD:
            self._flooded.set()

    async def keep_queue_short(self) -> None:
        """Keep a flood from filling the socket's queue, until cancelled."""
        thinning = Thinning(self._shared.udp)
        while True:
            await self._flooded.wait()
            while self._flooded.is_set() or thinning.is_on:
                thinning.adjust(self._bare, self._rest)
                self._bare = self._rest = 0
                self._flooded = trio.Event()
                await trio.sleep(PERIOD)

    async def answer(self) -> None:
        """Hand messages to the protocol, a time slice of them in a turn, until cancelled.

        As many at once as fill the slice, by what those of the last turn took.
        """
        clock, queue = self._shared.clock, self._queue
        together = 1
        while True:
            await self._ready.wait()
            self._ready = trio.Event()
            while queue or self._under_way:
                # One message is enough while datagrams wait.
                count = min(1 if self.is_behind else together, len(queue))
                began = clock()
                part = self._answer_untrusted(count, began)
                took = max(clock() - began, HANDSHAKE_SLICE / HANDSHAKES_TOGETHER)
                together = min(ceil(HANDSHAKE_SLICE * part / took), HANDSHAKES_TOGETHER)
                if len(queue) >= UNDER_LOAD_QUEUE:
                    await trio.sleep(HANDSHAKE_REST)
                else:
                    await trio.lowlevel.checkpoint()

    def _answer_untrusted(self, count: int, now: float) -> float:
        """Hand in `count` messages of the queue, and go on with those under way.

        To how many messages from begin to end that comes, counting a step for a third of one.
        The newest first: those that wait longest, as after a suspend, may have been followed by
        others of the same peer, which are the ones that it expects.
        """
        interface, queue = self._shared.interface, self._queue
        messages = [queue.pop() for _ in range(count)]
        under_way, self._under_way = self._under_way, []
        if not self._shared.link_up:
            count += sum(number for _, number in under_way)
            interface.count_drop(ProtocolDrop.INTERFACE_DOWN, count)
            return count
        initiations = []
        for datagram, origin, admitted, mac1_key in messages:
            if datagram.startswith(INITIATION):
                initiations.append((datagram, origin.endpoint, admitted, mac1_key))
            else:
                interface.handle_message_untrusted(
                    datagram, origin.endpoint, now, admitted=admitted
                )
        if initiations:
            # What is opened elsewhere begins before we go on with what was begun before.
            under_way.insert(0, (interface.initiation_steps(initiations), len(initiations)))
        part = float(count - len(initiations))
        for steps, number in under_way:
            left = number
            while left:
                part += left / STEPS
                left = take_step(steps, now)
                if number >= APART:
                    break
            if left:
                self._under_way.append((steps, left))
        self._shared.drain(now)
        return part
