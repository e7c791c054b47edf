"""What the hooks of a conf changed while the tunnel came up: it belongs to the conf.

`wg set` in PostUp, `ip link set %i mtu`, `ip route del`: a reload must not undo it, and a diff must
not show it as damage. It holds until the conf itself says something else about the same thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface, IPv6Interface

import trio

from tunnel import host
from tunnel.config import InterfaceConfig, PeerConfig, PublicKey, TunnelConfig
from tunnel.daemon.host_state import HostState, Surroundings
from tunnel.daemon.save import merge_running
from tunnel.device.device import Device
from tunnel.device.status import take_snapshot


@dataclass(frozen=True, slots=True)
class PeerEffect:
    """A peer as the conf had it, and as hooks left it; None where there was none."""

    before: PeerConfig | None
    after: PeerConfig | None

    def on_peer(self, new: PeerConfig | None) -> PeerConfig | None:
        """The peer as it should run, with `new` in the conf; None for none."""
        before, after = self.before, self.after
        if before is None:
            # One that a hook has added. It stays where it is by now.
            return new if new is not None or after is None else replace(after, endpoint=None)
        if new is None or after is None:
            return None if new == before else new
        if before.preshared_key == new.preshared_key:
            new = replace(new, preshared_key=after.preshared_key)
        if set(before.networks) == set(new.networks):
            new = replace(new, allowed_ips=after.allowed_ips)
        if before.persistent_keepalive == new.persistent_keepalive:
            new = replace(new, persistent_keepalive=after.persistent_keepalive)
        return new

    def is_none(self) -> bool:
        """Whether nothing has changed. Endpoints do not count: they move by themselves."""
        one, other = self.before, self.after
        if one is None or other is None:
            return one is other
        return (
            one.preshared_key == other.preshared_key
            and set(one.networks) == set(other.networks)
            and one.persistent_keepalive == other.persistent_keepalive
        )


@dataclass(frozen=True, slots=True)
class HookEffects:
    """What stands otherwise than the conf says whose [Interface] is `at_up`, once hooks have run.

    `gone` are the objects of the machine that were taken away, `addresses` were added. None of
    `listen_port`, `fwmark` and `mtu` means that it is as it was set up.
    """

    at_up: InterfaceConfig
    peers: Mapping[PublicKey, PeerEffect] = field(default_factory=dict)
    gone: frozenset[host.Item] = frozenset()
    addresses: frozenset[IPv4Interface | IPv6Interface] = frozenset()
    listen_port: int | None = None
    fwmark: int | None = None
    mtu: int | None = None

    def on_conf(self, new: TunnelConfig) -> TunnelConfig:
        """`new` with the effects on port and peers, where it says the same as at `up`."""
        interface = new.interface
        if self.listen_port is not None and interface.listen_port == self.at_up.listen_port:
            new = replace(new, interface=replace(interface, listen_port=self.listen_port))
        if not self.peers:
            return new
        peers: dict[PublicKey, PeerConfig | None] = {peer.public_key: peer for peer in new.peers}
        for key, effect in self.peers.items():
            peers[key] = effect.on_peer(peers.get(key))
        return replace(new, peers=tuple(peer for peer in peers.values() if peer is not None))

    def on_host(self, new: TunnelConfig, surroundings: Surroundings) -> Surroundings:
        """The surroundings of `new` with the effects on the machine."""
        interface = new.interface
        if self.fwmark is not None and interface.fwmark == self.at_up.fwmark:
            surroundings = replace(surroundings, mark=self.fwmark)
        state = surroundings.state.without(self.gone)
        if self.mtu is not None and interface.mtu == self.at_up.mtu:
            state = replace(state, mtu=self.mtu)
        return replace(surroundings, state=state)


async def observe(device: Device, config: TunnelConfig, around: HostState) -> HookEffects:
    """What PostUp of `config` has changed, before anything else could. Raises HostError."""
    interface = config.interface
    if not (interface.pre_up or interface.post_up):
        return HookEffects(interface)
    udp, surroundings = device.engine.udp, around.surroundings
    snapshot = await take_snapshot(device.engine)
    names = device.endpoints.names()

    def compare() -> HookEffects:
        running = merge_running(config, None, snapshot, auto_mark=surroundings.mark, names=names)
        gone: Iterable[host.Item] = ()
        addresses: Iterable[IPv4Interface | IPv6Interface] = ()
        mtu = None
        link = host.interface_status(config.name, netns=around.applied.netns)
        # One that is down, or that was moved or renamed, says nothing of what else has changed.
        if link is not None and link.up:
            gone = _gone(config.name, around.applied.missing())
            addresses = set(link.addresses) - set(surroundings.state.addresses)
            mtu = link.mtu if link.mtu != surroundings.state.mtu else None
        port = interface.listen_port
        return HookEffects(
            interface,
            dict(_peer_effects(config.peers, running.peers)),
            frozenset(gone),
            frozenset(addresses),
            listen_port=snapshot.listen_port if port and snapshot.listen_port != port else None,
            fwmark=udp.fwmark if udp.fwmark != surroundings.mark else None,
            mtu=mtu,
        )

    return await trio.to_thread.run_sync(compare)


def _gone(name: str, missing: Iterable[host.Item]) -> list[host.Item]:
    """What hooks took away of what is `missing` of the tunnel's.

    Name servers are not: ours have to be taken back at the end, and not at the next reload.
    """
    found = list(missing)
    if any(isinstance(item, host.Dns) for item in found):
        host.keep_servers(name)
    return [item for item in found if not isinstance(item, host.Link | host.Dns)]


def _peer_effects(
    before: Iterable[PeerConfig], after: Iterable[PeerConfig]
) -> Iterator[tuple[PublicKey, PeerEffect]]:
    at_up = {peer.public_key: peer for peer in before}
    running = {peer.public_key: peer for peer in after}
    # Of several peers with the same network, the last has it.
    owners = {network: key for key, peer in at_up.items() for network in peer.networks}
    for key in at_up | running:
        was, now = at_up.get(key), running.get(key)
        if was is not None and now is not None:
            due = {network for network in was.networks if owners[network] == key}
            if due == set(now.networks):
                now = replace(now, allowed_ips=was.allowed_ips)
        effect = PeerEffect(was, now)
        if not effect.is_none():
            yield key, effect
