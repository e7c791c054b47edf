"""What the plugin knows, on disk: networks, the ends of their containers, and addresses given.

One JSON file, replaced whole. It is written before the machine is changed, and as it was where that
fails. So after a kill at any time, it may name more than what is on the machine, but never less.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, Self

from tunnel.containers.errors import ContainerError
from tunnel.host.container_gates import PublishedPort
from tunnel.host.gateway import IpAddress, Network
from tunnel.host.state import InterfaceAddress
from tunnel.linux.files import read_plain, replace_file
from tunnel.linux.json_text import as_text, check_fields, read_json

_VERSION = 1


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """A container's end of a network; `joined` while a container has it."""

    addresses: tuple[InterfaceAddress, ...]
    joined: bool = False
    published: tuple[PublishedPort, ...] = ()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of what `Store` writes."""
        ports = (
            PublishedPort(
                port["protocol"],
                ip_address(as_text(port["address"])) if port["address"] else None,
                port["outer"],
                ip_address(as_text(port["target"])),
                port["inner"],
            )
            for port in data["published"]
        )
        addresses = tuple(map(ip_interface, map(as_text, data["addresses"])))
        return cls(addresses, data["joined"], tuple(ports))


@dataclass(frozen=True, slots=True)
class NetworkRecord:
    """A network. `conf` names its tunnel, `gateways` are the addresses of its bridge.

    `bridge` is the one that it shares with a tunnel of Ethernet frames, empty for one of its own.
    `allowed` are the networks of the tunnel's peers as they were last seen, `ports` those of the
    names' sockets: for containers, and for other hosts.
    """

    conf: str
    pools: tuple[Network, ...]
    gateways: tuple[InterfaceAddress, ...]
    internal: bool
    mtu: int
    allowed: tuple[Network, ...] = ()
    bridge: str = ""
    ports: tuple[int, int] = (0, 0)
    endpoints: Mapping[str, EndpointRecord] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of what `Store` writes."""
        query, peer = data["ports"]
        return cls(
            data["conf"],
            tuple(map(ip_network, map(as_text, data["pools"]))),
            tuple(map(ip_interface, map(as_text, data["gateways"]))),
            data["internal"],
            data["mtu"],
            tuple(map(ip_network, map(as_text, data["allowed"]))),
            data["bridge"],
            (query, peer),
            {name: EndpointRecord.from_json(each) for name, each in data["endpoints"].items()},
        )


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """A pool of addresses that this plugin gives. `part` is what this host may give of it, where
    the user has said so; `given` are addresses that are in use, or about to be.
    """

    conf: str
    pool: Network
    part: Network | None = None
    given: frozenset[IpAddress] = frozenset()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of what `Store` writes."""
        part = ip_network(as_text(data["part"])) if data["part"] else None
        given = frozenset(map(ip_address, map(as_text, data["given"])))
        return cls(data["conf"], ip_network(as_text(data["pool"])), part, given)


@dataclass(frozen=True, slots=True)
class PluginState:
    """All of it: networks by Docker's identifier, pools by ours."""

    networks: Mapping[str, NetworkRecord] = field(default_factory=dict)
    pools: Mapping[str, PoolRecord] = field(default_factory=dict)


class Store:
    """The file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "networks.json"

    def load(self) -> PluginState:
        """What was saved last; nothing where there is no file. Raises ContainerError."""
        try:
            data = read_json(read_plain(self.path))
            if data["version"] != _VERSION:
                raise ContainerError(
                    f"{self.path} is of another version of this program ({data['version']}): use "
                    "that one, or remove the networks with it first"
                )
            networks, pools = data["networks"].items(), data["pools"].items()
            found = PluginState(
                {name: NetworkRecord.from_json(each) for name, each in networks},
                {name: PoolRecord.from_json(each) for name, each in pools},
            )
            return check_fields(found)
        except FileNotFoundError:
            return PluginState()
        except OSError as error:
            raise ContainerError(f"{self.path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ContainerError(
                f"{self.path} is damaged ({type(error).__name__}: {error}); move it away, and make "
                "the networks again: docker network rm, docker network create"
            ) from error

    def save(self, state: PluginState) -> None:
        """Replace the file. Raises ContainerError, and then it is as it was."""
        text = json.dumps({"version": _VERSION, **asdict(state)}, default=_plain, indent=1)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self.path, text + "\n")
        except OSError as error:
            raise ContainerError(
                f"{self.path} cannot be written: {error.strerror}; nothing was changed; see: "
                f"df {self.path.parent}"
            ) from error


def _plain(value: object) -> object:
    return sorted(map(str, value)) if isinstance(value, frozenset) else str(value)
