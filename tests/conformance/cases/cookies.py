"""Cookies and load (whitepaper, 5.3 and 5.4.7)."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from .. import noise
from ..bench import QUIET, Bench, BrokenRuleError, Line, NotApplicableError, Peer
from ..case import case
from ..wire import Arrival, Kind

BURST = 1024
"""Initiations at once. Linux is under load with 512 in its queue."""

LOAD_SECONDS = 10.0
"""How long we ask for a cookie under load."""

ROUNDS_SECONDS = 20.0
"""How long we look for times of load without a pause: a program that copes has many."""


@asynccontextmanager
async def load(bench: Bench, line: Line, message: bytes | None = None) -> AsyncIterator[None]:
    """Bursts of initiations on `line`: right ones of an unknown key, or `message`."""
    if message is None:
        stranger = await bench.stranger()
        body, _ = noise.create_initiation(stranger.identity, bench.public, 1, bench.stamps.next())
        message = noise.with_macs(body, bench.public)
    flood = message

    async def send() -> None:
        with scope:
            while True:
                await line.wire.send_many(flood, BURST)
                await trio.sleep(0.02)

    scope = trio.CancelScope()
    bench.start(send)
    try:
        yield
    finally:
        scope.cancel()


async def ask(peer: Peer, line: Line, cookie: bytes | None = None) -> Arrival | None:
    """What comes back for an initiation on `line`; None for nothing within 200 ms."""
    line.forget()
    pending = await peer.send_initiation(line=line, cookie=cookie)
    deadline = trio.current_time() + 0.2
    while (arrival := await line.next(deadline)) is not None:
        if arrival.kind in (Kind.RESPONSE, Kind.COOKIE_REPLY) and arrival.receiver == pending.index:
            return arrival
    return None


async def get_cookie(bench: Bench, peer: Peer, line: Line) -> bytes:
    """The cookie that the subject gives us under load."""
    end = trio.current_time() + LOAD_SECONDS
    answers = 0
    while trio.current_time() < end:
        arrival = await ask(peer, line)
        if arrival is None:
            continue
        if arrival.kind is Kind.RESPONSE:
            answers += 1
            continue
        cookie = noise.open_cookie_reply(bench.public, arrival.data, peer.sent[-32:-16])
        if cookie is None:
            raise BrokenRuleError("a cookie reply that does not open with our mac1")
        return cookie
    raise NotApplicableError(
        f"no cookie reply in {LOAD_SECONDS:g} s of load, and {answers} responses"
    )


async def responses_by_cookie(
    bench: Bench, peer: Peer, line: Line, cookie: bytes, rounds: int
) -> int:
    """In how many of `rounds` an initiation on `line` is answered by a response for its cookie.

    In a round that counts, none comes without a cookie, neither just before nor just after: only
    then the subject is under load all the time.
    """
    counted = responses = 0
    end = trio.current_time() + ROUNDS_SECONDS
    while counted < rounds and trio.current_time() < end:
        before = await ask(peer, peer.line)
        found = await ask(peer, line, cookie)
        after = await ask(peer, peer.line)
        if any(each is not None and each.kind is Kind.RESPONSE for each in (before, after)):
            continue
        counted += 1
        responses += found is not None and found.kind is Kind.RESPONSE
    bench.note(f"{responses} responses in {counted} rounds")
    if 2 * counted < rounds:
        raise NotApplicableError(f"under load all the time in {counted} of {rounds} rounds")
    return responses


@case(
    "cookie-under-load",
    rule="Under load a right initiation earns a cookie reply, and one with the cookie a response.",
    source="whitepaper 5.3 and 5.4.7; receive.c, wg_receive_handshake_packet",
    sends="a flood from our address; initiations without mac2, then with that of the cookie",
    expects="a cookie reply that opens with our mac1, then responses",
    seconds=8.0,
)
async def cookie_under_load(bench: Bench) -> None:
    peer = await bench.add_peer()
    async with load(bench, await bench.open_line(peer.line.wire.address)):
        cookie = await get_cookie(bench, peer, peer.line)
        if not await responses_by_cookie(bench, peer, peer.line, cookie, 6):
            raise BrokenRuleError("no response to initiations with our cookie")


@case(
    "cookie-of-address-and-port",
    rule="A cookie is of an address and a port: from another port it is worth nothing.",
    source="whitepaper 5.4.7; cookie.c, make_cookie",
    sends="under load, initiations with our cookie from another port of our address",
    expects="no response to them",
    seconds=8.0,
)
async def cookie_of_address_and_port(bench: Bench) -> None:
    peer = await bench.add_peer()
    address = peer.line.wire.address
    other = await bench.open_line(address)
    async with load(bench, await bench.open_line(address)):
        cookie = await get_cookie(bench, peer, peer.line)
        if (responses := await responses_by_cookie(bench, peer, other, cookie, 6)) > 3:
            raise BrokenRuleError(f"{responses} of 6 initiations from another port were answered")


@case(
    "no-cookie-for-bad-mac1",
    rule="Under load, too, a message with a wrong mac1 is not answered.",
    source="whitepaper 5.3; cookie.c, wg_cookie_validate_packet",
    sends="under load, 20 initiations with mac1 of another key",
    expects="nothing",
    seconds=4.0,
)
async def no_cookie_for_bad_mac1(bench: Bench) -> None:
    peer = await bench.add_peer()
    line = await bench.open_line()
    async with load(bench, await bench.open_line(peer.line.wire.address)):
        for _ in range(20):
            body, _ = noise.create_initiation(
                peer.identity, bench.public, secrets.randbits(32), bench.stamps.next()
            )
            await line.wire.send(noise.with_macs(body, peer.identity.public))
            await trio.sleep(0.05)
        await line.silence(QUIET, "though mac1 was wrong")


@case(
    "limit-for-each-source",
    rule="One address that floods, even with a right mac2, keeps no other from a handshake.",
    source="ratelimiter.c, wg_ratelimiter_allow",
    sends="a flood with the cookie of its own address, and handshakes of a peer at another one",
    expects="a response to the peer, with a cookie if it is asked for one",
    seconds=3.0,
)
async def limit_for_each_source(bench: Bench) -> None:
    attacker, peer = await bench.stranger(), await bench.add_peer()
    line = await bench.open_line(attacker.line.wire.address)
    cookie: bytes | None = None
    async with load(bench, line):
        try:
            cookie = await get_cookie(bench, attacker, attacker.line)
        except NotApplicableError:
            bench.note("the flood got no cookie")
    body, _ = noise.create_initiation(attacker.identity, bench.public, 1, bench.stamps.next())
    message = noise.with_macs(body, bench.public, cookie)
    own: bytes | None = None
    end = trio.current_time() + LOAD_SECONDS
    async with load(bench, attacker.line, message):
        await trio.sleep(0.5)
        while trio.current_time() < end:
            arrival = await ask(peer, peer.line, own)
            if arrival is None:
                continue
            if arrival.kind is Kind.RESPONSE:
                return
            own = noise.open_cookie_reply(bench.public, arrival.data, peer.sent[-32:-16])
    raise BrokenRuleError(f"no response to another address in {LOAD_SECONDS:g} s of a flood")


@case(
    "session-under-load",
    rule="Established sessions go on under a flood of handshakes.",
    source="whitepaper 5.3",
    sends="a flood, and 40 packets each way, 25 ms apart",
    expects="at least half of them, though the socket may overflow",
    seconds=4.0,
)
async def session_under_load(bench: Bench) -> None:
    peer = await bench.add_peer()
    session = await peer.handshake()
    await peer.check_delivered(session, "before the flood")
    inners, serials = [], []
    async with load(bench, await bench.open_line()):
        for _ in range(40):
            inners.append(peer.packet())
            await peer.send(session, inners[-1])
            serials.append(await peer.inject())
            await trio.sleep(0.025)
        found = await peer.line.collect(QUIET)
    came = sum(bench.delivered(inner) for inner in inners)
    went = sum(bool(peer.open(session, arrival)) for arrival in found)
    bench.note(f"{came} of 40 delivered, {went} of 40 sent")
    if min(came, went) < 20:
        raise BrokenRuleError(f"{came} of 40 packets were delivered, {went} of 40 were sent")


@case(
    "cookie-used-by-initiator",
    rule="After a cookie reply the next initiation has mac2, and is not sent any earlier.",
    source="whitepaper 5.4.7; cookie.c, wg_cookie_message_consume",
    sends="a cookie reply to an initiation",
    expects="the next initiation 5 s later, with mac2 of the cookie",
    seconds=6.0,
)
async def cookie_used_by_initiator(bench: Bench) -> None:
    peer = await bench.add_peer()
    await peer.inject()
    first = await peer.expect_initiation()
    cookie = secrets.token_bytes(16)
    await peer.line.wire.send(noise.create_cookie_reply(peer.identity.public, first.data, cookie))
    second = await peer.expect_initiation(8)
    peer.check_macs(second, cookie)
    bench.note(f"after {second.at - first.at:.2f} s")
    if second.at - first.at < 4.5:
        raise BrokenRuleError(f"the next initiation came after {second.at - first.at:.2f} s")


@case(
    "cookie-used-by-responder",
    rule="A cookie reply to a response is used in the next handshake message to that peer.",
    source="whitepaper 5.4.7; cookie.c, wg_cookie_message_consume (wg_index_hashtable_lookup)",
    sends="a cookie reply to a response, then another initiation",
    expects="a response with mac2 of the cookie",
)
async def cookie_used_by_responder(bench: Bench) -> None:
    peer = await bench.add_peer()
    await peer.send_initiation()
    response = await peer.line.expect(Kind.RESPONSE)
    cookie = secrets.token_bytes(16)
    reply = noise.create_cookie_reply(peer.identity.public, response.data, cookie)
    await peer.line.wire.send(reply)
    await trio.sleep(0.2)
    await peer.send_initiation()
    peer.check_macs(await peer.line.expect(Kind.RESPONSE), cookie)


@case(
    "forged-cookie-reply",
    rule="A cookie reply that does not authenticate, or answers another message, is ignored.",
    source="whitepaper 5.4.7; cookie.c, wg_cookie_message_consume",
    sends="a damaged cookie reply, and one bound to another mac1",
    expects="the next initiation without mac2",
    seconds=6.0,
)
async def forged_cookie_reply(bench: Bench) -> None:
    peer = await bench.add_peer()
    await peer.inject()
    first = await peer.expect_initiation()
    cookie, key = secrets.token_bytes(16), peer.identity.public
    damaged = bytearray(noise.create_cookie_reply(key, first.data, cookie))
    damaged[-1] ^= 1
    await peer.line.wire.send(bytes(damaged))
    other = first.data[:-32] + bytes(32)
    await peer.line.wire.send(noise.create_cookie_reply(key, other, cookie))
    peer.check_macs(await peer.expect_initiation(8))


@case(
    "no-roaming-by-cookie-reply",
    rule="A cookie reply moves no endpoint: it does not authenticate who sent it.",
    source="whitepaper 2.1; receive.c, wg_receive_handshake_packet (MESSAGE_HANDSHAKE_COOKIE)",
    sends="a right cookie reply from another address",
    expects="the next initiation at the first address",
    seconds=6.0,
)
async def no_roaming_by_cookie_reply(bench: Bench) -> None:
    peer = await bench.add_peer()
    line = await bench.open_line()
    await peer.inject()
    first = await peer.expect_initiation()
    cookie = secrets.token_bytes(16)
    await line.wire.send(noise.create_cookie_reply(peer.identity.public, first.data, cookie))
    await peer.expect_initiation(8, "at the first address")
    await line.silence(0.1, "where the cookie reply came from")


@case(
    "cookie-for-120-s",
    rule="A cookie older than 120 s is not used any more.",
    source="whitepaper 6.6; cookie.c, wg_cookie_add_mac_to_packet (COOKIE_SECRET_LATENCY)",
    sends="a cookie reply; a packet of an application after 125 s",
    expects="mac2 in the initiations up to 60 s, and zeros after 125 s",
    seconds=132.0,
)
async def cookie_for_120_s(bench: Bench) -> None:
    peer = await bench.add_peer()
    await peer.inject()
    first = await peer.expect_initiation()
    cookie = secrets.token_bytes(16)
    start = trio.current_time()
    await peer.line.wire.send(noise.create_cookie_reply(peer.identity.public, first.data, cookie))
    for arrival in await peer.line.collect(60):
        peer.check_macs(arrival, cookie)
    await trio.sleep_until(start + 125)
    peer.line.forget()
    await peer.inject()
    peer.check_macs(await peer.expect_initiation(7))


@case(
    "no-cookie-without-load",
    rule="Without load no one is asked for a cookie, however many handshakes there were before.",
    source="whitepaper 5.3; receive.c, wg_receive_handshake_packet (under_load)",
    sends="120 handshakes of twelve peers, 50 ms apart",
    expects="a response to each",
    seconds=8.0,
)
async def no_cookie_without_load(bench: Bench) -> None:
    peers = [await bench.add_peer() for _ in range(12)]
    cookies = 0
    for number in range(120):
        peer = peers[number % len(peers)]
        arrival = await ask(peer, peer.line)
        cookies += arrival is not None and arrival.kind is Kind.COOKIE_REPLY
        await trio.sleep(0.05)
    if cookies:
        raise BrokenRuleError(f"{cookies} of 120 initiations were answered by a cookie reply")
