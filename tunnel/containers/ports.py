"""Ports of the host that lead inside, as Docker's -p writes them.

8080:80                    TCP port 8080 of all addresses of this host to port 80 inside
127.0.0.1:8080:80/udp      UDP, of one address
[::1]:8000-8009:9000-9009  a range to a range
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from tunnel.config.gateway import Protocol, read_ports_led
from tunnel.config.problems import Mistake
from tunnel.containers.errors import ContainerError
from tunnel.linux import kernel
from tunnel.linux.ports import port_holder

_NO_FAMILY: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
_PKTINFO: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, kernel.IP_PKTINFO),
    socket.AF_INET6: (socket.IPPROTO_IPV6, kernel.IPV6_RECVPKTINFO),
}
EXPECTED: Final = "write it as 8080:80, or 127.0.0.1:5353:53/udp"


class PublishError(ValueError):
    """The text names no ports; it says why."""


@dataclass(frozen=True, slots=True)
class Published:
    """Port `outer` of this host, at `address` or at all, leads to port `inner` inside."""

    address: IPv4Address | IPv6Address | None
    outer: int
    inner: int
    protocol: Protocol

    def __str__(self) -> str:
        at = "" if self.address is None else f"{self.address}:"
        if self.address is not None and self.address.version == 6:
            at = f"[{self.address}]:"
        return f"{at}{self.outer}:{self.inner}/{self.protocol}"

    def listen(self) -> list[socket.socket]:
        """Its sockets on this host, bound (TCP: listening). Raises ContainerError."""
        if self.address is not None:
            return [self._bind(str(self.address), self.address.version)]
        found = [self._bind("0.0.0.0", 4)]
        try:
            found.append(self._bind("::", 6))
        except ContainerError as error:
            # A host without IPv6 has IPv4 all the same.
            cause = error.__cause__
            if not (isinstance(cause, OSError) and cause.errno in _NO_FAMILY):
                found[0].close()
                raise
        return found

    def _bind(self, address: str, version: int) -> socket.socket:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        kind = socket.SOCK_STREAM if self.protocol == "tcp" else socket.SOCK_DGRAM
        made = None
        try:
            made = socket.socket(family, kind | socket.SOCK_NONBLOCK)
            if version == 6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if self.protocol == "tcp":
                # Connections of before that wait for their end do not count.
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            else:
                # A reply comes from the address that the client has sent to. Asked for before the
                # first datagram can come: the kernel does not keep it otherwise.
                made.setsockopt(*_PKTINFO[family], 1)
            made.bind((address, self.outer))
            if self.protocol == "tcp":
                made.listen(128)
        except OSError as error:
            if made is not None:
                made.close()
            raise ContainerError(f"-p {self}: {self._why_not(error)}") from error
        return made

    def _why_not(self, error: OSError) -> str:
        match error.errno:
            case errno.EADDRINUSE:
                holder = port_holder(self.outer, self.protocol)
                by = f" by {holder}" if holder else ""
                return f"port {self.outer} is in use{by}; end that, or choose another port"
            case errno.EACCES:
                return (
                    f"port {self.outer} is for root; choose one from 1024 on, or: "
                    f"sudo sysctl -w net.ipv4.ip_unprivileged_port_start={self.outer}"
                )
            case errno.EADDRNOTAVAIL:
                return f"no interface of this host has the address {self.address}; see: ip address"
            case _:
                return error.strerror or str(error)


def parse(text: str) -> list[Published]:
    """The ports that the argument of one -p means. Raises PublishError."""
    try:
        found = read_ports_led(text, "[ADDRESS:]PORT:PORT", EXPECTED)
    except Mistake as mistake:
        raise PublishError(f"-p {text}: {mistake.fault}; {mistake.remedy}") from None
    if found.target is not None:
        raise PublishError(f"-p {text}: must not name an address of the inside; {EXPECTED}")
    return [
        Published(found.address, found.first + step, found.there + step, found.protocol)
        for step in range(found.last - found.first + 1)
    ]
