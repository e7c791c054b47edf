"""Where a peer is: address and port, which of our addresses it reached, the path MTU to it."""

import contextlib
import socket
import struct
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self, TypeAlias

from tunnel.linux import kernel

ControlMessage: TypeAlias = tuple[int, int, bytes]
SockAddr: TypeAlias = tuple[str, int] | tuple[str, int, int, int]

IN_PKTINFO = struct.Struct("=I4s4s")  # linux/in.h: ifindex, spec_dst, addr
IN6_PKTINFO = struct.Struct("=16sI")  # linux/ipv6.h: addr, ifindex

_V4_MAPPED = bytes(10) + b"\xff\xff"


class Source(NamedTuple):
    """One of our addresses (4 or 16 bytes), which a reply must carry for the peer to know it.

    `ifindex` is 0: by which interface it leaves is for the routing table to say. A host with two
    uplinks may be reached by one and answer by the other. Only an IPv6 link-local address means
    nothing without its interface.
    """

    address: bytes
    ifindex: int


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """A UDP address to send to. Immutable; equal when remote side and `source` are equal.

    `address` is packed (4 or 16 bytes), `scope_id` the interface index of an IPv6 link-local
    address, else 0. `source` is the local address that the peer last reached, or None to leave
    it to the kernel. Raises ValueError on another address length or port.
    """

    address: bytes
    port: int
    scope_id: int = 0
    source: Source | None = None
    family: socket.AddressFamily = field(init=False, repr=False)
    sockaddr: SockAddr = field(init=False, repr=False)
    control: tuple[ControlMessage, ...] = field(init=False, repr=False)
    _hash: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Prepare what every send needs, since one endpoint is used for many."""
        if len(self.address) not in (4, 16):
            raise ValueError(f"an address has 4 or 16 bytes, not {len(self.address)}")
        if not 0 < self.port <= 0xFFFF:
            raise ValueError(f"a port is 1 to 65535, not {self.port}")
        v4 = len(self.address) == 4
        family = socket.AF_INET if v4 else socket.AF_INET6
        if self.source is not None and len(self.source.address) != len(self.address):
            raise ValueError("source and destination are of different address families")
        host = socket.inet_ntop(family, self.address)
        sockaddr: SockAddr = (host, self.port) if v4 else (host, self.port, 0, self.scope_id)
        put = object.__setattr__
        put(self, "family", family)
        put(self, "sockaddr", sockaddr)
        put(self, "control", _source_control(self.source))
        put(self, "_hash", hash((self.address, self.port, self.scope_id, self.source)))

    @classmethod
    def from_sockaddr(cls, sockaddr: SockAddr, source: Source | None = None) -> Self:
        """Build one from Python's socket address with a numeric host, as getaddrinfo gives it.

        An IPv4-mapped IPv6 address becomes the IPv4 address it stands for. Raises ValueError.
        """
        host = sockaddr[0].partition("%")[0]
        try:
            address = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
        except OSError:
            raise ValueError(f"not an IP address: {host!r}") from None
        scope_id = sockaddr[3] if len(sockaddr) == 4 else 0
        if address[:12] == _V4_MAPPED:
            address, scope_id = address[12:], 0
        return cls(address, sockaddr[1], scope_id, source)

    def without_source(self) -> Self:
        """Return the same remote side with the choice of our address left to the kernel."""
        return self if self.source is None else replace(self, source=None)

    def same_remote(self, other: "Endpoint") -> bool:
        """Return whether both are the same address and port, however they reached us."""
        return (self.address, self.port, self.scope_id) == (
            other.address,
            other.port,
            other.scope_id,
        )

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Endpoint):
            return NotImplemented
        return self.same_remote(other) and self.source == other.source

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        host = self.sockaddr[0]
        if self.family == socket.AF_INET:
            return f"{host}:{self.port}"
        scope = f"%{self.scope_id}" if self.scope_id else ""
        return f"[{host}{scope}]:{self.port}"


def _source_control(source: Source | None) -> tuple[ControlMessage, ...]:
    if source is None:
        return ()
    if len(source.address) == 4:
        data = IN_PKTINFO.pack(source.ifindex, source.address, bytes(4))
        return ((socket.IPPROTO_IP, kernel.IP_PKTINFO, data),)
    data = IN6_PKTINFO.pack(source.address, source.ifindex)
    return ((socket.IPPROTO_IPV6, kernel.IPV6_PKTINFO, data),)


def path_mtu(endpoint: Endpoint, fwmark: int = 0) -> int | None:
    """Bytes of the largest outer packet to `endpoint`; None without a route.

    It is that of the route, or what an ICMP "fragmentation needed" said since. Sends nothing.
    """
    family = endpoint.family
    level, option = (
        (socket.IPPROTO_IP, kernel.IP_MTU)
        if family == socket.AF_INET
        else (socket.IPPROTO_IPV6, kernel.IPV6_MTU)
    )
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        if fwmark:
            probe.setsockopt(socket.SOL_SOCKET, kernel.SO_MARK, fwmark)
        probe.connect(endpoint.sockaddr)
        return probe.getsockopt(level, option)
    return None
