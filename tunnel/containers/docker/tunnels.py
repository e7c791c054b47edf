"""The tunnel that a network of containers uses, as its daemon or its conf describes it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_interface, ip_network

from tunnel import config, host
from tunnel.config.problems import Mistake
from tunnel.config.values import check_name
from tunnel.containers.errors import ContainerError
from tunnel.control.client import TunnelClient
from tunnel.control.json_client import NotRunningError
from tunnel.control.json_protocol import ControlError
from tunnel.host.gateway import Network
from tunnel.host.state import InterfaceAddress
from tunnel.linux.kernel import IPV6_MIN_MTU
from tunnel.packet import ethernet


@dataclass(frozen=True, slots=True)
class TunnelFacts:
    """A tunnel of this host: the networks of each of its peers, and the size of a packet in bytes.

    One of Ethernet frames has a `bridge`, to which its own `addresses` belong.
    """

    name: str
    peers: tuple[tuple[Network, ...], ...]
    mtu: int
    bridge: str = ""
    addresses: tuple[InterfaceAddress, ...] = ()

    @property
    def allowed(self) -> tuple[Network, ...]:
        """The networks of all peers."""
        return tuple(network for peer in self.peers for network in peer)


def look_up(name: str) -> TunnelFacts:
    """The tunnel of that name, of its daemon if it is up, else of its conf. Blocks.

    Raises ContainerError with what to do where there is none, or none that can be used.
    """
    try:
        check_name(name)
    except Mistake as mistake:
        raise ContainerError(f"conf={name}: the name of a tunnel {mistake.fault}") from None
    try:
        with TunnelClient(name) as client:
            status = client.status()
    except NotRunningError:
        return _from_conf(name)
    except ControlError as error:
        raise ContainerError(f"the tunnel {name}: {error}") from error
    _require_fit(name, "" if status.here else status.netns or "another")
    _require_bridge(name, status.mode, status.bridge)
    peers = tuple(tuple(map(ip_network, peer.allowed_ips)) for peer in status.peers)
    addresses = tuple(map(ip_interface, status.addresses))
    return TunnelFacts(name, peers, status.mtu, status.bridge, addresses)


def look_up_routed(name: str) -> TunnelFacts:
    """The same for one of packets only."""
    tunnel = look_up(name)
    if tunnel.bridge:
        raise ContainerError(
            f"the tunnel {name} carries Ethernet frames (Mode = tap), and this network is routed: "
            "use a tunnel without Mode in its conf"
        )
    return tunnel


def _from_conf(name: str) -> TunnelFacts:
    try:
        loaded = config.load(config.find(name))
    except config.ConfigErrors as errors:
        raise ContainerError(
            f"the tunnel {name} cannot be used: it is not up, and {errors}; write or correct "
            f"/etc/tunnel/{name}.conf, or start the tunnel from another folder: tunnel up "
            f"FOLDER/{name}.conf"
        ) from None
    options = loaded.interface.options
    _require_fit(name, str(options.netns_path or ""))
    _require_bridge(name, options.mode, options.bridge)
    overhead = ethernet.OVERHEAD if options.is_tap else 0
    mtu = loaded.interface.mtu or max(host.compute_mtu([]) - overhead, IPV6_MIN_MTU)
    peers = tuple(peer.networks for peer in loaded.peers)
    return TunnelFacts(name, peers, mtu, options.bridge, tuple(loaded.interface.addresses))


def _require_bridge(name: str, mode: str, bridge: str) -> None:
    if mode == "tap" and not bridge:
        raise ContainerError(
            f"the tunnel {name} carries Ethernet frames, and its interface is in no bridge: add "
            f"Bridge = br0 in section [Tunnel] of its conf, below Mode = tap; then tunnel restart "
            f"{name}, if it is up"
        )


def _require_fit(name: str, netns: str) -> None:
    if netns:
        raise ContainerError(
            f"the interface of {name} is in another network namespace ({netns}), not in this "
            "host's: use a tunnel without NetNS that is not attached to a container"
        )
