"""Make a running tunnel equal to its conf, or say what that would change.

`read`, and the look-up of the names that `to_resolve` finds, come first: they wait for others, and
nothing here waits for them. `plan` compares and computes, and touches nothing. `carry_out` does
what a plan says: first what the kernel may refuse, each with its way back, then what cannot fail.
So an error leaves everything as it was, and a peer that did not change never notices.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tunnel import config as confs
from tunnel import host
from tunnel.config import PeerConfig, PublicKey, TunnelConfig
from tunnel.control.messages.changes import TAKEN, Change, ReloadResult
from tunnel.control.timeslice import Pace
from tunnel.daemon.hook_effects import HookEffects
from tunnel.daemon.host_state import HostState, Location, Surroundings, compute, line_of_port
from tunnel.device import sync
from tunnel.device.device import Device
from tunnel.engine import Engine
from tunnel.errors import DaemonError
from tunnel.io.endpoint import Endpoint

log = logging.getLogger("tunnel")

TRIES = 3
"""Attempts to resolve a name of the new conf; a person is waiting."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reload would do. `wanted` is `config` with what hooks have changed beside it;
    `addresses` are those of endpoints that are new or changed.

    With `away`, the interface is where it cannot be changed, and the machine around stays as it is.
    """

    config: TunnelConfig
    wanted: TunnelConfig
    surroundings: Surroundings
    addresses: Mapping[PublicKey, Sequence[Endpoint]]
    listen_port: int
    outcome: ReloadResult
    away: bool = False


async def read(path: Path | None, name: str) -> TunnelConfig:
    """The conf as it is on disk now. Raises ConfigErrors, DaemonError, HostError."""
    if path is None:
        raise DaemonError(f"{name} was not set up from a file, so there is none to reload")
    loaded = await trio.to_thread.run_sync(confs.load, path)
    for warning in loaded.warnings:
        log.warning("%s", warning)
    return loaded


async def to_resolve(
    engine: Engine,
    old: TunnelConfig,
    new: TunnelConfig,
    known: Mapping[PublicKey, Sequence[Endpoint]],
) -> list[PeerConfig]:
    """The peers whose endpoint is new or another in `new`, and is not `known` yet."""
    pace = Pace()
    before = {peer.public_key: peer for peer in old.peers}
    running = engine.interface.peers
    found = []
    for peer in new.peers:
        key = peer.public_key
        wanted = key not in running or sync.endpoint_changed(
            before.get(key), peer, running[key].endpoint
        )
        if wanted and peer.endpoint is not None and key not in known:
            found.append(peer)
        await pace.step()
    return found


async def plan(
    engine: Engine,
    old: TunnelConfig,
    new: TunnelConfig,
    around: HostState,
    addresses: Mapping[PublicKey, Sequence[Endpoint]],
    effects: HookEffects,
    place: Location,
) -> Plan:
    """Compare the running tunnel, which is at `place`, with `new`; `old` is the conf applied last,
    `addresses` are those of what `to_resolve` gave, and `effects` what hooks have changed.

    Raises DaemonError, HostError.
    """
    if new.name != old.name:
        raise DaemonError(
            f"the conf is that of {new.name}, and {old.name} is running: "
            f"tunnel down {old.name}, then tunnel up {new.name}"
        )
    check_hooks(new)
    endpoints = await _endpoints(engine, new, addresses)
    # These count when the tunnel comes up again.
    placed = replace(
        new.interface.options,
        mode="tap" if engine.tun.tap else "tun",
        bridge=around.applied.state.bridge,
    )
    there = replace(new, interface=replace(new.interface, options=placed))
    wanted = await trio.to_thread.run_sync(effects.on_conf, new)
    port = wanted.interface.listen_port
    if not port and not old.interface.listen_port:
        port = engine.udp.port  # any will do, so the one in use
    surroundings, on_host = around.surroundings, list[Change]()
    away = await whereabouts(engine, old.name, place)
    if not away:
        surroundings = await compute(there, endpoints, slot=surroundings.slot, place=place)
        surroundings = effects.on_host(new, surroundings)
        on_host = await trio.to_thread.run_sync(_host_changes, around.applied, surroundings.state)
    changes = [
        *_socket_changes(engine, port, surroundings.mark),
        *on_host,
        *await sync.differences(engine, old, wanted),
        *_changed_options(old, new),
        *_changes_at_down(old, new),
    ]
    notes = [*_not_live(old, new)]
    if away:
        notes.append(f"{away}, so its addresses, MTU, routes, rules and DNS stay as they are")
    warnings = tuple(map(str, new.warnings))
    outcome = ReloadResult(tuple(changes), tuple(notes), warnings)
    return Plan(new, wanted, surroundings, addresses, port, outcome, bool(away))


async def whereabouts(engine: Engine, name: str, place: Location) -> str:
    """Where the interface is, in words; empty if it is at `place`, by its name."""
    if place.netns:
        look = partial(host.interface_status, name, netns=place.netns)
        try:
            found = await trio.to_thread.run_sync(look)
        except host.HostError:
            found = None  # the namespace has just gone
        return "" if found else f"{name} is not in the network namespace {place.netns}"
    link = await trio.to_thread.run_sync(engine.tun.link)
    if not link.here:
        return f"{name} was moved to another network namespace"
    return "" if link.name == name else f"{name} was renamed to {link.name}"


def parts(config: TunnelConfig) -> list[Any]:
    """The many parts of a conf, as `let_go` takes them: each before what it has."""
    return [part for peer in config.peers for part in (*peer.allowed_ips, peer)]


async def carry_out(plan: Plan, device: Device, around: HostState) -> HostState:
    """Do what the plan says; the host state that stands then.

    Raises HostError and UdpError, and then nothing has changed.
    """
    engine = device.engine
    udp = engine.udp
    port, mark = udp.port, udp.fwmark
    # After a cancellation the tunnel is either the old one or the new one.
    with trio.CancelScope(shield=True):
        with ExitStack() as undo:
            if plan.listen_port != port:
                with line_of_port(plan.config):
                    udp.set_port(plan.listen_port)
                undo.callback(_best_effort, udp.set_port, port)
            if plan.surroundings.mark != mark:
                udp.set_fwmark(plan.surroundings.mark)
                undo.callback(_best_effort, udp.set_fwmark, mark)
            applied = around.applied
            if not plan.away:
                applied = await trio.to_thread.run_sync(applied.reconcile, plan.surroundings.state)
                engine.mtu = plan.surroundings.state.mtu
            undo.pop_all()
        await device.endpoints.update(plan.config.peers, plan.addresses)
        endpoints = {key: found[0] for key, found in plan.addresses.items()}
        await sync.apply(engine, plan.wanted, endpoints)
        engine.settle()
    return HostState(applied, plan.surroundings)


def _best_effort(restore: Callable[[int], None], value: int) -> None:
    try:
        restore(value)
    except Exception as error:  # the error that brought us here is the one to raise
        log.error("could not undo everything of a failed reload: %s", error)


def check_hooks(config: TunnelConfig) -> None:
    """Raise HostError if the conf has hooks, and others can write it."""
    if config.interface.hooks and config.path is not None:
        host.check_hook_source(config.path, config.status)


def _socket_changes(engine: Engine, port: int, mark: int) -> Iterator[Change]:
    if port != engine.udp.port:
        yield Change("~", "listen port", f"{engine.udp.port} becomes {port or 'a random one'}")
    if mark != engine.udp.fwmark:
        yield Change("~", "fwmark", f"{engine.udp.fwmark:#x} becomes {mark:#x}")


async def _endpoints(
    engine: Engine, new: TunnelConfig, addresses: Mapping[PublicKey, Sequence[Endpoint]]
) -> list[Endpoint]:
    """Where the peers of `new` will be."""
    pace = Pace()
    running = engine.interface.peers
    found = []
    for peer in new.peers:
        key = peer.public_key
        if key in addresses:
            found.append(addresses[key][0])
        elif key in running:
            endpoint = running[key].endpoint
            if endpoint is not None:
                found.append(endpoint)
        await pace.step()
    return found


def _host_changes(applied: host.Applied, state: host.DesiredState) -> list[Change]:
    before, after = applied.state.items(), state.items()
    taken = applied.missing()
    removed = [item for item in before if item not in {*after, *taken}]
    added = [item for item in after if item not in set(before)]
    if added:
        # What another program has set already, as `ip address add` before a save, is only taken.
        absent = {*replace(applied, state=state).missing(), *filter(_is_unreadable, added)}
        added = [item for item in added if item in absent]
    found: list[Change] = []
    for item in removed:
        heir = next((new for new in added if type(new) is type(item)), None)
        if isinstance(item, host.Firewall) and isinstance(heir, host.Firewall):
            # One table, of which each entry of the conf is a part.
            old, new = item.parts(), heir.parts()
            found += (Change("-", part) for part in old if part not in new)
            found += (Change("+", part) for part in new if part not in old)
            added.remove(heir)
        elif isinstance(item, host.Link) and isinstance(heir, host.Link):
            found.append(Change("~", "mtu", f"{item.mtu} becomes {heir.mtu}"))
            added.remove(heir)
        elif not (isinstance(item, host.Link) and heir is None):
            found.append(Change("-", str(item)))
    found += (Change("+", str(item)) for item in added)
    wanted = {*after, *state.connected}
    found += (Change("+", str(item), TAKEN) for item in taken if item in wanted)
    return found


def _is_unreadable(item: host.Item) -> bool:
    """Whether the machine does not show it as it is: name servers, and our netfilter table."""
    return isinstance(item, host.Dns | host.Firewall)


def _changed_options(old: TunnelConfig, new: TunnelConfig) -> Iterator[Change]:
    """The keys of [Tunnel] that the daemon alone heeds: neither host nor peers show them."""
    before, after = old.interface.options, new.interface.options
    for key in confs.changed_keys(old, new, confs.Reload.LIVE):
        if hasattr(after, key.field):
            if key.split is not None:
                yield Change("~", key.name, "its new value counts from now on")
                continue
            was, becomes = (key.write(getattr(each, key.field)) for each in (before, after))
            yield Change("~", key.name, f"{was} becomes {becomes}")


def _changes_at_down(old: TunnelConfig, new: TunnelConfig) -> Iterator[Change]:
    for key in confs.changed_keys(old, new, confs.Reload.DOWN):
        yield Change("~", key.name, "its new value counts when the tunnel goes down")


def _not_live(old: TunnelConfig, new: TunnelConfig) -> Iterator[str]:
    """What differs and has no effect before the tunnel comes up again, in words."""
    names = [key.name for key in confs.changed_keys(old, new, confs.Reload.UP)]
    if names:
        yield (
            f"changed, but used only when the tunnel comes up: {', '.join(names)}; "
            f"run tunnel restart {new.name}"
        )
