"""A peer's allowed IPs by the hundred thousand: listed, compared and changed in slices.

Networks are integers here, as `tunnel.protocol.pack` makes them: objects would take ten times as
long. Each function calls `Pace.step` once a network, so that packets get their turn.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, pairwise
from typing import TypeAlias

from tunnel.config import PrivateKey, PublicKey, TunnelConfig
from tunnel.config.values import network_text
from tunnel.control.timeslice import Pace
from tunnel.engine import Engine, Peer
from tunnel.protocol import pack, unpack

Networks: TypeAlias = dict[int, bool]
"""A peer's networks in order, all marked True, as `change` and `replace` take them."""

_Place = tuple[int, int, int]
"""Version, lowest address, prefix length: what networks are sorted by."""

RUN = 1024
"""Networks sorted in one go, which takes a fifth of a millisecond."""

_SHOWN = 4
"""Networks that a summary names; the rest are counted."""


async def wanted_networks(
    config: TunnelConfig, own: PublicKey | None, pace: Pace
) -> dict[PublicKey, Networks]:
    """The networks each peer of the conf ends up with: the last that lists one has it.

    A peer that has our `own` key is left out, after it took what is its own, as in WireGuard.
    """
    owners: dict[int, PublicKey] = {}
    for peer in config.peers:
        listed: dict[int, None] = {}
        for network, modifier in peer.allowed_ips:
            packed = pack(network.version, int(network.network_address), network.prefixlen)
            if modifier == "-":
                listed.pop(packed, None)
            else:
                listed[packed] = None
            await pace.step()
        for packed in listed:
            owners[packed] = peer.public_key
            await pace.step()
    found: dict[PublicKey, Networks] = {}
    for peer in config.peers:
        if peer.public_key != own:
            found[peer.public_key] = {}
        await pace.step()
    for packed, key in owners.items():
        if key != own:
            found[key][packed] = True
        await pace.step()
    return found


async def texts(networks: Iterable[int], pace: Pace) -> tuple[str, ...]:
    """Networks as text: IPv4 before IPv6, each by address, then by length."""
    runs: list[list[_Place]] = []
    run: list[_Place] = []
    for packed in networks:
        run.append(unpack(packed))
        if len(run) == RUN:
            runs.append(sorted(run))
            run = []
        await pace.step()
    runs.append(sorted(run))
    found = []
    for network in _merged([run for run in runs if run]):
        found.append(network_text(*network))
        await pace.step()
    return tuple(found)


def _merged(runs: list[list[_Place]]) -> Iterable[_Place]:
    # Most confs are in order already.
    in_order = all(one[-1] < other[0] for one, other in pairwise(runs))
    drained = map(_drained, runs)
    return chain.from_iterable(drained) if in_order else heapq.merge(*drained)


def _drained(run: list[_Place]) -> Iterator[_Place]:
    """The list from its beginning, emptied on the way: to free all runs at once takes 20 ms."""
    run.reverse()
    while run:
        yield run.pop()


class Summary:
    """Many networks in one line: the first few in order, and how many more."""

    def __init__(self) -> None:
        self._first: list[_Place] = []
        self._count = 0

    def add(self, packed: int) -> None:
        """One more."""
        self._count += 1
        insort(self._first, unpack(packed))
        del self._first[_SHOWN:]

    def __bool__(self) -> bool:
        return self._count > 0

    def __str__(self) -> str:
        names = [network_text(*network) for network in self._first]
        more = self._count - len(names)
        return ", ".join([*names, *([f"and {more} more"] if more else [])]) or "no allowed IPs"


async def summarize(networks: Iterable[int], pace: Pace) -> Summary:
    """A summary of all of `networks`."""
    summary = Summary()
    for packed in networks:
        summary.add(packed)
        await pace.step()
    return summary


async def compare(
    engine: Engine, peer: Peer, wanted: Networks, pace: Pace
) -> tuple[Summary, Summary]:
    """What `replace` would take away from the peer, and what it would give to it."""
    allowed = engine.interface.allowed_ips
    lost, gained = Summary(), Summary()
    for packed in allowed.packed_of(peer):
        if not wanted.get(packed):
            lost.add(packed)
        await pace.step()
    for packed in wanted:
        if not allowed.has_packed(packed, peer):
            gained.add(packed)
        await pace.step()
    return lost, gained


async def change(engine: Engine, peer: Peer, networks: Mapping[int, bool], pace: Pace) -> None:
    """Give `peer` the networks marked True, and take those marked False away from it."""
    allowed = engine.interface.allowed_ips
    for packed, add in networks.items():
        if not add:
            allowed.remove_packed(packed, peer)
        elif not allowed.has_packed(packed, peer):
            allowed.insert_packed(packed, peer)
        await pace.step()


async def replace(engine: Engine, peer: Peer, networks: Mapping[int, bool], pace: Pace) -> None:
    """Give `peer` the networks marked True and no others."""
    allowed = engine.interface.allowed_ips
    # Additions first: a network that stays, or moves here from another peer, always has an owner.
    await change(engine, peer, networks, pace)
    for packed in allowed.packed_of(peer):
        if not networks.get(packed):
            allowed.remove_packed(packed, peer)
        await pace.step()


async def set_private_key(engine: Engine, key: PrivateKey | None, pace: Pace) -> None:
    """Set our private key. A peer that has the public key of it is removed, its networks first."""
    protocol = engine.interface
    own = None if key is None else protocol.peers.get(key.public_key())
    if own is not None:
        await replace(engine, own, {}, pace)
    for _ in protocol.private_key_steps(key, engine.clock()):
        await pace.step()


async def remove_peer(engine: Engine, peer: Peer, pace: Pace) -> None:
    """Remove `peer`, its networks first: the protocol would take them away all at once."""
    await replace(engine, peer, {}, pace)
    engine.interface.remove_peer(peer.public_key)
    engine.settle()  # each event in its turn: thousands at once would hold up packets
    await pace.step()
