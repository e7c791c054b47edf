"""The FILTER of `tunnel trace` and `tunnel capture`, as a predicate and for nftables.

It is the common part of tcpdump's language (pcap-filter(7)):

    FILTER     = factor { ( "and" | "or" ) factor }
    factor     = [ "not" ] ( "(" FILTER ")" | primitive )
    primitive  = "ip" | "ip6" | "icmp" | "icmp6" | "tcp" | "udp"
               | [ "tcp" | "udp" ] [ "src" | "dst" ] "port" NUMBER
               | [ "src" | "dst" ] "host" ADDRESS  |  [ "src" | "dst" ] "net" NETWORK

`&&`, `||` and `!` are `and`, `or` and `not`. As in tcpdump, `and` and `or` are read from left to
right, and neither binds closer. A port, address or network without `src` or `dst` is that of either
end. Unlike tcpdump's, `icmp` is that of either IP version. An empty filter lets everything through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import product

from tunnel.errors import TunnelError
from tunnel.packet.headers import ICMP, ICMPV6, TCP, UDP, Headers

EXAMPLES = "icmp; port 53; tcp port 443 and not net 10.0.0.0/8; host 10.0.0.1 or icmp"

WORDS = frozenset(
    ["ip", "ip6", "icmp", "icmp6", "tcp", "udp", "host", "net", "port", "src", "dst", "not"]
) | {"(", "!"}
"""What a filter can begin with."""

MAX_RULES = 64
"""Rules of nftables that a filter may take; each is tried for each packet."""
MAX_DEPTH = 32
"""Parentheses and `not` within each other."""

_PROTOCOLS = {
    "icmp": (ICMP, ICMPV6),
    "icmp6": (ICMPV6,),
    "tcp": (TCP,),
    "udp": (UDP,),
}
_BOTH = ("src", "dst")
_TOKEN = re.compile(r"&&|\|\||[()!]|[^\s()!&|]+|.", re.DOTALL)
_SIGNS = {"&&": "and", "||": "or", "!": "not"}


class FilterError(TunnelError):
    """The filter cannot be understood; the text says where and what is possible."""

    code = "filter"


@dataclass(frozen=True)
class _Test:
    """One match of nftables, and the same for headers: all that is given holds, or with `negated`
    not all of it. `end` is "src" or "dst", for a port or a network.
    """

    version: int = 0
    protocols: tuple[int, ...] = ()
    port: int | None = None
    network: IPv4Network | IPv6Network | None = None
    end: str = ""
    negated: bool = False

    def matches(self, headers: Headers) -> bool:
        return self._holds(headers) is not self.negated

    def _holds(self, headers: Headers) -> bool:
        if self.version:
            return headers.version == self.version
        if self.network is not None:
            packed = headers.source if self.end == "src" else headers.destination
            address = ip_address(packed)
            return address.version == self.network.version and address in self.network
        if self.port is not None:
            ports = headers.ports
            return ports is not None and ports[self.end == "dst"] == self.port
        return headers.protocol in self.protocols

    def nft(self) -> str:
        # Numbers, because nft knows names only by /etc/protocols, which a container may lack.
        operator = "!= " if self.negated else ""
        if self.version:
            return f"meta nfproto {operator}ipv{self.version}"
        if self.network is not None:
            family = "ip" if self.network.version == 4 else "ip6"
            return f"{family} {self.end[0]}addr {operator}{self.network}"
        if self.port is not None:
            return f"th {self.end[0]}port {operator}{self.port}"
        numbers = ", ".join(map(str, self.protocols))
        return f"meta l4proto {operator}{{ {numbers} }}"


_Ways = list[list[_Test]]
"""Alternatives, each of tests that must all hold: the disjunctive normal form."""


@dataclass(frozen=True)
class Filter:
    """A parsed filter. `text` is what it was parsed from, in its plainest writing."""

    text: str = ""
    ways: tuple[tuple[_Test, ...], ...] = ((),)

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Parse a FILTER. Raises FilterError."""
        words = [word for word in _TOKEN.findall(text.lower()) if not word.isspace()]
        if not words:
            return cls()
        parser = _Parser([_SIGNS.get(word, word) for word in words])
        ways = parser.filter(negated=False, depth=0)
        parser.end()
        return cls(" ".join(words), tuple(map(tuple, ways)))

    def matches(self, headers: Headers) -> bool:
        """Whether a packet is one of those."""
        return any(all(test.matches(headers) for test in way) for way in self.ways)

    def nft(self) -> list[str]:
        """The beginnings of nftables rules that together match these packets; one is empty text."""
        return [" ".join(test.nft() for test in way) for way in self.ways]


class _Parser:
    """Reads words from left to right, and gives the alternatives of what it has read.

    With `negated` they are those of the opposite: De Morgan's laws bring `not` down to the tests.
    """

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._place = 0

    def end(self) -> None:
        if self._place < len(self._words):
            word = self._words[self._place]
            raise FilterError(f"expected 'and' or 'or' before {word!r}, as in: {EXAMPLES}")

    def filter(self, *, negated: bool, depth: int) -> _Ways:
        found = self._factor(negated, depth)
        while self._sees("and", "or"):
            is_or = self._next("") == "or"
            found = self._joined(found, self._factor(negated, depth), either=is_or is not negated)
        return found

    def _factor(self, negated: bool, depth: int) -> _Ways:
        if depth > MAX_DEPTH:
            raise FilterError(f"at most {MAX_DEPTH} of ( and 'not' may be within each other")
        if self._take("not"):
            return self._factor(not negated, depth + 1)
        if self._take("("):
            found = self.filter(negated=negated, depth=depth + 1)
            if not self._take(")"):
                raise FilterError(f"a ')' is missing, as in: ({EXAMPLES.split('; ')[-1]})")
            return found
        return self._primitive(negated)

    def _joined(self, one: _Ways, other: _Ways, *, either: bool) -> _Ways:
        found = one + other if either else [a + b for a, b in product(one, other)]
        if len(found) > MAX_RULES:
            raise FilterError(f"the filter takes more than {MAX_RULES} rules: make it simpler")
        return found

    def _primitive(self, negated: bool) -> _Ways:
        word = self._next("something")
        if word in ("ip", "ip6"):
            return _one(_Test(version=4 if word == "ip" else 6), negated)
        protocols = _PROTOCOLS.get(word, ())
        ends: tuple[str, ...] = _BOTH
        if protocols and (word not in ("tcp", "udp") or not self._sees("src", "dst", "port")):
            return _one(_Test(protocols=protocols), negated)
        kind = self._next("port") if protocols else word
        if kind in _BOTH:
            ends, kind = (kind,), self._next("host, net or port")
            if kind not in ("host", "net", "port"):
                self._place, kind = self._place - 1, "host"  # an address by itself
        if kind == "port":
            port = self._port(word if protocols else "tcp")
            known = _Test(protocols=protocols or (TCP, UDP))
            # Only these two have ports, whatever stands at that place in others.
            return self._of_ends([_Test(port=port, end=end) for end in ends], known, negated)
        if kind in ("host", "net") and not protocols:
            network = self._network(kind)
            known = _Test(version=network.version)
            return self._of_ends([_Test(network=network, end=end) for end in ends], known, negated)
        raise FilterError(
            f"expected icmp, tcp, udp, ip, ip6, host, net or port, not {kind!r}, as in: {EXAMPLES}"
        )

    def _of_ends(self, tests: list[_Test], known: _Test, negated: bool) -> _Ways:
        """`known`, and one of the tests; or the opposite."""
        if not negated:
            return [[known, test] for test in tests]
        return [*_one(known, True), [known, *(_not(test) for test in tests)]]

    def _port(self, protocol: str) -> int:
        text = self._next("a port", last=True)
        if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
            raise FilterError(f"a port is 1 to 65535, not {text!r}, as in: {protocol} port 443")
        return int(text)

    def _network(self, kind: str) -> IPv4Network | IPv6Network:
        text = self._next("an address", last=True)
        if not text:
            raise FilterError(f"an address has to follow {kind!r}, as in: host 10.0.0.1")
        try:
            if kind == "host":
                return ip_network(ip_address(text).packed)  # without a scope
            return ip_network(text, strict=False)
        except ValueError:
            what, example = "an IP address", "host 10.0.0.1"
            if kind == "net":
                what, example = "a network", "net 10.0.0.0/8"
            raise FilterError(f"{text!r} is not {what}, as in: {example}") from None

    def _take(self, word: str) -> bool:
        found = self._sees(word)
        self._place += found
        return found

    def _sees(self, *words: str) -> bool:
        return self._place < len(self._words) and self._words[self._place] in words

    def _next(self, what: str, *, last: bool = False) -> str:
        if self._place == len(self._words):
            if last:
                return ""
            before = self._words[self._place - 1] if self._place else "it"
            raise FilterError(f"{what} has to follow {before!r}, as in: {EXAMPLES}")
        self._place += 1
        return self._words[self._place - 1]


def _not(test: _Test) -> _Test:
    return _Test(test.version, test.protocols, test.port, test.network, test.end, not test.negated)


def _one(test: _Test, negated: bool) -> _Ways:
    return [[_not(test) if negated else test]]
