"""What a stranger may send, and what comes back: nothing (whitepaper, 5.1 and 5.4.7)."""

from __future__ import annotations

import secrets

import trio

from .. import noise
from ..bench import QUIET, Bench, BrokenRuleError, Peer
from ..case import case
from ..wire import Kind


async def still_answers(peer: Peer, why: str) -> None:
    """A right initiation must be answered after all that."""
    await trio.sleep(0.1)
    peer.line.forget()
    try:
        await peer.handshake()
    except BrokenRuleError as error:
        raise BrokenRuleError(f"{why}: {error}") from None


@case(
    "silence-unknown-key",
    rule="An initiation of a static key that is no peer's is not answered.",
    source="whitepaper 5.1; receive.c, wg_receive_handshake_packet",
    sends="a right initiation of an unknown key, then one of a peer",
    expects="an answer to the second alone",
)
async def silence_unknown_key(bench: Bench) -> None:
    peer, stranger = await bench.add_peer(), await bench.stranger()
    await stranger.send_initiation()
    await peer.handshake()
    await stranger.line.silence(QUIET, "though the key is unknown")


@case(
    "silence-bad-mac1",
    rule="A handshake message whose mac1 is not of our public key is not answered.",
    source="whitepaper 5.4.4; cookie.c, wg_cookie_validate_packet",
    sends="an initiation of a peer with mac1 of another key, then a right one",
    expects="an answer to the second alone",
)
async def silence_bad_mac1(bench: Bench) -> None:
    peer = await bench.add_peer()
    message, _ = noise.create_initiation(
        peer.identity, bench.public, secrets.randbits(32), bench.stamps.next()
    )
    await peer.line.wire.send(noise.with_macs(message, peer.identity.public))
    await peer.line.silence(QUIET, "though mac1 was wrong")
    await still_answers(peer, "after an initiation with a wrong mac1")


@case(
    "silence-length",
    rule="A handshake message that is a byte too short or too long is not answered.",
    source="whitepaper 5.4; receive.c, prepare_skb_header",
    sends="initiations of a peer of 147 and 149 bytes, with a right mac1 for their length",
    expects="no answer, and one to a right initiation afterwards",
)
async def silence_length(bench: Bench) -> None:
    peer = await bench.add_peer()
    for change in (-1, 1):
        message, _ = noise.create_initiation(
            peer.identity, bench.public, secrets.randbits(32), bench.stamps.next()
        )
        body = message[:-1] if change < 0 else message + b"\0"
        await peer.line.wire.send(noise.with_macs(body, bench.public))
        # Cut or longer at its end: the MACs of the right length are right.
        whole = noise.with_macs(message, bench.public)
        await peer.line.wire.send(whole[:-1] if change < 0 else whole + b"\0")
    await peer.line.silence(QUIET, "though the length was wrong")
    await still_answers(peer, "after messages of a wrong length")


@case(
    "silence-reserved",
    rule="The three bytes after the type are zero; a message with others is dropped.",
    source="whitepaper 5.4.2; messages.h, struct message_header",
    sends="an initiation with each reserved byte set in turn, mac1 computed over it",
    expects="no answer, and one to a right initiation afterwards",
)
async def silence_reserved(bench: Bench) -> None:
    peer = await bench.add_peer()
    for place in (1, 2, 3):
        message, _ = noise.create_initiation(
            peer.identity, bench.public, secrets.randbits(32), bench.stamps.next()
        )
        changed = bytearray(message)
        changed[place] = 1
        await peer.line.wire.send(noise.with_macs(bytes(changed), bench.public))
        await trio.sleep(0.05)
    await peer.line.silence(QUIET, "though a reserved byte was not zero")
    await still_answers(peer, "after messages with reserved bytes")


@case(
    "silence-junk",
    rule="Datagrams that are no message are dropped without an answer, whatever their length.",
    source="whitepaper 5.1; receive.c, prepare_skb_header",
    sends="datagrams of 0 to 2000 bytes: random ones, and every type with nothing behind it",
    expects="no answer, and one to a right initiation afterwards",
)
async def silence_junk(bench: Bench) -> None:
    peer = await bench.add_peer()
    for length in (0, 1, 3, 4, 15, 16, 31, 32, 33, 63, 64, 91, 92, 147, 148, 149, 1500, 2000):
        await peer.line.wire.send(secrets.token_bytes(length))
        for type_ in (0, 1, 2, 3, 4, 5, 255):
            await peer.line.wire.send((bytes([type_, 0, 0, 0]) + bytes(2000))[:length])
        await trio.sleep(0.01)
    await peer.line.silence(QUIET, "in answer to junk")
    await still_answers(peer, "after junk")


@case(
    "giant-datagram",
    rule="A datagram larger than any buffer does no harm.",
    source="receive.c, wg_receive; others had a buffer that was too small",
    sends="datagrams of 9,000 to 65,507 bytes that begin like each of the four messages",
    expects="no answer, and one to a right initiation afterwards",
)
async def giant_datagram(bench: Bench) -> None:
    peer = await bench.add_peer()
    session = await peer.handshake()
    for length in (9_000, 65_507):
        for type_ in (1, 2, 3, 4):
            await peer.line.wire.send(bytes([type_, 0, 0, 0]) + bytes(length - 4))
            await trio.sleep(0.01)
    await peer.line.silence(QUIET, "in answer to giant datagrams")
    await peer.check_delivered(session, "after giant datagrams")
    await still_answers(peer, "after giant datagrams")


@case(
    "silence-unknown-index",
    rule="A transport message, a response or a cookie reply for an unknown index is not answered.",
    source="whitepaper 5.1; receive.c, wg_index_hashtable_lookup",
    sends="one of each, well-formed, with a right mac1 and random indices",
    expects="no answer",
)
async def silence_unknown_index(bench: Bench) -> None:
    peer = await bench.add_peer()
    await peer.handshake()
    stranger = await bench.stranger()
    body = b"\x02\0\0\0" + secrets.token_bytes(56)
    for datagram in (
        noise.with_macs(body, bench.public),
        b"\x03\0\0\0" + secrets.token_bytes(60),
        b"\x04\0\0\0" + secrets.token_bytes(60),
    ):
        await stranger.line.wire.send(datagram)
    await stranger.line.silence(QUIET, "for an unknown index")


@case(
    "replayed-initiation",
    rule="An initiation that was accepted is not accepted a second time.",
    source="whitepaper 5.1; noise.c, wg_noise_handshake_consume_initiation",
    sends="the same initiation twice, half a second apart",
    expects="one response",
)
async def replayed_initiation(bench: Bench) -> None:
    peer = await bench.add_peer()
    await peer.handshake()
    await trio.sleep(0.5)
    await peer.line.wire.send(peer.sent)
    await peer.line.silence(QUIET, "to a replayed initiation", kinds=[Kind.RESPONSE])
    await still_answers(peer, "after a replayed initiation")


@case(
    "older-timestamp",
    rule="An initiation whose timestamp is not greater than the last accepted one is dropped.",
    source="whitepaper 5.1; noise.c, wg_noise_handshake_consume_initiation",
    sends="new initiations with the same and with an earlier timestamp, then with a later one",
    expects="an answer to the last alone",
)
async def older_timestamp(bench: Bench) -> None:
    peer = await bench.add_peer()
    now = bench.stamps.next()
    await peer.send_initiation(timestamp=now)
    await peer.line.expect(Kind.RESPONSE)
    earlier = (int.from_bytes(now[:8], "big") - 3600).to_bytes(8, "big") + now[8:]
    for timestamp, what in ((now, "an equal"), (earlier, "an earlier")):
        await trio.sleep(0.2)
        await peer.send_initiation(timestamp=timestamp)
        await peer.line.silence(QUIET, f"to {what} timestamp", kinds=[Kind.RESPONSE])
    await still_answers(peer, "with a later timestamp")


@case(
    "initiation-spacing",
    rule="Initiations of one peer that come within 20 ms are not both answered.",
    source="noise.c, wg_noise_handshake_consume_initiation (INITIATIONS_PER_SECOND)",
    sends="five pairs of right initiations, the two of a pair back to back",
    expects="a response to one of a pair, at least in one of them",
    seconds=4.0,
)
async def initiation_spacing(bench: Bench) -> None:
    peer = await bench.add_peer()
    counts = []
    for _ in range(5):
        first, second = await peer.send_initiation(), await peer.send_initiation()
        found = await peer.line.collect(0.5)
        answers = [each.receiver for each in found if each.kind is Kind.RESPONSE]
        counts.append(sum(index in answers for index in (first.index, second.index)))
    bench.note(f"responses to each pair: {counts}")
    if not any(counts):
        raise BrokenRuleError("no initiation was answered")
    if min(counts) == 2:
        raise BrokenRuleError("both initiations of all five pairs were answered")


@case(
    "low-order-ephemeral",
    rule="A handshake in which a Diffie-Hellman result is zero is aborted.",
    source="RFC 7748, 6.1; noise.c, mix_dh",
    sends="an initiation of a peer with the zero point as ephemeral key, and all else right",
    expects="no answer, and one to a right initiation afterwards",
)
async def low_order_ephemeral(bench: Bench) -> None:
    peer = await bench.add_peer()
    await peer.send_initiation(low_order=True)
    await peer.line.silence(QUIET, "though the ephemeral key was zero")
    await still_answers(peer, "after a zero ephemeral key")


@case(
    "low-order-peer",
    rule="Nothing is sent to a peer whose public key is of low order.",
    source="noise.c, wg_noise_handshake_create_initiation (precomputed_static_static)",
    sends="a peer with the public key 1, its endpoint, and a packet of an application for it",
    expects="the program goes on, and sends it nothing",
)
async def low_order_peer(bench: Bench) -> None:
    line = await bench.open_line()
    key = bytes([1]) + bytes(31)
    refused = await bench.set(
        f"public_key={key.hex()}", f"endpoint={line.endpoint}", "allowed_ip=10.99.0.0/16"
    )
    bench.note(f"the peer was {'refused' if refused else 'accepted'}")
    peer = await bench.add_peer()
    await peer.inject(to="10.99.0.1")
    await line.silence(QUIET, "to a peer whose key is of low order")
    await peer.handshake()
