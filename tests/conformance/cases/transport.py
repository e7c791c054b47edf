"""Transport messages: counters, padding, addresses inside, ECN, roaming (whitepaper, 5.4.6)."""

from __future__ import annotations

import secrets

import trio

from ..bench import PATIENCE, QUIET, SUBJECT_INNER, Bench, BrokenRuleError, Peer, Session
from ..case import case
from ..wire import Kind, packet, serial_of

REJECT_AFTER_MESSAGES = 2**64 - 2**13 - 1
WINDOW = 8192 - 64
"""Counters below the greatest that Linux accepts."""

MTU = 1420
AF41 = 0x88
ECT_0, CE = 2, 3


async def begin(bench: Bench) -> tuple[Peer, Session]:
    """A peer with a session in which a packet was delivered."""
    peer = await bench.add_peer()
    session = await peer.handshake()
    await peer.check_delivered(session, "in a new session")
    return peer, session


@case(
    "padding",
    rule="A packet is padded with zeros to a multiple of 16 bytes.",
    source="whitepaper 5.4.6; send.c, calculate_skb_padding",
    sends="packets of applications of 28 to 60 bytes",
    expects="plaintexts of the next multiple of 16, the packet first and zeros behind it",
    seconds=3.0,
)
async def padding(bench: Bench) -> None:
    peer, session = await begin(bench)
    for size in (28, 31, 32, 33, 47, 48, 49, 60):
        serial = await peer.inject(size=size)
        _, plain = await peer.expect_packet(session, serial)
        if len(plain) != -(-size // 16) * 16:
            raise BrokenRuleError(f"{size} bytes became {len(plain)}")
        if any(plain[size:]):
            raise BrokenRuleError("the padding is not zero")


@case(
    "padding-below-mtu",
    rule="Padding does not make a packet longer than the MTU of the interface.",
    source="send.c, calculate_skb_padding (min with mtu)",
    sends=f"packets of applications of {MTU - 1} and {MTU} bytes, the MTU being {MTU}",
    expects=f"plaintexts of {MTU} bytes",
)
async def padding_below_mtu(bench: Bench) -> None:
    peer, session = await begin(bench)
    for size in (MTU - 1, MTU):
        serial = await peer.inject(size=size)
        _, plain = await peer.expect_packet(session, serial)
        if len(plain) != MTU:
            raise BrokenRuleError(f"{size} bytes became {len(plain)}")


@case(
    "padding-removed",
    rule="What is behind the length in the IP header is not delivered.",
    source="whitepaper 5.4.6; receive.c, wg_packet_consume_data_done (pskb_trim)",
    sends="a packet of 29 bytes with 3 and with 35 bytes of zeros behind it",
    expects="29 bytes each time",
)
async def padding_removed(bench: Bench) -> None:
    peer, session = await begin(bench)
    for extra in (0, 32):
        inner = packet(peer.inner(), SUBJECT_INNER[4], bench.next_serial(), size=29)
        await peer.send(session, inner + bytes(extra))
        await bench.expect_delivered(inner)
        if bench.inner[-1][1] != inner:
            raise BrokenRuleError(f"delivered with {len(bench.inner[-1][1]) - 29} bytes too many")


@case(
    "keepalive-is-empty",
    rule="A keepalive is a transport message of an empty packet, 32 bytes, and is not padded.",
    source="whitepaper 6.5; send.c, wg_packet_send_keepalive",
    sends="a persistent keepalive of 1 s",
    expects="messages of 32 bytes",
    seconds=4.0,
)
async def keepalive_is_empty(bench: Bench) -> None:
    peer = await bench.add_peer(keepalive=1)
    session = await peer.respond(await peer.expect_initiation())
    await peer.line.expect(Kind.DATA)
    arrival = await peer.line.expect(Kind.DATA)
    if peer.open(session, arrival) != b"":
        raise BrokenRuleError(f"a keepalive of {len(arrival.data)} bytes")


@case(
    "counters-from-zero",
    rule="Counters begin at 0 in each session and rise by one with each message.",
    source="whitepaper 5.4.6; send.c, encrypt_packet",
    sends="ten packets of applications in a session that the subject initiated",
    expects="counters 0, 1, 2 and so on, none left out",
)
async def counters_from_zero(bench: Bench) -> None:
    peer = await bench.add_peer()
    session, _ = await peer.be_initiated()
    for _ in range(10):
        await peer.expect_packet(session, await peer.inject())
    found = sorted(session.seen)
    if found != list(range(len(found))):
        raise BrokenRuleError(f"counters {found}")


@case(
    "replayed-packet",
    rule="A counter is accepted once.",
    source="whitepaper 5.4.6; receive.c, counter_validate",
    sends="the same transport message three times, then a new one",
    expects="one delivery of each",
)
async def replayed_packet(bench: Bench) -> None:
    peer, session = await begin(bench)
    inner = peer.packet()
    datagram = await peer.send(session, inner)
    for _ in range(2):
        await peer.line.wire.send(datagram)
    await peer.check_delivered(session, "after replays")
    await trio.sleep(0.1)
    if (count := bench.delivered(inner)) != 1:
        raise BrokenRuleError(f"delivered {count} times")


async def check_window(bench: Bench, behind: int) -> None:
    peer, session = await begin(bench)
    await peer.check_delivered(session, "far ahead", counter=20_000)
    counter = 20_000 - behind
    inner = peer.packet()
    for _ in range(2):
        await peer.send(session, inner, counter=counter)
    await bench.expect_delivered(inner, f"{behind} counters behind the greatest")
    session.counter = 20_001
    await peer.check_delivered(session, "after a replay in the window")
    await trio.sleep(0.1)
    if (count := bench.delivered(inner)) != 1:
        raise BrokenRuleError(f"{behind} counters behind the greatest: delivered {count} times")


@case(
    "replay-window-of-the-paper",
    rule="A message up to some 2,000 counters behind the greatest is accepted, and once.",
    source="whitepaper 5.4.6",
    sends="counter 20,000, then 18,020 twice",
    expects="one delivery of the late one",
)
async def replay_window_of_the_paper(bench: Bench) -> None:
    await check_window(bench, 1980)


@case(
    "replay-window-of-linux",
    rule=f"A message up to {WINDOW} counters behind the greatest is accepted, and once.",
    source="messages.h, COUNTER_WINDOW_SIZE; RFC 6479",
    sends="counter 20,000, then one that is 8,100 behind it, twice",
    expects="one delivery of the late one",
)
async def replay_window_of_linux(bench: Bench) -> None:
    await check_window(bench, 8100)


@case(
    "before-the-window",
    rule="A message behind the replay window is dropped, though its counter was never used.",
    source="whitepaper 5.4.6; receive.c, counter_validate",
    sends="counter 40,000, then 5",
    expects="the second is not delivered",
)
async def before_the_window(bench: Bench) -> None:
    peer, session = await begin(bench)
    await peer.check_delivered(session, "far ahead", counter=40_000)
    inner = peer.packet()
    await peer.send(session, inner, counter=5)
    session.counter = 40_001
    await bench.expect_not_delivered(inner, peer, session, "39,995 counters behind the greatest")


@case(
    "forged-counter",
    rule="A message that does not authenticate does not move the replay window.",
    source="receive.c, wg_packet_rx_poll (counter_validate after decrypt_packet)",
    sends="a damaged message with counter 2^40, then one with the next counter",
    expects="the second is delivered",
)
async def forged_counter(bench: Bench) -> None:
    peer, session = await begin(bench)
    damaged = bytearray(peer.seal(session, peer.packet(), 2**40))
    damaged[-1] ^= 1
    await peer.line.wire.send(bytes(damaged))
    await peer.check_delivered(session, "after a forgery from far ahead")


@case(
    "64-bit-counters",
    rule="Counters, and the nonces made of them, are 64 bits wide.",
    source="whitepaper 5.4.6",
    sends="messages with the counters 2^31, 2^32 - 1, 2^32, 2^32 + 7, 2^48 and 2^63 + 1",
    expects="all are delivered, and a replay of 2^32 + 7 is not",
)
async def wide_counters(bench: Bench) -> None:
    peer, session = await begin(bench)
    inner = b""
    for counter in (2**31, 2**32 - 1, 2**32, 2**32 + 7, 2**48, 2**63 + 1):
        await peer.check_delivered(session, f"counter {counter}", counter=counter)
    inner = peer.packet()
    await peer.send(session, inner, counter=2**32 + 7)
    session.counter = 2**63 + 2
    await bench.expect_not_delivered(inner, peer, session, "a replay of counter 2^32 + 7")


@case(
    "reject-after-messages",
    rule="A session accepts no message whose counter is Reject-After-Messages or more.",
    source="whitepaper 6.1 and 6.2; receive.c, counter_validate",
    sends="a message 1000 below 2^64 - 2^13 - 1, then ones 200 above it and with 2^64 - 1",
    expects="the first alone is delivered",
)
async def reject_after_messages(bench: Bench) -> None:
    peer, session = await begin(bench)
    below = REJECT_AFTER_MESSAGES - 1000
    await peer.check_delivered(session, "below the limit", counter=below)
    inners = []
    for counter in (REJECT_AFTER_MESSAGES + 200, 2**64 - 1):
        inners.append(peer.packet())
        await peer.send(session, inners[-1], counter=counter)
    session.counter = below + 1
    for inner in inners:
        await bench.expect_not_delivered(inner, peer, session, "its counter is past the limit")


@case(
    "source-in-allowed-ips",
    rule="A packet whose source is not in the allowed IPs of the peer is dropped.",
    source="whitepaper 2; receive.c, wg_packet_consume_data_done",
    sends="packets of a peer from a network of no one and from that of another peer",
    expects="neither is delivered",
)
async def source_in_allowed_ips(bench: Bench) -> None:
    peer, session = await begin(bench)
    other = await bench.add_peer()
    for source, version in (("172.31.9.9", 4), (other.inner(), 4), (other.inner(6), 6)):
        inner = peer.packet(source=source, version=version)
        await peer.send(session, inner)
        await bench.expect_not_delivered(inner, peer, session, f"from {source}, not its network")


@case(
    "nested-allowed-ips",
    rule="The longest prefix that covers an address decides whose it is, in both directions.",
    source="whitepaper 2; allowedips.c, lookup",
    sends="packets from 10.50.7.1 by the peers of 10.50.0.0/16 and of 10.50.7.0/24, and one to it",
    expects="the second alone is delivered, and the packet goes to the second peer",
    seconds=3.0,
)
async def nested_allowed_ips(bench: Bench) -> None:
    wide = await bench.add_peer(allowed=["10.50.0.0/16"])
    narrow = await bench.add_peer(allowed=["10.50.7.0/24"])
    wide_session, narrow_session = await wide.handshake(), await narrow.handshake()
    inner = wide.packet(source="10.50.7.1")
    await wide.send(wide_session, inner)
    good = narrow.packet(source="10.50.7.1")
    await narrow.send(narrow_session, good)
    await bench.expect_delivered(good, "of the longer prefix")
    other = wide.packet(source="10.50.8.1")
    await wide.send(wide_session, other)
    await bench.expect_delivered(other, "of the shorter prefix alone")
    if bench.delivered(inner):
        raise BrokenRuleError("the peer of the shorter prefix used an address of the longer one")
    await narrow.expect_packet(narrow_session, await narrow.inject(to="10.50.7.1"))
    await wide.expect_packet(wide_session, await wide.inject(to="10.50.8.1"))


@case(
    "malformed-inner",
    rule="A payload that is no whole IPv4 or IPv6 packet is dropped.",
    source="receive.c, wg_packet_consume_data_done (ip_tunnel_parse_protocol)",
    sends="payloads of another version, cut short, and with a length that is too great",
    expects="none is delivered, and the session goes on",
)
async def malformed_inner(bench: Bench) -> None:
    peer, session = await begin(bench)
    whole = peer.packet()
    longer = whole[:2] + (1000).to_bytes(2, "big") + whole[4:]
    wrong = (b"\x15" + whole[1:], b"\x75" + whole[1:], whole[:16], longer, b"\x45", bytes(64))
    before = len(bench.inner)
    for inner in wrong:
        await peer.send(session, inner)
    await peer.check_delivered(session, "after malformed packets")
    await trio.sleep(0.1)
    if (count := len(bench.inner) - before - 1) != 0:
        raise BrokenRuleError(f"{count} malformed packets were delivered")


@case(
    "keepalive-not-delivered",
    rule="A keepalive is delivered to no one, and does not end the session.",
    source="receive.c, wg_packet_consume_data_done",
    sends="three keepalives, then a packet",
    expects="one delivery",
)
async def keepalive_not_delivered(bench: Bench) -> None:
    peer, session = await begin(bench)
    before = len(bench.inner)
    for _ in range(3):
        await peer.send(session)
    await peer.check_delivered(session, "after keepalives")
    await trio.sleep(0.1)
    if (count := len(bench.inner) - before) != 1:
        raise BrokenRuleError(f"{count} deliveries for one packet")


@case(
    "roaming-by-data",
    rule="An authenticated packet moves the peer's endpoint to where it came from.",
    source="whitepaper 2.1; receive.c, wg_socket_set_peer_endpoint_from_skb",
    sends="a packet from another address and port, then one of an application",
    expects="the second goes to the new address, which a get shows",
)
async def roaming_by_data(bench: Bench) -> None:
    peer, session = await begin(bench)
    line = await bench.open_line()
    await peer.check_delivered(session, "from another address", line=line)
    await peer.expect_packet(session, await peer.inject(), line=line)
    shown = (await bench.get()).peers[peer.identity.public].values.get("endpoint")
    if shown != line.endpoint:
        raise BrokenRuleError(f"the endpoint is shown as {shown}, not {line.endpoint}")


@case(
    "roaming-by-handshake",
    rule="An authenticated handshake message moves the endpoint, too.",
    source="whitepaper 2.1; receive.c, wg_receive_handshake_packet",
    sends="an initiation from another address, a keepalive there, a packet of an application",
    expects="the packet goes to the new address",
)
async def roaming_by_handshake(bench: Bench) -> None:
    peer, _ = await begin(bench)
    line = await bench.open_line()
    await trio.sleep(0.1)
    session = await peer.handshake(line=line)
    await peer.expect_packet(session, await peer.inject(), line=line)


async def check_stays(bench: Bench, peer: Peer, session: Session, what: str) -> None:
    """What an application sends must still go to the first address."""
    await peer.expect_packet(session, await peer.inject())
    shown = (await bench.get()).peers[peer.identity.public].values.get("endpoint")
    if shown != peer.line.endpoint:
        raise BrokenRuleError(f"{what} moved the endpoint to {shown}")


@case(
    "no-roaming-by-replay",
    rule="A replayed packet moves no endpoint.",
    source="receive.c, wg_packet_rx_poll (counter_validate before the endpoint)",
    sends="a packet, and a copy of it from another address",
    expects="what follows goes to the first address",
)
async def no_roaming_by_replay(bench: Bench) -> None:
    peer, session = await begin(bench)
    datagram = await peer.send(session, peer.packet())
    await trio.sleep(0.1)
    line = await bench.open_line()
    await line.wire.send(datagram)
    await trio.sleep(0.2)
    await check_stays(bench, peer, session, "a replay")


@case(
    "no-roaming-by-forgery",
    rule="A packet that does not authenticate moves no endpoint.",
    source="whitepaper 2.1; receive.c, decrypt_packet",
    sends="a damaged packet and a replayed initiation from another address",
    expects="what follows goes to the first address",
)
async def no_roaming_by_forgery(bench: Bench) -> None:
    peer, session = await begin(bench)
    initiation = peer.sent
    line = await bench.open_line()
    damaged = bytearray(peer.seal(session, peer.packet()))
    damaged[-1] ^= 1
    await line.wire.send(bytes(damaged))
    await line.wire.send(initiation)
    await trio.sleep(0.2)
    await check_stays(bench, peer, session, "a forgery")


@case(
    "ecn-outwards",
    rule="The ECN bits of a packet are copied to its datagram; DSCP is not.",
    source="RFC 6040, 4.1; send.c, encrypt_packet (ip_tunnel_ecn_encap)",
    sends="packets of applications that are Not-ECT, ECT(0) and CE, with a DSCP",
    expects="datagrams with the same ECN bits and DSCP 0",
)
async def ecn_outwards(bench: Bench) -> None:
    peer, session = await begin(bench)
    for ecn in (0, ECT_0, 1, CE):
        serial = await peer.inject(ecn=AF41 | ecn)
        arrival, _ = await peer.expect_packet(session, serial)
        if arrival.tos != ecn:
            raise BrokenRuleError(f"ECN {ecn} inside, TOS {arrival.tos:#04x} outside")


@case(
    "ecn-inwards",
    rule="CE on a datagram is set in its packet if that is ECT; one that is Not-ECT never gets it.",
    source="RFC 6040, 4.2; receive.c, wg_packet_consume_data_done (INET_ECN_decapsulate)",
    sends="datagrams with CE that carry packets which are ECT(0) and Not-ECT",
    expects="the first is delivered with CE; the second unchanged, as Linux has it, or not at all",
)
async def ecn_inwards(bench: Bench) -> None:
    peer, session = await begin(bench)
    for ecn, wanted in ((ECT_0, CE), (0, 0)):
        inner = peer.packet(ecn=ecn)
        await peer.send(session, inner, tos=CE)
        await peer.check_delivered(session, "after a datagram with CE")
        for _, found in bench.inner:
            if serial_of(found) == serial_of(inner) and found[1] & 3 != wanted:
                raise BrokenRuleError(f"ECN {ecn} in CE was delivered as {found[1] & 3}")
        if ecn and not bench.delivered(inner):
            raise BrokenRuleError("ECT(0) in CE was not delivered")


@case(
    "dscp-of-handshakes",
    rule="Handshake messages are sent with DSCP AF41.",
    source="messages.h, HANDSHAKE_DSCP",
    sends="an initiation, and a packet of an application for another peer",
    expects="a response and an initiation with the TOS byte 0x88",
)
async def dscp_of_handshakes(bench: Bench) -> None:
    peer, other = await bench.add_peer(), await bench.add_peer()
    await peer.send_initiation()
    response = await peer.line.expect(Kind.RESPONSE)
    await other.inject()
    initiation = await other.expect_initiation()
    found = f"response {response.tos:#04x}, initiation {initiation.tos:#04x}"
    bench.note(found)
    if {response.tos, initiation.tos} != {AF41}:
        raise BrokenRuleError(found)


@case(
    "many-packets",
    rule="A session carries any number of packets each way, each once.",
    source="whitepaper 5.4.6",
    sends="1,000 packets in 20 bursts, and 500 of applications",
    expects="all of them arrive once",
    seconds=6.0,
)
async def many_packets(bench: Bench) -> None:
    peer, session = await begin(bench)
    inners = []
    for _ in range(20):
        for _ in range(50):
            inners.append(peer.packet())
            await peer.send(session, inners[-1])
        await bench.expect_delivered(inners[-1])
    for _ in range(50):
        serials = [await peer.inject() for _ in range(10)]
        await peer.expect_packet(session, serials[-1], PATIENCE)
    seen = [inner for _, inner in bench.inner]
    if len(seen) != len(set(seen)):
        raise BrokenRuleError(f"{len(seen) - len(set(seen))} packets were delivered twice")
    if missing := len(set(inners) - set(seen)):
        raise BrokenRuleError(f"{missing} of {len(inners)} packets were not delivered")
    if len(session.seen) < 500:
        raise BrokenRuleError(f"{len(session.seen)} of 500 packets of applications were sent")


@case(
    "forged-tags",
    rule="A transport message with any byte damaged is dropped.",
    source="whitepaper 5.4.6 (AEAD)",
    sends="40 messages with a byte damaged in counter, ciphertext or tag",
    expects="none is delivered, and the session goes on",
)
async def forged_tags(bench: Bench) -> None:
    peer, session = await begin(bench)
    before = len(bench.inner)
    for _ in range(40):
        damaged = bytearray(peer.seal(session, peer.packet()))
        damaged[8 + secrets.randbelow(len(damaged) - 8)] ^= 1 << secrets.randbelow(8)
        await peer.line.wire.send(bytes(damaged))
    await peer.check_delivered(session, "after forgeries")
    await peer.line.silence(QUIET, "in answer to forgeries", kinds=[Kind.RESPONSE, Kind.OTHER])
    if (count := len(bench.inner) - before - 1) != 0:
        raise BrokenRuleError(f"{count} forgeries were delivered")
