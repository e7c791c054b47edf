"""The tunnel that a network of containers uses, as its daemon or its conf describes it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network

from tunnel import config, host
from tunnel.config.problems import Mistake
from tunnel.config.values import check_name
from tunnel.containers.errors import ContainerError
from tunnel.control.client import TunnelClient
from tunnel.control.json_client import NotRunningError
from tunnel.control.json_protocol import ControlError
from tunnel.host.gateway import Network
from tunnel.linux.kernel import IPV6_MIN_MTU


@dataclass(frozen=True, slots=True)
class TunnelFacts:
    """A tunnel of this host: the networks of its peers, and the size of a packet in bytes."""

    name: str
    allowed: tuple[Network, ...]
    mtu: int


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
    _require_fit(name, status.mode, "" if status.here else status.netns or "another")
    allowed = (ip_network(text) for peer in status.peers for text in peer.allowed_ips)
    return TunnelFacts(name, tuple(allowed), status.mtu)


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
    _require_fit(name, options.mode, str(options.netns_path or ""))
    mtu = loaded.interface.mtu or max(host.compute_mtu([]), IPV6_MIN_MTU)
    return TunnelFacts(name, tuple(loaded.networks), mtu)


def _require_fit(name: str, mode: str, netns: str) -> None:
    if mode != "tun":
        raise ContainerError(
            f"the tunnel {name} carries Ethernet frames (Mode = {mode}), and networks of this "
            "driver are routed: use a conf without Mode"
        )
    if netns:
        raise ContainerError(
            f"the interface of {name} is in another network namespace ({netns}), not in this "
            "host's: use a tunnel without NetNS that is not attached to a container"
        )
