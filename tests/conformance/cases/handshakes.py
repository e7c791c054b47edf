"""Handshakes that the subject starts and answers (whitepaper, 5.4.2 and 5.4.3)."""

from __future__ import annotations

import secrets

import trio

from .. import noise
from ..bench import PATIENCE, QUIET, Bench, BrokenRuleError
from ..case import case
from ..noise import Identity
from ..wire import Kind, packet, serial_of

SAMPLES = 12


@case(
    "random-indices",
    rule="Receiver indices are random 32-bit numbers, new with every handshake.",
    source="whitepaper 5.4.2; peerlookup.c, wg_index_hashtable_insert",
    sends=f"{SAMPLES} initiations, 100 ms apart",
    expects="indices in the responses that are all different, in each of their four bytes, too",
    seconds=4.0,
)
async def random_indices(bench: Bench) -> None:
    peer = await bench.add_peer()
    indices = []
    for _ in range(SAMPLES):
        session = await peer.handshake(confirm=False)
        indices.append(session.keys.remote)
        await trio.sleep(0.1)
    bench.note(", ".join(f"{index:08x}" for index in indices[:4]) + ", …")
    if len(set(indices)) < SAMPLES:
        raise BrokenRuleError(f"the same index twice: {indices}")
    for place in range(4):
        found = {index.to_bytes(4, "big")[place] for index in indices}
        # Of 12 random bytes, 6 or fewer are different once in a hundred million times.
        if len(found) <= SAMPLES // 2:
            shown = ", ".join(f"{index:08x}" for index in indices)
            raise BrokenRuleError(f"byte {place} hardly changes: {shown}")


@case(
    "response-form",
    rule="A response has our index as receiver, a right mac1, and without a cookie zeros as mac2.",
    source="whitepaper 5.4.3 and 5.4.4",
    sends="an initiation",
    expects="a response of 92 bytes, with both MACs right, that gives a session",
)
async def response_form(bench: Bench) -> None:
    peer = await bench.add_peer()
    pending = await peer.send_initiation()
    response = await peer.line.expect(Kind.RESPONSE)
    if response.receiver != pending.index:
        raise BrokenRuleError(f"receiver {response.receiver:08x}, not {pending.index:08x}")
    session = await peer.complete(pending, response)
    await peer.check_delivered(session, "in the new session")


@case(
    "initiation-form",
    rule="An initiation opens with the peer's key, has a right mac1 and a mac2 of zeros.",
    source="whitepaper 5.4.2 and 5.4.4",
    sends="a packet of an application, and the answer to the initiation it causes",
    expects="an initiation of 148 bytes with both MACs right, then the packet",
)
async def initiation_form(bench: Bench) -> None:
    peer = await bench.add_peer()
    serial = await peer.inject()
    initiation = await peer.expect_initiation()
    peer.check_macs(initiation)
    session = await peer.respond(initiation)
    await peer.expect_packet(session, serial)


@case(
    "whitened-timestamp",
    rule="The timestamp of an initiation hides the low 24 bits of its nanoseconds.",
    source="noise.c, tai64n_now; wireguard-go, tai64n (whitenerMask)",
    sends="packets of applications for six peers, 130 ms apart",
    expects="timestamps within a minute of now whose low 24 bits are zero",
    seconds=3.0,
)
async def whitened_timestamp(bench: Bench) -> None:
    found = []
    for _ in range(6):
        peer = await bench.add_peer()
        await peer.inject()
        opened = peer.open_initiation(await peer.expect_initiation())
        found.append(opened.timestamp)
        await trio.sleep(0.13)
    now = int.from_bytes(bench.stamps.next()[:8], "big")
    for stamp in found:
        if abs(int.from_bytes(stamp[:8], "big") - now) > 60:
            raise BrokenRuleError(f"a timestamp that is not of now: {stamp.hex()}")
    if any(int.from_bytes(stamp[8:], "big") & 0xFFFFFF for stamp in found):
        raise BrokenRuleError(f"nanoseconds {int.from_bytes(found[0][8:], 'big')} are not rounded")


@case(
    "responder-waits",
    rule="A responder sends no data before the initiator's first message under the new keys.",
    source="whitepaper 5.4.3; send.c, wg_packet_send_staged_packets (current_keypair)",
    sends="an initiation; a packet of an application; a second later a keepalive and a packet",
    expects="the second packet, and nothing before the keepalive",
    seconds=3.0,
)
async def responder_waits(bench: Bench) -> None:
    peer = await bench.add_peer()
    session = await peer.handshake(confirm=False)
    await peer.inject()
    await peer.line.silence(QUIET, "before the session was confirmed", kinds=[Kind.DATA])
    await peer.check_delivered(session, "which confirms the session")
    await peer.expect_packet(session, await peer.inject())


@case(
    "staged-until-confirmed",
    rule="What waits for a session is sent as soon as one is confirmed, whoever initiated it.",
    source="receive.c, wg_packet_consume_data_done (wg_packet_send_staged_packets)",
    sends="an initiation; a packet of an application; a second later a keepalive",
    expects="the packet in the session that the keepalive confirms",
    seconds=3.0,
)
async def staged_until_confirmed(bench: Bench) -> None:
    peer = await bench.add_peer()
    session = await peer.handshake(confirm=False)
    serial = await peer.inject()
    await trio.sleep(QUIET)
    await peer.send(session)
    await peer.expect_packet(session, serial)


@case(
    "initiator-confirms",
    rule="An initiator with nothing to send in a new session sends a keepalive at once.",
    source="whitepaper 5.4.3; receive.c, wg_receive_handshake_packet (wg_packet_send_keepalive)",
    sends="a persistent keepalive of 25 s for a peer, and the answer to its initiation",
    expects="a transport message within a second of the response",
)
async def initiator_confirms(bench: Bench) -> None:
    peer = await bench.add_peer(keepalive=25)
    session = await peer.respond(await peer.expect_initiation())
    arrival = await peer.line.expect(Kind.DATA)
    if peer.open(session, arrival) is None:
        raise BrokenRuleError("a transport message of another session")


@case(
    "next-session-waits",
    rule="Until a new session is confirmed, the responder goes on sending in the current one.",
    source="noise.c, add_new_keypair and wg_noise_received_with_keypair",
    sends="a second handshake without a message in it, a packet of an application, a keepalive",
    expects="the packet in the first session; after the keepalive the next one in the second",
)
async def next_session_waits(bench: Bench) -> None:
    peer = await bench.add_peer()
    first = await peer.handshake()
    await peer.check_delivered(first, "in the first session")
    await trio.sleep(0.1)
    second = await peer.handshake(confirm=False)
    await peer.expect_packet(first, await peer.inject())
    await peer.check_delivered(second, "in the second session")
    await peer.expect_packet(second, await peer.inject())


@case(
    "previous-session",
    rule="What was sent in the previous session is still accepted after a new one was confirmed.",
    source="whitepaper 6.2; noise.c, struct noise_keypairs",
    sends="two handshakes, a packet in the second session, then one in the first",
    expects="both are delivered",
)
async def previous_session(bench: Bench) -> None:
    peer = await bench.add_peer()
    first = await peer.handshake()
    await peer.check_delivered(first, "in the first session")
    await trio.sleep(0.1)
    second = await peer.handshake()
    await peer.check_delivered(second, "in the second session")
    await peer.check_delivered(first, "in the previous session")


@case(
    "old-session-dropped",
    rule="There are at most three sessions; one that is older than the previous is gone.",
    source="whitepaper 6.2; noise.c, add_new_keypair",
    sends="four confirmed handshakes, then a packet in the first session",
    expects="it is not delivered",
    seconds=3.0,
)
async def old_session_dropped(bench: Bench) -> None:
    peer = await bench.add_peer()
    sessions = []
    for _ in range(4):
        sessions.append(await peer.handshake())
        await peer.check_delivered(sessions[-1], "in a new session")
        await trio.sleep(0.1)
    inner = peer.packet()
    await peer.send(sessions[0], inner)
    await bench.expect_not_delivered(inner, peer, sessions[-1], "its session is long replaced")


@case(
    "duplicate-response",
    rule="A response that comes twice gives one session; no counter is used twice.",
    source="CVE-2026-99059; noise.c, wg_noise_handshake_consume_response",
    sends="a response, packets both ways, the same response, packets both ways",
    expects="one session whose counters go on",
)
async def duplicate_response(bench: Bench) -> None:
    peer = await bench.add_peer()
    serial = await peer.inject()
    session = await peer.respond(await peer.expect_initiation())
    response = peer.sent
    await peer.expect_packet(session, serial)
    await peer.check_delivered(session, "before the second response")
    await peer.line.wire.send(response)
    await trio.sleep(0.2)
    for _ in range(3):
        # `open` refuses a counter that was seen.
        await peer.expect_packet(session, await peer.inject())
        await peer.check_delivered(session, "after the second response")


@case(
    "forged-response",
    rule="A response that does not authenticate changes nothing; the right one is still accepted.",
    source="whitepaper 5.4.3; noise.c, wg_noise_handshake_consume_response",
    sends="responses with a wrong receiver, with a damaged field and of a wrong preshared key, all "
    "with a right mac1, then the right one",
    expects="a session by the last",
)
async def forged_response(bench: Bench) -> None:
    peer = await bench.add_peer()
    serial = await peer.inject()
    initiation = await peer.expect_initiation()
    peer.create_response(initiation)
    body = bytearray(peer.sent[:-32])
    for place in (8, 50):
        damaged = bytearray(body)
        damaged[place] ^= 1
        await peer.line.wire.send(noise.with_macs(bytes(damaged), bench.public))
    await peer.respond(initiation, psk=secrets.token_bytes(32))
    await trio.sleep(0.1)
    session = await peer.respond(initiation)
    await peer.expect_packet(session, serial)


@case(
    "crossing-initiations",
    rule="An initiation is answered although the subject has one of its own under way.",
    source="whitepaper 5.4; noise.c, wg_noise_handshake_consume_initiation",
    sends="a packet of an application; an initiation of ours in place of an answer",
    expects="a response, and packets both ways in that session",
)
async def crossing_initiations(bench: Bench) -> None:
    peer = await bench.add_peer()
    await peer.inject()
    await peer.expect_initiation()
    session = await peer.handshake(confirm=False)
    await peer.check_delivered(session, "in the session that we initiated")
    await peer.expect_packet(session, await peer.inject())


@case(
    "preshared-key-required",
    rule="Without the preshared key that is set for it a peer gets no session.",
    source="whitepaper 5.4.3 (psk)",
    sends="handshakes with and without the preshared key of the peer",
    expects="a response that opens with the key alone, and delivers",
)
async def preshared_key_required(bench: Bench) -> None:
    psk = secrets.token_bytes(32)
    peer = await bench.add_peer(psk=psk)
    session = await peer.handshake()
    await peer.check_delivered(session, "with the preshared key")
    await trio.sleep(0.1)
    pending = await peer.send_initiation()
    response = await peer.line.expect(Kind.RESPONSE)
    if noise.open_response(peer.identity, pending, response.data) is not None:
        raise BrokenRuleError("the response opens without the preshared key")


@case(
    "preshared-key-change",
    rule="A changed preshared key is used by the next handshake, on either side's initiative.",
    source="netlink.c, set_peer (handshake.preshared_key)",
    sends="a set with another key, then a handshake of ours and one of the subject's",
    expects="both with the new key",
    seconds=8.0,
)
async def preshared_key_change(bench: Bench) -> None:
    peer = await bench.add_peer(psk=secrets.token_bytes(32))
    await peer.check_delivered(await peer.handshake(), "with the first key")
    peer.psk = secrets.token_bytes(32)
    await bench.configure(
        f"public_key={peer.identity.public.hex()}", f"preshared_key={peer.psk.hex()}"
    )
    await trio.sleep(0.1)
    await peer.check_delivered(await peer.handshake(), "with the new key")
    other = await bench.add_peer(psk=secrets.token_bytes(32))
    await other.be_initiated()
    third = await bench.add_peer()
    third.psk = secrets.token_bytes(32)
    await bench.configure(
        f"public_key={third.identity.public.hex()}", f"preshared_key={third.psk.hex()}"
    )
    await third.be_initiated()


@case(
    "private-key-change",
    rule="After a change of the private key, initiations to the old key are not answered.",
    source="netlink.c, wg_set_device; noise.c, wg_noise_set_static_identity_private_key",
    sends="a set with another private key, initiations to the old and to the new one",
    expects="an answer to the second alone",
    seconds=3.0,
)
async def private_key_change(bench: Bench) -> None:
    peer = await bench.add_peer()
    await peer.handshake()
    after = Identity()
    await bench.configure(f"private_key={after.private.hex()}")
    await trio.sleep(0.1)
    peer.line.forget()
    await peer.send_initiation()
    await peer.line.silence(QUIET, "to the old key", kinds=[Kind.RESPONSE])
    bench.public = after.public
    await peer.check_delivered(await peer.handshake(), "with the new private key")


@case(
    "own-key-as-peer",
    rule="Our own public key is no peer.",
    source="netlink.c, set_peer (static_identity.static_public)",
    sends="a set with our own public key as peer",
    expects="a get without it",
)
async def own_key_as_peer(bench: Bench) -> None:
    await bench.set(f"public_key={bench.public.hex()}", "allowed_ip=10.98.0.0/16")
    if bench.public in (await bench.get()).peers:
        raise BrokenRuleError("the device lists its own key as a peer")


@case(
    "private-key-of-a-peer",
    rule="A private key that is a peer's removes that peer.",
    source="netlink.c, wg_set_device (wg_pubkey_hashtable_lookup)",
    sends="a set with the private key of a peer",
    expects="a get without that peer",
)
async def private_key_of_a_peer(bench: Bench) -> None:
    peer = await bench.add_peer()
    await bench.configure(f"private_key={peer.identity.private.hex()}")
    if peer.identity.public in (await bench.get()).peers:
        raise BrokenRuleError("the device lists its own key as a peer")


@case(
    "removed-peer",
    rule="A peer that was removed is not answered, and its sessions end.",
    source="peer.c, wg_peer_remove",
    sends="a set that removes a peer, then an initiation and a packet of its session",
    expects="no answer, and no packet",
)
async def removed_peer(bench: Bench) -> None:
    peer, other = await bench.add_peer(), await bench.add_peer()
    session, control = await peer.handshake(), await other.handshake()
    await peer.check_delivered(session, "before the removal")
    await bench.configure(f"public_key={peer.identity.public.hex()}", "remove=true")
    inner = peer.packet()
    await peer.send(session, inner)
    await bench.expect_not_delivered(inner, other, control, "its peer was removed")
    peer.line.forget()
    await peer.send_initiation()
    await peer.line.silence(QUIET, "though the peer was removed")


@case(
    "staged-packets",
    rule="While there is no session, the last 128 packets of a peer wait for it, and no more.",
    source="queueing.h, MAX_STAGED_PACKETS; send.c, wg_packet_send_staged_packets",
    sends="140 packets of an application, then the answer to the initiation",
    expects="the last 128 of them, in order",
    seconds=3.0,
)
async def staged_packets(bench: Bench) -> None:
    peer = await bench.add_peer()
    serials = []
    for number in range(140):
        serials.append(await peer.inject())
        if number % 10 == 0:
            await trio.sleep(0.01)
    session = await peer.respond(await peer.expect_latest_initiation())
    found: list[int] = []
    end = trio.current_time() + PATIENCE
    while len(found) < 128 and (arrival := await peer.line.next(end)) is not None:
        plain = peer.open(session, arrival)
        if plain and (serial := serial_of(plain)) is not None:
            found.append(serial)
    bench.note(f"{len(found)} packets of 140")
    if found != serials[-128:]:
        first = serials.index(found[0]) if found else 0
        raise BrokenRuleError(f"{len(found)} packets from number {first} on, not the last 128")


@case(
    "no-endpoint",
    rule="To a peer without an endpoint nothing is sent until it has been heard of.",
    source="socket.c, wg_socket_send_skb_to_peer",
    sends="a packet of an application for a peer without an endpoint, then its initiation",
    expects="a response to where it came from, later packets there, its endpoint in a get",
)
async def no_endpoint(bench: Bench) -> None:
    peer = await bench.add_peer(endpoint=False)
    await peer.inject()
    await peer.line.silence(0.5, "to a peer without an endpoint")
    session = await peer.handshake(confirm=False)
    await peer.check_delivered(session, "of a peer without an endpoint")
    await peer.expect_packet(session, await peer.inject())
    shown = (await bench.get()).peers[peer.identity.public].values.get("endpoint")
    if shown != peer.line.endpoint:
        raise BrokenRuleError(f"the endpoint is shown as {shown}, not {peer.line.endpoint}")


@case(
    "no-route",
    rule="A packet that no allowed IP covers goes to no peer.",
    source="device.c, wg_xmit",
    sends="a packet of an application outside the networks of all peers",
    expects="nothing",
)
async def no_route(bench: Bench) -> None:
    peer = await bench.add_peer()
    await peer.inject(to="172.31.0.1")
    await peer.line.silence(QUIET, "for a packet outside its networks")
    await peer.be_initiated()


@case(
    "ipv6-outer",
    rule="A peer may be reached over IPv6.",
    source="socket.c, send6",
    sends="an initiation and a packet from ::1",
    expects="a response there, and the packet delivered",
)
async def ipv6_outer(bench: Bench) -> None:
    peer = await bench.add_peer(endpoint=False)
    line = await bench.open_line("::1")
    session = await peer.handshake(line=line)
    await peer.check_delivered(session, "over IPv6", line=line)
    await peer.expect_packet(session, await peer.inject(), PATIENCE, line=line)


@case(
    "ipv6-inner",
    rule="Packets of IPv6 go through a tunnel, padded and trimmed like those of IPv4.",
    source="whitepaper 5.4.6; receive.c, wg_packet_consume_data_done",
    sends="a packet of IPv6 each way",
    expects="both arrive as they were sent",
)
async def ipv6_inner(bench: Bench) -> None:
    peer = await bench.add_peer()
    session = await peer.handshake()
    inner = peer.packet(version=6)
    await peer.send(session, inner)
    await bench.expect_delivered(inner, "of IPv6")
    if bench.inner[-1][1] != inner:
        raise BrokenRuleError("the packet was changed on its way")
    serial = await peer.inject(version=6)
    _, plain = await peer.expect_packet(session, serial)
    if packet("fd00:ff::1", peer.inner(6), serial) != plain.rstrip(b"\0").ljust(48, b"\0"):
        raise BrokenRuleError("the packet of the application was changed on its way")


@case(
    "interface-down",
    rule="While the interface is down nothing is answered, and its sessions end.",
    source="device.c, wg_stop",
    sends="a session; the interface down, an initiation; up again, a packet of that session",
    expects="no answer, no delivery, and a new session after that",
    seconds=8.0,
)
async def interface_down(bench: Bench) -> None:
    peer = await bench.add_peer()
    session = await peer.handshake()
    await peer.check_delivered(session, "before")
    await bench.subject.set_link(up=False)
    # A program that has to look hears of it a second or two later.
    await trio.sleep(3)
    peer.line.forget()
    await peer.send_initiation()
    await peer.line.silence(QUIET, "though the interface is down")
    await bench.subject.set_link(up=True)
    await trio.sleep(3)
    inner = peer.packet()
    await peer.send(session, inner)
    after = await peer.handshake()
    await bench.expect_not_delivered(inner, peer, after, "its session ended with the link")
