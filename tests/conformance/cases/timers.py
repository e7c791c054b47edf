"""What happens by itself, and when (whitepaper, 6).

Bounds are generous: a busy machine may be late by seconds, but nothing comes early.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import quantiles

import trio

from ..bench import Bench, BrokenRuleError, Peer, Session
from ..case import case
from ..wire import Arrival, Kind, serial_of

EARLY = 0.3
"""Seconds that something may come too early: our clock starts when we ask."""

LATE = 2.5
"""Seconds that something may come too late."""

JITTER = 1 / 3
"""Seconds that Linux adds to a retry at most."""


def check_time(what: str, passed: float, wanted: float, late: float = LATE) -> None:
    """`passed` seconds must be those that are wanted."""
    if not wanted - EARLY <= passed <= wanted + late:
        raise BrokenRuleError(f"{what} after {passed:.2f} s, not {wanted:g} s")


async def begin(bench: Bench, *, keepalive: int = 0) -> tuple[Peer, Session]:
    """A peer with a session of ours that is confirmed; nothing has been delivered in it."""
    peer = await bench.add_peer(keepalive=keepalive)
    session = await peer.handshake()
    # Until the keepalive of ours is read, what an application sends would wait.
    await trio.sleep(0.2)
    peer.line.forget()
    return peer, session


@case(
    "passive-keepalive",
    rule="Data received and nothing sent for 10 s is answered by a keepalive.",
    source="whitepaper 6.5; timers.c, wg_expired_send_keepalive",
    sends="a packet",
    expects="a keepalive 10 s later",
    seconds=11.0,
)
async def passive_keepalive(bench: Bench) -> None:
    peer, session = await begin(bench)
    await peer.check_delivered(session, "")
    start = trio.current_time()
    arrival = await peer.line.expect(Kind.DATA, 10 + LATE)
    check_time("a keepalive", arrival.at - start, 10)
    bench.note(f"after {arrival.at - start:.2f} s")
    if peer.open(session, arrival) != b"":
        raise BrokenRuleError(f"{arrival.title} in place of a keepalive")


@case(
    "passive-keepalive-once",
    rule="A packet is answered by one keepalive, not by one every 10 s.",
    source="whitepaper 6.5; timers.c, wg_expired_send_keepalive",
    sends="a packet",
    expects="one keepalive in 24 s",
    seconds=24.0,
)
async def passive_keepalive_once(bench: Bench) -> None:
    peer, session = await begin(bench)
    await peer.check_delivered(session, "")
    found = await peer.line.collect(24)
    if len(found) != 1:
        raise BrokenRuleError(f"{len(found)} messages in 24 s: {[a.title for a in found]}")


@case(
    "keepalive-unanswered",
    rule="A keepalive is never answered by a keepalive.",
    source="whitepaper 6.5; timers.c, wg_timers_data_received",
    sends="keepalives, and then nothing",
    expects="nothing for 14 s",
    seconds=15.0,
)
async def keepalive_unanswered(bench: Bench) -> None:
    peer, session = await begin(bench)
    for _ in range(3):
        await peer.send(session)
    await peer.line.silence(14, "in answer to keepalives")


@case(
    "no-keepalive-while-sending",
    rule="While data is sent no keepalive is needed, and none is sent.",
    source="whitepaper 6.5; timers.c, wg_timers_data_sent (timer_send_keepalive)",
    sends="a packet each way every 4 s for 16 s",
    expects="no keepalive",
    seconds=17.0,
)
async def no_keepalive_while_sending(bench: Bench) -> None:
    peer, session = await begin(bench)
    for _ in range(4):
        await peer.check_delivered(session, "")
        await peer.expect_packet(session, await peer.inject())
        for arrival in await peer.line.collect(4):
            if arrival.is_keepalive:
                raise BrokenRuleError("a keepalive beside data")


@case(
    "new-handshake-after-15-s",
    rule="Data sent and nothing received for 15 s starts a new handshake.",
    source="whitepaper 6.5; timers.c, wg_expired_new_handshake",
    sends="a packet of an application, and no answer",
    expects="an initiation 15 s later",
    seconds=17.0,
)
async def new_handshake_after_15_s(bench: Bench) -> None:
    peer, session = await begin(bench)
    start = trio.current_time()
    await peer.expect_packet(session, await peer.inject())
    arrival = await peer.expect_initiation(15 + LATE)
    check_time("an initiation", arrival.at - start, 15)
    bench.note(f"after {arrival.at - start:.2f} s")


@case(
    "no-handshake-if-answered",
    rule="Any authenticated message shows that the session lives: no new handshake.",
    source="whitepaper 6.5; timers.c, wg_timers_any_authenticated_packet_received",
    sends="a packet of an application, answered by a keepalive",
    expects="no initiation in 19 s",
    seconds=20.0,
)
async def no_handshake_if_answered(bench: Bench) -> None:
    peer, session = await begin(bench)
    await peer.expect_packet(session, await peer.inject())
    await peer.send(session)
    await peer.line.silence(19, "though a keepalive came")


async def initiations(peer: Peer, seconds: float) -> list[Arrival]:
    """Those of this time; everything else is passed over."""
    return [a for a in await peer.line.collect(seconds) if a.kind is Kind.INITIATION]


@case(
    "handshake-retry",
    rule="An unanswered initiation is repeated after 5 s, with a new ephemeral key, index, time.",
    source="whitepaper 6.4; timers.c, wg_expired_retransmit_handshake",
    sends="a packet of an application, and no answer",
    expects="four initiations, 5 s and up to 1/3 s of jitter apart, that share nothing",
    seconds=18.0,
)
async def handshake_retry(bench: Bench) -> None:
    peer = await bench.add_peer()
    await peer.inject()
    found = [await peer.expect_initiation()]
    found += await initiations(peer, 17)
    gaps = [later.at - one.at for one, later in pairwise(found)]
    bench.note("after " + ", ".join(f"{gap:.2f}" for gap in gaps) + " s")
    if len(found) < 3:
        raise BrokenRuleError(f"{len(found)} initiations in 17 s")
    for gap in gaps:
        check_time("a retry", gap, 5, JITTER + 1)
    stamps = [peer.open_initiation(arrival).timestamp for arrival in found]
    if sorted(set(stamps)) != stamps:
        raise BrokenRuleError("a retry whose timestamp is not later")
    for start, end, what in ((4, 8, "index"), (8, 40, "ephemeral key")):
        if len({arrival.data[start:end] for arrival in found}) < len(found):
            raise BrokenRuleError(f"a retry with the {what} of the one before")


@case(
    "retry-jitter",
    rule="Retries are spread by up to 1/3 s, so that two peers do not stay in step.",
    source="whitepaper 6.1; timers.c, wg_expired_retransmit_handshake (REKEY_TIMEOUT_JITTER_MAX)",
    sends="packets of applications for ten peers, and no answer",
    expects="times of two retries of each that differ by more than 40 ms in their middle half",
    seconds=13.0,
)
async def retry_jitter(bench: Bench) -> None:
    peers = [await bench.add_peer() for _ in range(10)]
    for peer in peers:
        await peer.inject()
    await trio.sleep(12)
    gaps = []
    for peer in peers:
        found = await initiations(peer, 0.01)
        gaps += [later.at - one.at for one, later in pairwise(found)]
    if len(gaps) < 10:
        raise BrokenRuleError(f"{len(gaps)} retries of ten peers in 12 s")
    low, _, high = quantiles(gaps, n=4)
    bench.note(f"middle half from {low:.3f} to {high:.3f} s")
    if high - low < 0.04:
        raise BrokenRuleError(f"the middle half is from {low:.3f} to {high:.3f} s")


@case(
    "handshake-spacing",
    rule="However much is sent, initiations are at least 5 s apart.",
    source="whitepaper 6.1; send.c, wg_packet_send_queued_handshake_initiation",
    sends="five packets of an application a second for 9 s, and no answer",
    expects="initiations that are 5 s apart",
    seconds=11.0,
)
async def handshake_spacing(bench: Bench) -> None:
    peer = await bench.add_peer()
    for _ in range(45):
        await peer.inject()
        await trio.sleep(0.2)
    times = [arrival.at for arrival in await initiations(peer, 0.5)]
    gaps = [later - one for one, later in pairwise(times)]
    bench.note("after " + ", ".join(f"{gap:.2f}" for gap in gaps) + " s")
    if not gaps or min(gaps) < 5 - EARLY:
        raise BrokenRuleError(f"{len(times)} initiations in 9 s, after {gaps}")


@case(
    "attempts-end-after-90-s",
    rule="A handshake that is not answered for 90 s is given up; new traffic starts again.",
    source="whitepaper 6.4; timers.c, wg_expired_retransmit_handshake (MAX_TIMER_HANDSHAKES)",
    sends="a packet of an application, and no answer; another 125 s later",
    expects="initiations for 90 s, then none, and one for the second packet",
    seconds=128.0,
)
async def attempts_end_after_90_s(bench: Bench) -> None:
    peer = await bench.add_peer()
    start = trio.current_time()
    await peer.inject()
    found = await initiations(peer, 125)
    last = found[-1].at - start if found else 0.0
    bench.note(f"{len(found)} initiations, the last after {last:.1f} s")
    # Linux counts 20 initiations, each up to 5.34 s after the one before.
    if not 80 <= last <= 112:
        raise BrokenRuleError(f"{len(found)} initiations, the last after {last:.1f} s, not 90 s")
    await peer.inject()
    await peer.expect_initiation(7)


@case(
    "rekey-after-120-s",
    rule="The initiator of a session starts a new handshake when it sends after 120 s.",
    source="whitepaper 6.2; send.c, keep_key_fresh",
    sends="a packet of an application every 2 s, each answered by a keepalive",
    expects="an initiation after 120 s, and the next packets in its session",
    seconds=124.0,
)
async def rekey_after_120_s(bench: Bench) -> None:
    peer = await bench.add_peer()
    session, _ = await peer.be_initiated()
    start = session.begun
    while True:
        found = await peer.line.collect(2)
        renewed = next((a for a in found if a.kind is Kind.INITIATION), None)
        if renewed is not None:
            break
        if trio.current_time() > start + 130:
            raise BrokenRuleError("no initiation in 130 s")
        await peer.inject()
        await peer.send(session)
    check_time("an initiation", renewed.at - start, 120, LATE + 2)
    bench.note(f"after {renewed.at - start:.1f} s")
    session = await peer.respond(renewed)
    await peer.line.expect(Kind.DATA)
    await peer.expect_packet(session, await peer.inject())


@case(
    "session-while-rekeying",
    rule="While a new handshake is not answered, the old session is used up to its 180 s.",
    source="whitepaper 6.2 and 6.4; send.c, keep_key_fresh",
    sends="packets of applications every 2 s, answered by keepalives, and no answer to initiations",
    expects="initiations from 120 s on that are 5 s apart, and all packets in the session to 160 s",
    seconds=162.0,
)
async def session_while_rekeying(bench: Bench) -> None:
    peer = await bench.add_peer()
    session, _ = await peer.be_initiated()
    times = []
    while trio.current_time() < session.begun + 160:
        serial = await peer.inject()
        await peer.send(session)
        found = await peer.line.collect(2)
        times += [arrival.at for arrival in found if arrival.kind is Kind.INITIATION]
        if not any(serial_of(peer.open(session, arrival) or b"") == serial for arrival in found):
            age = trio.current_time() - session.begun
            raise BrokenRuleError(f"a packet was not sent in a session of {age:.0f} s")
    gaps = [later - one for one, later in pairwise(times)]
    bench.note(f"{len(times)} initiations in 40 s")
    if len(times) < 4 or min(gaps) < 5 - EARLY:
        raise BrokenRuleError(f"initiations {', '.join(f'{gap:.2f}' for gap in gaps)} s apart")


@case(
    "no-rekey-by-the-responder",
    rule="The responder of a session starts no new handshake by its age.",
    source="whitepaper 6.2; send.c, keep_key_fresh (i_am_the_initiator)",
    sends="a handshake of ours, packets of an application every 5 s, each answered by a keepalive",
    expects="no initiation for 172 s",
    seconds=174.0,
)
async def no_rekey_by_the_responder(bench: Bench) -> None:
    peer, session = await begin(bench)
    end = session.begun + 172
    while trio.current_time() < end:
        await peer.inject()
        await peer.send(session)
        await peer.line.silence(5, "of the responder", kinds=[Kind.INITIATION])


@case(
    "rekey-on-receive-after-165-s",
    rule="The initiator starts a new handshake when it receives in a session older than 165 s.",
    source="whitepaper 6.2; receive.c, keep_key_fresh",
    sends="keepalives after 100 s and 155 s, and a packet after 167 s",
    expects="an initiation after the last alone",
    seconds=170.0,
)
async def rekey_on_receive_after_165_s(bench: Bench) -> None:
    peer = await bench.add_peer()
    session, _ = await peer.be_initiated()
    await peer.send(session)
    for when in (100, 155):
        await peer.line.silence(
            session.begun + when - trio.current_time(), "too early", kinds=[Kind.INITIATION]
        )
        await peer.send(session)
    await peer.line.silence(
        session.begun + 163 - trio.current_time(), "too early", kinds=[Kind.INITIATION]
    )
    await trio.sleep_until(session.begun + 167)
    await peer.check_delivered(session, "after 167 s")
    arrival = await peer.expect_initiation(3, "after a packet in a session of 167 s")
    bench.note(f"after {arrival.at - session.begun:.1f} s")


@case(
    "no-receiving-after-180-s",
    rule="A session of 180 s accepts nothing more.",
    source="whitepaper 6.2; receive.c, decrypt_packet (REJECT_AFTER_TIME)",
    sends="a packet after 170 s and one after 184 s",
    expects="the first alone is delivered",
    seconds=186.0,
)
async def no_receiving_after_180_s(bench: Bench) -> None:
    peer, session = await begin(bench)
    await trio.sleep_until(session.begun + 170)
    await peer.check_delivered(session, "after 170 s")
    await trio.sleep_until(session.begun + 184)
    inner = peer.packet()
    await peer.send(session, inner)
    other = await bench.add_peer()
    control = await other.handshake()
    await bench.expect_not_delivered(inner, other, control, "its session was 184 s old")


@case(
    "no-sending-after-180-s",
    rule="In a session of 180 s nothing more is sent; a new handshake is made first.",
    source="whitepaper 6.2; send.c, wg_packet_send_staged_packets (REJECT_AFTER_TIME)",
    sends="a packet of an application after 170 s, answered by a keepalive, and one after 184 s",
    expects="the first in the session; an initiation for the second, and it in the new session",
    seconds=187.0,
)
async def no_sending_after_180_s(bench: Bench) -> None:
    peer, session = await begin(bench)
    await trio.sleep_until(session.begun + 170)
    await peer.expect_packet(session, await peer.inject())
    await peer.send(session)
    await trio.sleep_until(session.begun + 184)
    peer.line.forget()
    serial = await peer.inject()
    arrival = await peer.line.expect_one(
        lambda a: a.kind in (Kind.INITIATION, Kind.DATA), "initiation", 7
    )
    if arrival.kind is Kind.DATA:
        raise BrokenRuleError("data in a session of 184 s")
    await peer.expect_packet(await peer.respond(arrival), serial)


@case(
    "erased-after-540-s",
    rule="540 s after a handshake was given up nothing is left of it: its answer is of no use.",
    source="whitepaper 6.3; timers.c, wg_expired_zero_key_material",
    sends="no answer to the initiations of 90 s; the right answer to the last of them 660 s later",
    expects="no session: no message comes of it",
    seconds=665.0,
)
async def erased_after_540_s(bench: Bench) -> None:
    peer = await bench.add_peer()
    start = trio.current_time()
    await peer.inject()
    found = await initiations(peer, 125)
    if not found:
        raise BrokenRuleError("no initiation in 125 s")
    await trio.sleep_until(start + 660)
    peer.line.forget()
    session = await peer.respond(found[-1])
    await peer.line.silence(2, "to a response after 660 s", kinds=[Kind.DATA])
    inner = peer.packet()
    await peer.send(session, inner)
    await trio.sleep(1)
    if bench.delivered(inner):
        raise BrokenRuleError("a response after 660 s made a session")


@case(
    "persistent-keepalive-at-once",
    rule="A persistent keepalive that is turned on sends its first message at once.",
    source="netlink.c, set_peer (wg_packet_send_keepalive)",
    sends="a persistent keepalive of 25 s for a peer without a session",
    expects="an initiation within 2 s",
    seconds=2.0,
)
async def persistent_keepalive_at_once(bench: Bench) -> None:
    peer = await bench.add_peer(keepalive=25)
    await peer.expect_initiation(LATE)


@case(
    "persistent-keepalive",
    rule="With a persistent keepalive a message is sent after each such time of silence.",
    source="whitepaper 6.5; timers.c, wg_expired_send_persistent_keepalive",
    sends="a persistent keepalive of 3 s, and nothing else",
    expects="four keepalives, 3 s apart",
    seconds=14.0,
)
async def persistent_keepalive(bench: Bench) -> None:
    peer, _ = await begin(bench, keepalive=3)
    found = await peer.line.collect(13.5)
    times = [arrival.at for arrival in found if arrival.is_keepalive]
    gaps = [later - one for one, later in pairwise(times)]
    bench.note("after " + ", ".join(f"{gap:.2f}" for gap in gaps) + " s")
    if len(times) < 3:
        raise BrokenRuleError(f"{len(times)} keepalives in 13.5 s")
    for gap in gaps:
        check_time("a keepalive", gap, 3, 1.5)


@case(
    "persistent-keepalive-in-silence",
    rule="Whatever authenticated is received puts the persistent keepalive off.",
    source="timers.c, wg_timers_any_authenticated_packet_traversal",
    sends="a persistent keepalive of 5 s, and a keepalive of ours every second for 12 s",
    expects="no keepalive meanwhile",
    seconds=13.0,
)
async def persistent_keepalive_in_silence(bench: Bench) -> None:
    peer, session = await begin(bench, keepalive=5)
    await peer.send(session)
    for _ in range(12):
        await peer.line.silence(1, "though we are not silent", kinds=[Kind.DATA])
        await peer.send(session)


@case(
    "persistent-keepalive-off",
    rule="A persistent keepalive of 0 sends nothing more.",
    source="netlink.c, set_peer (persistent_keepalive_interval)",
    sends="a persistent keepalive of 1 s, then of 0",
    expects="keepalives, then none for 5 s",
    seconds=8.0,
)
async def persistent_keepalive_off(bench: Bench) -> None:
    peer, _ = await begin(bench, keepalive=1)
    await peer.line.expect(Kind.DATA)
    await bench.configure(
        f"public_key={peer.identity.public.hex()}", "persistent_keepalive_interval=0"
    )
    await trio.sleep(0.2)
    peer.line.forget()
    await peer.line.silence(5, "though the persistent keepalive is off")
