"""One subject on the bench: the lines to it, what it delivers, and its peers."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import trio

from . import noise
from .noise import Identity, Keys, Opened, Pending
from .subject import DeviceState, Subject, SubjectError, Wire
from .wire import EXPERIMENT, Arrival, Kind, Stamps, packet, serial_of

PATIENCE = 5.0
"""Seconds in which what is due at once must come, also on a busy machine."""

START = 20.0
"""Seconds in which a program must answer its first initiation."""

QUIET = 1.0
"""Seconds in which what must not come would have come."""

SUBJECT_INNER = {4: "10.255.0.1", 6: "fd00:ff::1"}
"""Where inner packets of the subject's side come from."""


class BrokenRuleError(Exception):
    """The subject broke the rule of the case; the text says by what."""


class NotApplicableError(Exception):
    """The rule does not apply to this subject; the text says why."""


class Line:
    """A socket to the subject, and all that has come to it."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.history: list[Arrival] = []
        self._read = 0
        self._came = trio.Event()

    @property
    def endpoint(self) -> str:
        host = f"[{self.wire.address}]" if ":" in self.wire.address else self.wire.address
        return f"{host}:{self.wire.port}"

    async def listen(self) -> None:
        """Take what comes, until cancelled."""
        while True:
            self.history += await self.wire.receive()
            self._came.set()
            self._came = trio.Event()

    async def next(self, deadline: float) -> Arrival | None:
        """The next arrival that was not read yet; None if there is none until `deadline`."""
        while self._read == len(self.history):
            with trio.move_on_at(deadline) as scope:
                await self._came.wait()
            if scope.cancelled_caught and self._read == len(self.history):
                return None
        self._read += 1
        return self.history[self._read - 1]

    def forget(self) -> None:
        """Read no more of what has come until now."""
        self._read = len(self.history)

    async def expect(self, kind: Kind, within: float = PATIENCE, why: str = "") -> Arrival:
        """The next arrival of that kind; others are passed over."""
        return await self.expect_one(lambda arrival: arrival.kind is kind, kind.title, within, why)

    async def expect_one(
        self, wanted: Callable[[Arrival], bool], title: str, within: float, why: str = ""
    ) -> Arrival:
        """The next arrival that is `wanted`; others are passed over."""
        begin = trio.current_time()
        seen = []
        while (arrival := await self.next(begin + within)) is not None:
            if wanted(arrival):
                return arrival
            seen.append(f"{arrival.title} after {max(0.0, arrival.at - begin):.2f} s")
        found = ", ".join(seen[:6]) or "nothing"
        raise BrokenRuleError(f"no {title} within {within:g} s{why and ' ' + why}; came: {found}")

    async def collect(self, seconds: float) -> list[Arrival]:
        """All that comes in this time."""
        deadline = trio.current_time() + seconds
        found = []
        while (arrival := await self.next(deadline)) is not None:
            found.append(arrival)
        return found

    async def silence(
        self, seconds: float, why: str, *, kinds: Iterable[Kind] = tuple(Kind)
    ) -> None:
        """Nothing of these kinds may come in this time."""
        begin = trio.current_time()
        unwanted = set(kinds)
        for arrival in await self.collect(seconds):
            if arrival.kind in unwanted:
                raise BrokenRuleError(
                    f"{arrival.title} after {max(0.0, arrival.at - begin):.2f} s, {why}"
                )


@dataclass
class Session:
    """Keys, and the counter of the next message."""

    keys: Keys
    begun: float
    counter: int = 0
    seen: set[int] = field(default_factory=set)


class Peer:
    """A peer of the subject's, with a line of its own."""

    def __init__(
        self, bench: Bench, number: int, line: Line, identity: Identity, psk: bytes
    ) -> None:
        self.bench = bench
        self.number = number
        self.line = line
        self.identity = identity
        self.psk = psk
        self.sent: bytes = b""
        """The last handshake message, with its MACs."""

    def inner(self, version: int = 4) -> str:
        """Its address inside."""
        return f"10.{self.number}.0.1" if version == 4 else f"fd00:{self.number:x}::1"

    # Handshakes

    async def send_initiation(
        self,
        *,
        line: Line | None = None,
        timestamp: bytes | None = None,
        cookie: bytes | None = None,
        low_order: bool = False,
    ) -> Pending:
        """Send one."""
        message, pending = noise.create_initiation(
            self.identity,
            self.bench.public,
            secrets.randbits(32),
            timestamp or self.bench.stamps.next(),
            low_order=low_order,
        )
        self.sent = noise.with_macs(message, self.bench.public, cookie)
        await (line or self.line).wire.send(self.sent)
        return pending

    async def complete(self, pending: Pending, response: Arrival) -> Session:
        """The session of a response; its mac1 and its keys must be right."""
        self.check_macs(response)
        keys = noise.open_response(self.identity, pending, response.data, self.psk)
        if keys is None:
            raise BrokenRuleError("a response that does not open")
        return Session(keys, response.at)

    async def handshake(
        self, *, line: Line | None = None, confirm: bool = True, cookie: bytes | None = None
    ) -> Session:
        """A session that we initiate; with `confirm` a keepalive of ours has confirmed it."""
        used = line or self.line
        pending = await self.send_initiation(line=line, cookie=cookie)
        response = await used.expect_one(
            lambda arrival: arrival.kind is Kind.RESPONSE and arrival.receiver == pending.index,
            "response to an initiation",
            PATIENCE,
        )
        session = await self.complete(pending, response)
        if confirm:
            await self.send(session, line=line)
        return session

    def check_macs(self, arrival: Arrival, cookie: bytes | None = None) -> None:
        """mac1 must be of our key, mac2 of `cookie` or zero."""
        right = noise.with_macs(arrival.data[:-32], self.identity.public, cookie)
        if arrival.data[-32:-16] != right[-32:-16]:
            raise BrokenRuleError(f"{arrival.title} with a wrong mac1")
        if arrival.data[-16:] != right[-16:]:
            what = "not zero without a cookie" if cookie is None else "not of our cookie"
            raise BrokenRuleError(f"{arrival.title} whose mac2 is {what}")

    def open_initiation(self, arrival: Arrival) -> Opened:
        """Read an initiation of the subject's."""
        opened = noise.open_initiation(self.identity, arrival.data)
        if opened is None or opened.static != self.bench.public:
            raise BrokenRuleError("an initiation that does not open, or is of another key")
        return opened

    async def expect_initiation(self, within: float = PATIENCE, why: str = "") -> Arrival:
        """The next one, with right MACs."""
        return await self.line.expect(Kind.INITIATION, within, why)

    async def expect_latest_initiation(self) -> Arrival:
        """The one that may still be answered, of several that came."""
        arrival = await self.expect_initiation()
        while (later := await self.line.next(trio.current_time() + 0.05)) is not None:
            arrival = later if later.kind is Kind.INITIATION else arrival
        return arrival

    def create_response(self, initiation: Arrival, psk: bytes | None = None) -> Session:
        """Answer it; `sent` is the response, which is not sent yet."""
        opened = self.open_initiation(initiation)
        psk = self.psk if psk is None else psk
        message, keys = noise.create_response(opened, secrets.randbits(32), psk)
        self.sent = noise.with_macs(message, self.bench.public)
        return Session(keys, trio.current_time())

    async def respond(self, initiation: Arrival, *, psk: bytes | None = None) -> Session:
        """Answer it."""
        session = self.create_response(initiation, psk)
        await self.line.wire.send(self.sent)
        return session

    async def be_initiated(self) -> tuple[Session, int]:
        """A session that the subject initiates by a packet of an application; its serial, too."""
        serial = await self.inject()
        session = await self.respond(await self.expect_initiation())
        await self.expect_packet(session, serial)
        return session, serial

    # Packets

    async def inject(
        self, *, size: int = 0, version: int = 4, ecn: int = 0, to: str | None = None
    ) -> int:
        """Let an application of the subject's send us a packet; its serial."""
        serial = self.bench.next_serial()
        target = to or self.inner(version)
        inner = packet(SUBJECT_INNER[version], target, serial, size=size, ecn=ecn)
        await self.bench.subject.inject(inner)
        return serial

    def seal(self, session: Session, inner: bytes = b"", counter: int | None = None) -> bytes:
        """A transport message, padded to 16 bytes."""
        if counter is None:
            counter, session.counter = session.counter, session.counter + 1
        head = b"\x04\0\0\0" + session.keys.remote.to_bytes(4, "little")
        padded = inner + bytes(-len(inner) % 16)
        return (
            head
            + counter.to_bytes(8, "little")
            + noise.aead(session.keys.send, counter, padded, b"")
        )

    async def send(
        self,
        session: Session,
        inner: bytes = b"",
        *,
        counter: int | None = None,
        line: Line | None = None,
        tos: int = 0,
    ) -> bytes:
        """Send a transport message: a keepalive without `inner`. Returns the datagram."""
        datagram = self.seal(session, inner, counter)
        await (line or self.line).wire.send(datagram, tos=tos)
        return datagram

    def packet(self, *, source: str | None = None, version: int = 4, ecn: int = 0) -> bytes:
        """A packet to the subject's machine, with a new serial."""
        serial = self.bench.next_serial()
        source = source or self.inner(version)
        return packet(source, SUBJECT_INNER[version], serial, ecn=ecn)

    async def check_delivered(
        self, session: Session, why: str, *, counter: int | None = None, line: Line | None = None
    ) -> None:
        """A packet of ours must come out of the subject's interface."""
        inner = self.packet()
        await self.send(session, inner, counter=counter, line=line)
        await self.bench.expect_delivered(inner, why)

    def open(self, session: Session, arrival: Arrival) -> bytes | None:
        """What is in a transport message of this session; None if it is of another one.

        No counter may come twice.
        """
        if arrival.kind is not Kind.DATA or arrival.receiver != session.keys.local:
            return None
        counter = arrival.counter
        plain = noise.aead_open(session.keys.receive, counter, arrival.data[16:], b"")
        if plain is None:
            raise BrokenRuleError(
                f"a transport message of our session, counter {counter}, not opening"
            )
        if counter in session.seen:
            raise BrokenRuleError(f"counter {counter} was used twice in one session")
        session.seen.add(counter)
        return plain

    async def expect_packet(
        self, session: Session, serial: int, within: float = PATIENCE, *, line: Line | None = None
    ) -> tuple[Arrival, bytes]:
        """The transport message that carries this serial, and its plaintext."""
        found: list[bytes] = []

        def wanted(arrival: Arrival) -> bool:
            plain = self.open(session, arrival)
            if not plain or serial_of(plain) != serial:
                return False
            found.append(plain)
            return True

        title = "packet of the application in this session"
        arrival = await (line or self.line).expect_one(wanted, title, within)
        return arrival, found[0]


class Bench:
    """A subject with a private key, and what a case needs around it.

    `network` is unique to each bench that shares a machine with others; it gives the addresses.
    """

    def __init__(self, subject: Subject, nursery: trio.Nursery, network: int) -> None:
        self.subject = subject
        self.identity = Identity()
        self.public = self.identity.public
        self.stamps = Stamps()
        self.notes: list[str] = []
        self.inner: list[tuple[float, bytes]] = []
        """What the subject has delivered, and when."""
        self._serials: Counter[int | None] = Counter()
        self._delivery = trio.Event()
        self._nursery = nursery
        self._network = network
        self._addresses = 0
        self._peers = 0
        self._serial = 0
        self._lines: list[Line] = []

    async def begin(self) -> None:
        """Give the subject its key, and take what it delivers. It answers initiations on return."""
        self._nursery.start_soon(self._take_delivered)
        await self.configure(f"private_key={self.identity.private.hex()}")
        # A program hears that its interface is up a moment after that is so.
        first = await self.add_peer(endpoint=False)
        deadline = trio.current_time() + START
        while trio.current_time() < deadline:
            await first.send_initiation()
            if await first.line.next(trio.current_time() + 0.5) is not None:
                await self.configure(f"public_key={first.identity.public.hex()}", "remove=true")
                return
        raise SubjectError(f"no initiation was answered within {START:g} s after the start")

    def close(self) -> None:
        """Close all lines."""
        for line in self._lines:
            line.wire.close()

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run it until the end of the case."""
        self._nursery.start_soon(task)

    def note(self, text: str) -> None:
        """What a verdict rests on, for the report."""
        self.notes.append(text)

    def next_serial(self) -> int:
        self._serial += 1
        return self._serial

    async def _take_delivered(self) -> None:
        async for delivered in self.subject.delivered:
            if serial_of(delivered[1]) is None and not self._is_ours(delivered[1]):
                continue
            self.inner.append(delivered)
            self._serials[serial_of(delivered[1])] += 1
            self._delivery.set()
            self._delivery = trio.Event()

    @staticmethod
    def _is_ours(inner: bytes) -> bool:
        return EXPERIMENT in inner[:40]

    # The UAPI

    async def set(self, *lines: str) -> int:
        """One `set`; its errno, 0 for success."""
        answer = await self.subject.uapi("".join(f"{line}\n" for line in ("set=1", *lines, "")))
        text = answer.strip().rpartition("errno=")[2]
        if not text.lstrip("-").isdecimal():
            raise BrokenRuleError(f"a set was answered by {answer[:60]!r}, without an errno")
        return abs(int(text))

    async def configure(self, *lines: str) -> None:
        """A `set` that must succeed."""
        if (error := await self.set(*lines)) != 0:
            keys = ", ".join(line.partition("=")[0] for line in lines)
            raise BrokenRuleError(f"a set of {keys} was refused with errno {error}")

    async def get(self) -> DeviceState:
        """The state of the device."""
        return DeviceState.parse(await self.subject.uapi("get=1\n\n"))

    # Lines and peers

    async def open_line(self, address: str | None = None, port: int = 0) -> Line:
        """A line from an address of its own, or from `address`."""
        if address is None:
            self._addresses += 1
            high, low = divmod(self._network, 250)
            address = f"127.{1 + high}.{1 + low}.{self._addresses}"
        line = Line(await self.subject.open_wire(address, port))
        self._lines.append(line)
        self._nursery.start_soon(line.listen)
        return line

    async def stranger(self) -> Peer:
        """A peer that the subject does not know."""
        return await self._make_peer(noise.NO_PSK)

    async def add_peer(
        self,
        *,
        psk: bytes = noise.NO_PSK,
        endpoint: bool = True,
        keepalive: int = 0,
        allowed: Iterable[str] | None = None,
    ) -> Peer:
        """A peer that the subject knows, with its endpoint, 10.N.0.0/16 and fd00:N::/32."""
        peer = await self._make_peer(psk)
        await self.configure(*self.peer_lines(peer, endpoint, keepalive, allowed))
        return peer

    async def _make_peer(self, psk: bytes) -> Peer:
        self._peers += 1
        return Peer(self, self._peers, await self.open_line(), Identity(), psk)

    def peer_lines(
        self,
        peer: Peer,
        endpoint: bool = True,
        keepalive: int = 0,
        allowed: Iterable[str] | None = None,
    ) -> list[str]:
        """The lines that make `peer` known."""
        own = (f"10.{peer.number}.0.0/16", f"fd00:{peer.number:x}::/32")
        lines = [f"public_key={peer.identity.public.hex()}"]
        lines += [f"preshared_key={peer.psk.hex()}"] if peer.psk != noise.NO_PSK else []
        lines += [f"endpoint={peer.line.endpoint}"] if endpoint else []
        lines += [f"persistent_keepalive_interval={keepalive}"] if keepalive else []
        lines += [f"allowed_ip={network}" for network in (own if allowed is None else allowed)]
        return lines

    # What is delivered

    def delivered(self, inner: bytes) -> int:
        """How often this packet has come out of the interface."""
        return self._serials[serial_of(inner)]

    async def expect_delivered(self, inner: bytes, why: str = "", within: float = PATIENCE) -> None:
        """This packet must come out of the interface."""
        deadline = trio.current_time() + within
        while not self.delivered(inner):
            with trio.move_on_at(deadline) as scope:
                await self._delivery.wait()
            if scope.cancelled_caught and not self.delivered(inner):
                raise BrokenRuleError(
                    f"a packet was not delivered within {within:g} s{why and ': '}{why}"
                )

    async def expect_not_delivered(
        self, inner: bytes, peer: Peer, session: Session, why: str
    ) -> None:
        """This packet must not have come out when a later one has."""
        try:
            await peer.check_delivered(session, "a packet after one that must be dropped")
            await trio.sleep(0.1)
        finally:
            if self.delivered(inner):
                raise BrokenRuleError(f"a packet was delivered: {why}")
