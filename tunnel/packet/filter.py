"""The FILTER of `tunnel trace` and `tunnel capture`, as a predicate and for nftables.

    FILTER     = primitive { "and" primitive }
    primitive  = "icmp" | ("tcp" | "udp") [ "port" NUMBER ] | "host" ADDRESS

`icmp` is that of either IP version; ports and addresses match source or destination. An empty
filter lets everything through.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from itertools import product

from tunnel.errors import TunnelError
from tunnel.packet.headers import ICMP, ICMPV6, TCP, UDP, Headers

EXAMPLES = "icmp; tcp port 443; udp port 53 and host 10.0.0.1"

_PROTOCOLS = {"icmp": (ICMP, ICMPV6), "tcp": (TCP,), "udp": (UDP,)}


class FilterError(TunnelError):
    """The filter cannot be understood; the text says where and what is possible."""

    code = "filter"


@dataclass(frozen=True)
class _Primitive:
    protocols: tuple[int, ...] = ()
    port: int | None = None
    address: bytes | None = None

    def matches(self, headers: Headers) -> bool:
        if self.protocols and headers.protocol not in self.protocols:
            return False
        if self.port is not None and self.port not in (headers.ports or ()):
            return False
        return self.address is None or self.address in (headers.source, headers.destination)

    def alternatives(self) -> list[str]:
        """Matches of nftables, any of which is enough."""
        if self.address is not None:
            family = "ip" if len(self.address) == 4 else "ip6"
            text = str(ip_address(self.address))
            return [f"{family} saddr {text}", f"{family} daddr {text}"]
        if self.port is not None:
            name = "tcp" if self.protocols == (TCP,) else "udp"
            return [f"{name} sport {self.port}", f"{name} dport {self.port}"]
        # Numbers, because nft knows names only by /etc/protocols, which a container may lack.
        numbers = ", ".join(map(str, self.protocols))
        return [f"meta l4proto {{ {numbers} }}"]


@dataclass(frozen=True)
class Filter:
    """A parsed filter. `text` is what it was parsed from, in its plainest writing."""

    text: str = ""
    primitives: tuple[_Primitive, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Parse a FILTER. Raises FilterError."""
        words = text.lower().split()
        primitives: list[_Primitive] = []
        place = 0
        while place < len(words):
            if primitives:
                if words[place] != "and":
                    raise FilterError(f"expected 'and' before {words[place]!r}, as in: {EXAMPLES}")
                place += 1
            primitive, place = _primitive(words, place)
            primitives.append(primitive)
        return cls(" ".join(words), tuple(primitives))

    def matches(self, headers: Headers) -> bool:
        """Whether a packet is one of those."""
        return all(primitive.matches(headers) for primitive in self.primitives)

    def nft(self) -> list[str]:
        """The beginnings of nftables rules that together match these packets; one is empty text."""
        choices = [primitive.alternatives() for primitive in self.primitives]
        return [" ".join(choice) for choice in product(*choices)]


def _primitive(words: list[str], place: int) -> tuple[_Primitive, int]:
    if place >= len(words):
        raise FilterError(f"something has to follow 'and', as in: {EXAMPLES}")
    word, rest = words[place], words[place + 1 :]
    if word == "host":
        if not rest:
            raise FilterError("an address has to follow 'host', as in: host 10.0.0.1")
        try:
            return _Primitive(address=ip_address(rest[0]).packed), place + 2
        except ValueError:
            raise FilterError(f"{rest[0]!r} is not an IP address, as in: host 10.0.0.1") from None
    if word not in _PROTOCOLS:
        raise FilterError(f"expected icmp, tcp, udp or host, not {word!r}, as in: {EXAMPLES}")
    if word == "icmp" or rest[:1] != ["port"]:
        return _Primitive(_PROTOCOLS[word]), place + 1
    number = rest[1] if len(rest) > 1 else ""
    if not (number.isascii() and number.isdigit() and len(number) <= 5 and 0 < int(number) < 65536):
        raise FilterError(f"a port is 1 to 65535, not {number!r}, as in: {word} port 443")
    return _Primitive(_PROTOCOLS[word], port=int(number)), place + 3
