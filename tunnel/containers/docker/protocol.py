"""What Docker asks of a plugin for networks and addresses, as values.

The requests are JSON objects of moby's libnetwork (docs/remote.md, docs/ipam.md there). What is not
asked for is ignored: newer engines send more.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import Self, TypeVar

from tunnel.errors import TunnelError
from tunnel.host.gateway import IpAddress, Network
from tunnel.host.state import InterfaceAddress

_T = TypeVar("_T")

GENERIC = "com.docker.network.generic"
"""Where the options of `docker network create -o` are."""
INTERNAL = "com.docker.network.internal"
PORT_MAP = "com.docker.network.portmap"
ADDRESS_TYPE, GATEWAY = "RequestAddressType", "com.docker.network.gateway"

_ID = re.compile(r"[0-9a-zA-Z]{12,128}")
_PROTOCOLS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_SCTP: "sctp"}


class RequestError(TunnelError):
    """A request that is no such request."""

    code = "syntax"


class Fields:
    """The fields of a JSON object, each with the type that it has to have."""

    def __init__(self, data: object, what: str = "the request") -> None:
        if not isinstance(data, dict):
            raise RequestError(f"{what} is not a JSON object")
        self._data: dict[str, object] = data

    def text(self, name: str) -> str:
        """A string; empty if it is not there."""
        return self._typed(name, str) or ""

    def flag(self, name: str) -> bool:
        """True or false; false if it is not there."""
        # Options come as text too: those of a network that was read from Docker's store.
        value = self._data.get(name)
        return value is True or value == "true"

    def number(self, name: str) -> int:
        """A whole number; 0 if it is not there."""
        return self._typed(name, int) or 0

    def identity(self, name: str) -> str:
        """An identifier of Docker's; there must be one."""
        value = self.text(name)
        if not _ID.fullmatch(value):
            raise RequestError(f"{name} is not an identifier of Docker's")
        return value

    def inner(self, name: str) -> Fields:
        """An object; an empty one if it is not there."""
        return Fields(self._data.get(name) or {}, name)

    def rows(self, name: str) -> list[Fields]:
        """A list of objects; empty if it is not there."""
        return [Fields(each, name) for each in self._typed(name, list) or ()]

    def texts(self) -> dict[str, str]:
        """All fields; those that are no strings are left out."""
        return {name: value for name, value in self._data.items() if isinstance(value, str)}

    def parsed(self, name: str, parse: Callable[[str], _T]) -> _T | None:
        """What `parse` makes of a string, None if it is empty or not there."""
        value = self.text(name)
        try:
            return parse(value) if value else None
        except ValueError as error:
            raise RequestError(f"{name}: {error}") from None

    def _typed(self, name: str, kind: type[_T]) -> _T | None:
        value = self._data.get(name)
        if value is not None and not isinstance(value, kind):
            raise RequestError(f"{name} is not a {kind.__name__}")
        return value


@dataclass(frozen=True, slots=True)
class Subnet:
    """A network's addresses of one IP version, and its gateway's, with the prefix length."""

    pool: Network
    gateway: InterfaceAddress | None


@dataclass(frozen=True, slots=True)
class CreateNetwork:
    """A network is to be made. `options` are those of `docker network create -o`."""

    network: str
    subnets: tuple[Subnet, ...]
    options: dict[str, str]
    internal: bool

    @classmethod
    def parse(cls, data: object) -> Self:
        """Raises RequestError."""
        fields = Fields(data)
        options = fields.inner("Options")
        subnets = []
        for row in (*fields.rows("IPv4Data"), *fields.rows("IPv6Data")):
            pool = row.parsed("Pool", ip_network)
            if pool is None:
                raise RequestError("a pool of addresses has no Pool")
            subnets.append(Subnet(pool, row.parsed("Gateway", ip_interface)))
        return cls(
            fields.identity("NetworkID"),
            tuple(subnets),
            options.inner(GENERIC).texts(),
            options.flag(INTERNAL),
        )


@dataclass(frozen=True, slots=True)
class OfNetwork:
    """A request about a network alone."""

    network: str

    @classmethod
    def parse(cls, data: object) -> Self:
        """Raises RequestError."""
        return cls(Fields(data).identity("NetworkID"))


@dataclass(frozen=True, slots=True)
class OfEndpoint:
    """A request about a container's end in a network. `published` are its ports of the host."""

    network: str
    endpoint: str
    published: tuple[PortRequest, ...] = ()

    @classmethod
    def parse(cls, data: object) -> Self:
        """Raises RequestError."""
        fields = Fields(data)
        ports = fields.inner("Options").rows(PORT_MAP)
        return cls(
            fields.identity("NetworkID"),
            fields.identity("EndpointID"),
            tuple(map(PortRequest.parse, ports)),
        )


@dataclass(frozen=True, slots=True)
class PortRequest:
    """A port of a container that is to be reached by one of the host's ports `first` to `last`.

    0 stands for any; `address` is the host's, None for all that it has.
    """

    protocol: str
    inner: int
    address: IpAddress | None
    first: int
    last: int

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        """Raises RequestError."""
        first = fields.number("HostPort")
        address = fields.parsed("HostIP", ip_address)
        return cls(
            _PROTOCOLS.get(fields.number("Proto"), str(fields.number("Proto"))),
            fields.number("Port"),
            None if address is None or address.is_unspecified else address,
            first,
            max(first, fields.number("HostPortEnd")),
        )


@dataclass(frozen=True, slots=True)
class CreateEndpoint:
    """A container's end of a network is to be made, with these addresses."""

    network: str
    endpoint: str
    addresses: tuple[InterfaceAddress, ...]
    mac: str

    @classmethod
    def parse(cls, data: object) -> Self:
        """Raises RequestError."""
        fields = Fields(data)
        interface = fields.inner("Interface")
        found = (interface.parsed(name, ip_interface) for name in ("Address", "AddressIPv6"))
        return cls(
            fields.identity("NetworkID"),
            fields.identity("EndpointID"),
            tuple(address for address in found if address is not None),
            interface.text("MacAddress"),
        )


@dataclass(frozen=True, slots=True)
class RequestPool:
    """Addresses for a network: `pool`, of which this host is to give `part` (None: its own)."""

    pool: Network | None
    part: Network | None
    options: dict[str, str]

    @classmethod
    def parse(cls, data: object) -> Self:
        """Raises RequestError."""
        fields = Fields(data)
        return cls(
            fields.parsed("Pool", ip_network),
            fields.parsed("SubPool", ip_network),
            fields.inner("Options").texts(),
        )


@dataclass(frozen=True, slots=True)
class OfAddress:
    """A request for an address of a pool, or about one. `address` is None for any."""

    pool: str
    address: IpAddress | None
    is_gateway: bool = False

    @classmethod
    def parse(cls, data: object) -> Self:
        """Raises RequestError."""
        fields = Fields(data)
        kind = fields.inner("Options").text(ADDRESS_TYPE)
        return cls(fields.text("PoolID"), fields.parsed("Address", ip_address), kind == GATEWAY)
