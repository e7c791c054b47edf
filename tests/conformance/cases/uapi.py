"""What is configured and shown over the UAPI (https://www.wireguard.com/xplatform/)."""

from __future__ import annotations

import time

import trio

from ..bench import QUIET, Bench, BrokenRuleError
from ..case import case

EINVAL = 22


@case(
    "get-statistics",
    rule="A get shows the bytes each way and the time of the last handshake.",
    source="wireguard.com/xplatform, get: rx_bytes, tx_bytes, last_handshake_time_sec",
    sends="a handshake and packets each way",
    expects="numbers that fit them, and a time within a minute of now",
)
async def get_statistics(bench: Bench) -> None:
    peer = await bench.add_peer()
    before = (await bench.get()).peers[peer.identity.public]
    if before.number("last_handshake_time_sec"):
        raise BrokenRuleError("a last handshake before the first one")
    session = await peer.handshake()
    for _ in range(5):
        await peer.check_delivered(session, "")
        await peer.expect_packet(session, await peer.inject(size=200))
    state = (await bench.get()).peers[peer.identity.public]
    age = time.time() - state.number("last_handshake_time_sec")
    received, sent = state.number("rx_bytes"), state.number("tx_bytes")
    bench.note(f"rx_bytes {received}, tx_bytes {sent}, last handshake {age:.0f} s ago")
    if not -2 <= age <= 60:
        raise BrokenRuleError(f"the last handshake is shown as {age:.0f} s ago")
    # The whole datagrams, or what is in them: both are in use.
    if not 5 * 28 <= received <= 2000:
        raise BrokenRuleError(f"rx_bytes is {received}")
    if not 5 * 200 <= sent <= 3000:
        raise BrokenRuleError(f"tx_bytes is {sent}")


@case(
    "set-refuses",
    rule="A set with an unknown key or a wrong value is refused with an errno.",
    source="wireguard.com/xplatform, set; uapi.go, IpcSetOperation",
    sends="sets with an unknown key, a short public key, a wrong endpoint, protocol_version=2",
    expects="an errno other than 0 for each, and a device that still answers",
)
async def set_refuses(bench: Bench) -> None:
    peer = await bench.add_peer()
    key = f"public_key={peer.identity.public.hex()}"
    for lines in (
        ("colour=blue",),
        ("public_key=12",),
        (key, "endpoint=nowhere"),
        (key, "allowed_ip=10.0.0.0/33"),
        (key, "protocol_version=2"),
        ("listen_port=65536",),
    ):
        if await bench.set(*lines) == 0:
            raise BrokenRuleError(f"accepted: {lines[-1]}")
    await peer.handshake()


@case(
    "update-only",
    rule="With update_only=true a peer that is not there is not made.",
    source="wireguard.com/xplatform, update_only",
    sends="a set of an unknown peer with update_only=true",
    expects="errno 0, and a get without it",
)
async def update_only(bench: Bench) -> None:
    stranger = await bench.stranger()
    await bench.configure(f"public_key={stranger.identity.public.hex()}", "update_only=true")
    if stranger.identity.public in (await bench.get()).peers:
        raise BrokenRuleError("the peer was made")


@case(
    "replace-peers",
    rule="replace_peers=true leaves only the peers of the same set.",
    source="wireguard.com/xplatform, replace_peers",
    sends="a set with replace_peers=true and one new peer",
    expects="a get with that peer alone; the other one is not answered",
    seconds=3.0,
)
async def replace_peers(bench: Bench) -> None:
    before, after = await bench.add_peer(), await bench.stranger()
    await bench.configure("replace_peers=true", *bench.peer_lines(after))
    if set((await bench.get()).peers) != {after.identity.public}:
        raise BrokenRuleError("a get shows other peers")
    await after.handshake()
    await before.send_initiation()
    await before.line.silence(QUIET, "though the peer was replaced")


@case(
    "allowed-ip-moves",
    rule="An allowed IP belongs to one peer: given to another, it moves there.",
    source="whitepaper 2; allowedips.c, add",
    sends="a network of one peer set for another one",
    expects="a get with it at the second alone; packets from it and to it by the second",
)
async def allowed_ip_moves(bench: Bench) -> None:
    first = await bench.add_peer(allowed=["10.60.0.0/16"])
    second = await bench.add_peer(allowed=["10.60.0.0/16"])
    peers = (await bench.get()).peers
    if peers[first.identity.public].allowed_ips:
        raise BrokenRuleError("the network is shown at the first peer, too")
    session, other = await first.handshake(), await second.handshake()
    inner = first.packet(source="10.60.0.1")
    await first.send(session, inner)
    good = second.packet(source="10.60.0.1")
    await second.send(other, good)
    await bench.expect_delivered(good, "from a network that has moved to its peer")
    await trio.sleep(0.1)
    if bench.delivered(inner):
        raise BrokenRuleError("the first peer still sends from the network")
    await second.expect_packet(other, await second.inject(to="10.60.0.1"))


@case(
    "replace-allowed-ips",
    rule="replace_allowed_ips=true leaves only the networks of the same set, also for a session.",
    source="wireguard.com/xplatform, replace_allowed_ips",
    sends="a set with replace_allowed_ips=true and another network",
    expects="packets from the new network alone",
)
async def replace_allowed_ips(bench: Bench) -> None:
    peer = await bench.add_peer()
    session = await peer.handshake()
    await peer.check_delivered(session, "before the change")
    await bench.configure(
        f"public_key={peer.identity.public.hex()}",
        "replace_allowed_ips=true",
        "allowed_ip=10.61.0.0/16",
    )
    inner = peer.packet()
    await peer.send(session, inner)
    good = peer.packet(source="10.61.0.1")
    await peer.send(session, good)
    await bench.expect_delivered(good, "from the new network")
    await trio.sleep(0.1)
    if bench.delivered(inner):
        raise BrokenRuleError("a packet from the network that was replaced was delivered")


@case(
    "endpoint-change",
    rule="A new endpoint is used at once, also by a session.",
    source="netlink.c, set_peer (WGPEER_A_ENDPOINT)",
    sends="a set with another endpoint, then a packet of an application",
    expects="the packet at the new endpoint",
)
async def endpoint_change(bench: Bench) -> None:
    peer = await bench.add_peer()
    session = await peer.handshake()
    await peer.check_delivered(session, "")
    line = await bench.open_line()
    await bench.configure(f"public_key={peer.identity.public.hex()}", f"endpoint={line.endpoint}")
    await peer.expect_packet(session, await peer.inject(), line=line)
