"""ADD, DEL, CHECK, GC and STATUS: a bridge for each network, a veth pair for each container.

The tunnel stays where it is, in the namespace of the host. The bridge has the gateway's address and
the firewall that networks of Docker's driver have; from there the kernel routes into the tunnel.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from tunnel import host
from tunnel.containers.cni import ipam
from tunnel.containers.cni.errors import CniCode, CniError
from tunnel.containers.cni.ipam import Lease
from tunnel.containers.cni.request import VERSIONS, CniRequest, NetworkConfig
from tunnel.containers.docker.tunnels import TunnelFacts, look_up_routed
from tunnel.containers.network_state import network_state
from tunnel.daemon import lock
from tunnel.device.link_monitor import fitting_segments
from tunnel.errors import AlreadyRunningError, TunnelError
from tunnel.host import cards, container_links
from tunnel.host.cards import Card
from tunnel.host.container_gates import WAY_OUT, network_gates
from tunnel.host.gateway import Network
from tunnel.host.state import Address, InterfaceAddress
from tunnel.linux.files import RUN_FOLDER
from tunnel.packet.ethernet import station_address

OWNER = "tunnel-cni"

_PATIENCE = 120.0
"""Seconds for other calls about the same network."""


def supported() -> dict[str, Any]:
    """The answer to VERSION."""
    return {"cniVersion": VERSIONS[-1], "supportedVersions": list(VERSIONS)}


def answer(request: CniRequest, state_dir: Path = RUN_FOLDER) -> dict[str, Any] | None:
    """Do what is asked for; the result of ADD, None of the others. Raises CniError."""
    try:
        with _alone(request.config.bridge, state_dir):
            match request.command:
                case "ADD":
                    return _add(request, state_dir)
                case "DEL":
                    _delete(request, state_dir)
                case "CHECK":
                    _check(request, state_dir)
                case "GC":
                    _collect(request, state_dir)
                case "STATUS":
                    _report(request)
        return None
    except CniError:
        raise
    except TunnelError as error:
        raise CniError(CniCode.HOST, f"network {request.config.name}: {error}") from error
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise CniError(CniCode.IO_FAILURE, f"{place}{error.strerror}") from error


@contextlib.contextmanager
def _alone(name: str, state_dir: Path) -> Iterator[None]:
    """One call at a time for a network: the first makes its bridge, the last removes it."""
    try:
        with lock.hold(name, patience=_PATIENCE, folder=state_dir / "cni"):
            yield
    except AlreadyRunningError:
        raise CniError(
            CniCode.TRY_AGAIN,
            f"other calls for the network of {name} have taken {_PATIENCE:.0f} seconds",
        ) from None


def _add(request: CniRequest, state_dir: Path) -> dict[str, Any]:
    config = request.config
    facts = look_up_routed(config.conf)
    _require_ours(config.bridge, state_dir)
    given = ipam.lease(request)
    try:
        _set_up(config, facts, given, state_dir)
        mtu = config.mtu or facts.mtu
        container_links.make_pair(
            request.inner, request.outer, config.bridge, mtu, fitting_segments(mtu)
        )
        card = _card(request.interface, given, facts)
        address = cards.give_card(request.inner, card, request.netns)
    except BaseException:
        with contextlib.suppress(TunnelError):
            _delete(request, state_dir)
        raise
    return _result(request, given, card, address)


def _require_ours(bridge: str, state_dir: Path) -> None:
    """Raise TunnelError if something that is no network of ours has the name of the bridge."""
    record = host.load_record(bridge, state_dir)
    if record is None:
        if not _is_half_made(bridge):
            container_links.require_free(bridge)
    elif record.owner != OWNER:
        raise CniError(
            CniCode.INVALID_CONFIG,
            f"{bridge} is not a bridge of {OWNER}, but of {record.owner or 'a tunnel'}",
            'name another one: "bridge": "cni-office", or leave it out',
        )


def _is_half_made(bridge: str) -> bool:
    """Whether a bridge without a record is ours by its MAC address: ADD was killed meanwhile."""
    return container_links.has_link(bridge) and _mac(bridge) in cards.hardware_addresses([bridge])


def _mac(bridge: str) -> str:
    return station_address(bridge.encode()).hex(":")


def _set_up(config: NetworkConfig, facts: TunnelFacts, given: Lease, state_dir: Path) -> None:
    """The bridge with the gateways' addresses, forwarding, and the firewall around it."""
    gateways = dict.fromkeys(
        ip_interface(f"{gateway}/{address.network.prefixlen}")
        for address, gateway in zip(given.addresses, given.gateways, strict=True)
    )
    record = host.load_record(config.bridge, state_dir)
    if record is not None:
        # Those of the network's other ranges of addresses.
        gateways |= dict.fromkeys(_gateways(record))
    state = _state(config, facts, tuple(gateways), state_dir)
    versions = {gateway.version for gateway in gateways}
    is_new = container_links.make_bridge(config.bridge, _mac(config.bridge), ipv6=6 in versions)
    if is_new or record is None:
        host.apply(state, state_dir=state_dir, owner=OWNER)
    else:
        host.reconcile(state, state_dir=state_dir)


def _gateways(record: host.Record) -> Iterator[InterfaceAddress]:
    for item in record.items:
        if isinstance(item, Address) and item.value != container_links.LINK_LOCAL:
            yield item.value


def _state(
    config: NetworkConfig,
    facts: TunnelFacts,
    gateways: tuple[InterfaceAddress, ...],
    state_dir: Path,
) -> host.DesiredState:
    pools = tuple(gateway.network for gateway in gateways)
    gates = network_gates(config.bridge, config.conf, pools, internal=False, names=None)
    return network_state(
        config.bridge,
        pools,
        gateways,
        config.mtu or facts.mtu,
        (gate for gate in gates if config.masquerade or gate.entry != WAY_OUT),
        state_dir=state_dir,
    )


def _card(name: str, given: Lease, facts: TunnelFacts) -> Card:
    """Routes are those of the IPAM plugin; without any, what the tunnel's peers have."""
    wanted = given.routes or tuple((network, None) for network in facts.allowed)
    routes = []
    for network, hop in dict.fromkeys(wanted):
        gateway = hop or given.gateway(network.version)
        if gateway is not None and not _is_own(network, given):
            routes.append((network, gateway))
    return Card(name, given.addresses, tuple(routes))


def _is_own(network: Network, given: Lease) -> bool:
    """Whether it is the container's own network, to which the kernel has a route."""
    return any(address.network == network for address in given.addresses)


def _result(request: CniRequest, given: Lease, card: Card, mac: str) -> dict[str, Any]:
    config = request.config
    names = [config.bridge, request.outer]
    addresses = cards.hardware_addresses(names)
    interfaces = [
        {"name": name, "mac": address} for name, address in zip(names, addresses, strict=True)
    ]
    interfaces.append({"name": card.name, "mac": mac, "sandbox": request.netns})
    ips: list[dict[str, Any]] = []
    for address, gateway in zip(given.addresses, given.gateways, strict=True):
        entry = {"address": str(address), "gateway": str(gateway), "interface": 2}
        if config.version == VERSIONS[0]:
            entry["version"] = str(address.version)
        ips.append(entry)
    routes = [{"dst": str(network), "gw": str(gateway)} for network, gateway in card.routes]
    dns = config.raw.get("dns") or given.dns
    return {
        "cniVersion": config.version,
        "interfaces": interfaces,
        "ips": ips,
        "routes": routes,
        "dns": dns,
    }


def _delete(request: CniRequest, state_dir: Path) -> None:
    """Remove what there is; the address is released first, so that a failure can be repeated."""
    ipam.release(request)
    # With one end goes the other, wherever it is.
    host.delete_link(request.outer)
    if _is_ours(request.config.bridge, state_dir):
        _remove_if_empty(request.config.bridge, state_dir)


def _collect(request: CniRequest, state_dir: Path) -> None:
    """Remove what there is of containers that the runtime no longer has."""
    name, valid = request.config.bridge, request.config.valid_outers()
    if _is_ours(name, state_dir):
        for port in cards.plugged_into(name):
            if port.startswith("tv-") and port not in valid:
                host.delete_link(port)
        _remove_if_empty(name, state_dir)
    ipam.pass_on(request)


def _report(request: CniRequest) -> None:
    """Raise CniError if ADD would fail."""
    try:
        look_up_routed(request.config.conf)
    except TunnelError as error:
        raise CniError(CniCode.NOT_AVAILABLE, f"network {request.config.name}: {error}") from error
    ipam.pass_on(request)


def _is_ours(bridge: str, state_dir: Path) -> bool:
    record = host.load_record(bridge, state_dir)
    return _is_half_made(bridge) if record is None else record.owner == OWNER


def _remove_if_empty(bridge: str, state_dir: Path) -> None:
    if not cards.plugged_into(bridge):
        host.remove(bridge, state_dir=state_dir)
        host.delete_link(bridge)


def _check(request: CniRequest, state_dir: Path) -> None:
    previous = request.config.previous
    if previous is None:
        raise CniError(CniCode.INVALID_CONFIG, "CHECK needs prevResult, the result of ADD")
    ipam.check(request)
    given = ipam.read_lease(previous)
    faults = list(_faults(request, given, state_dir))
    if faults:
        raise CniError(
            CniCode.MISSING,
            "; ".join(faults),
            "DEL, then ADD, sets the container's network up again",
        )


def _faults(request: CniRequest, given: Lease, state_dir: Path) -> Iterator[str]:
    config = request.config
    facts = look_up_routed(config.conf)
    yield from cards.card_faults(_card(request.interface, given, facts), request.netns)
    if not container_links.has_link(config.bridge):
        yield f"there is no bridge {config.bridge}"
        return
    if request.outer not in cards.plugged_into(config.bridge):
        yield f"the veth {request.outer} of the container is not a port of bridge {config.bridge}"
    record = host.load_record(config.bridge, state_dir)
    if record is None:
        yield f"the bridge {config.bridge} is not set up"
        return
    gateways = tuple(_gateways(record))
    wanted = _state(config, facts, gateways, state_dir)
    # Settings of cards that have come since are none of what ADD has made.
    wanted = wanted.without(set(wanted.sysctls) - set(record.items))
    for item in host.missing(wanted, state_dir=state_dir):
        yield f"{config.bridge} lacks: {item}"
