"""Values of the gateway's keys in [Tunnel]: published ports, allowances, mapped networks.

Each type is a NamedTuple, so `tunnel.host.gateway`, which knows no conf, takes it as a tuple.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Literal, NamedTuple

from tunnel.config.problems import Mistake, quote
from tunnel.config.values import Doubtful, allowed_ip, check_name, plain_address

__all__ = ["Allowance", "Netmap", "Publication"]

ARROW: Final = re.compile(r"→|->")
_ADDRESS: Final = r"\[[^\]]*\]|[0-9]+(?:\.[0-9]+)+"
_PORTS: Final = r"[0-9]{1,5}(?:-[0-9]{1,5})?"
_PUBLISH: Final = re.compile(
    rf"(?:(?P<address>{_ADDRESS})?:)?(?P<ports>{_PORTS})(?::(?P<target>{_ADDRESS}))?"
    rf"(?::(?P<there>{_PORTS}))?(?:/(?P<protocol>\w+))?"
)
_REACH: Final = re.compile(
    r"(?P<network>\[[^\]]*\](?:/[0-9]+)?|[^\[\]:/]+(?:/[0-9]+)?|[0-9A-Fa-f:.]+(?:/[0-9]+)?)"
    rf"(?::(?P<ports>{_PORTS}))?(?:/(?P<protocol>tcp|udp))?"
)
_MOST_SHIFTED: Final = 1024
"""Ports of a range that is shifted: each is a rule of its own."""

Protocol = Literal["tcp", "udp"]


class Publication(NamedTuple):
    """Ports `first` to `last` of this host, of `address` or of all, lead to `target`.

    The first one leads to port `there`, the next one to the next.
    """

    protocol: Protocol
    address: IPv4Address | IPv6Address | None
    first: int
    last: int
    target: IPv4Address | IPv6Address
    there: int

    def __str__(self) -> str:
        head = f"{_bracketed(self.address)}:" if self.address else ""
        ports = _span(self.first, self.last)
        there = _span(self.there, self.there + self.last - self.first)
        return f"{head}{ports}:{_bracketed(self.target)}:{there}/{self.protocol}"


class PortsLed(NamedTuple):
    """As `Publication`; without a `target` the ports lead to where the context says."""

    protocol: Protocol
    address: IPv4Address | IPv6Address | None
    first: int
    last: int
    target: IPv4Address | IPv6Address | None
    there: int


class Allowance(NamedTuple):
    """`peer` (a name, a public key or an address) may open connections to `network`.

    Only to the ports `first` to `last` of `protocol`; with `first` 0 to all, and by any protocol.
    With ports and no protocol, TCP and UDP are meant.
    """

    peer: str
    network: IPv4Network | IPv6Network
    first: int = 0
    last: int = 0
    protocol: Protocol | None = None

    def __str__(self) -> str:
        if not self.first:
            return f"{self.peer} -> {self.network}"
        network = f"[{self.network}]" if self.network.version == 6 else str(self.network)
        end = f"/{self.protocol}" if self.protocol else ""
        return f"{self.peer} -> {network}:{_span(self.first, self.last)}{end}"


class Netmap(NamedTuple):
    """A network beside this host, and the network of the same size that peers see in its place."""

    network: IPv4Network | IPv6Network
    shown: IPv4Network | IPv6Network

    def __str__(self) -> str:
        return f"{self.network} -> {self.shown}"


def entries(text: str) -> list[str]:
    """The items of a list separated by commas, in which white space counts."""
    return [part.strip() for part in text.split(",")] if text.strip() else []


def publication(text: str) -> Publication:
    """Read a published port."""
    remedy = "write it as 8080:10.0.0.2:80/tcp, 192.0.2.1:53:10.0.0.2:53/udp or 443:[fd00::2]:443"
    found = read_ports_led(text, "PORT:ADDRESS:PORT", remedy)
    address, target = found.address, found.target
    if target is None:
        raise Mistake(f"must be PORT:ADDRESS:PORT, not {quote(text)}", remedy)
    if any(each is not None and each.is_unspecified for each in (address, target)):
        raise Mistake(f"has no address of a host in {quote(text)}", remedy)
    if address is not None and address.version != target.version:
        raise Mistake(f"mixes IPv4 and IPv6 in {quote(text)}", remedy)
    if found.there != found.first and found.last - found.first >= _MOST_SHIFTED:
        raise Mistake(
            f"moves more than {_MOST_SHIFTED} ports in {quote(text)}",
            "write the same ports on both sides, or a smaller range",
        )
    return Publication(found.protocol, address, found.first, found.last, target, found.there)


def read_ports_led(text: str, form: str, remedy: str) -> PortsLed:
    """Read `[ADDRESS:]PORTS:[TARGET:]PORTS[/tcp or /udp]`, as docker's -p has it: with a target in
    the key Publish, without one in `tunnel run -p`.

    The last ports can be left out after a target. Raises Mistake, with the `remedy`.
    """
    found = _PUBLISH.fullmatch(text)
    if found is None or not (found["target"] or found["there"]):
        raise Mistake(f"must be {form}, not {quote(text)}", remedy)
    protocol = (found["protocol"] or "tcp").lower()
    if protocol not in ("tcp", "udp"):
        raise Mistake(f"knows tcp and udp, not {quote(protocol)}", remedy)
    address, target = (
        _read_address(found[name], text, remedy) if found[name] else None
        for name in ("address", "target")
    )
    first, last = _read_ports(found["ports"], text)
    there, end = _read_ports(found["there"] or found["ports"], text)
    if end - there != last - first:
        raise Mistake(
            f"has ranges of different length in {quote(text)}",
            "write as many ports there as here, as 8000-8009 and 9000-9009",
        )
    return PortsLed("udp" if protocol == "udp" else "tcp", address, first, last, target, there)


def allowance(text: str) -> Allowance:
    """Read what a peer may reach."""
    remedy = "write it as laptop -> 10.0.0.0/24:22/tcp; without :PORT everything there is allowed"
    peer, target = _sides(text, "PEER -> NETWORK:PORT", remedy)
    found = _REACH.fullmatch(target)
    if found is None:
        raise Mistake(f"must be PEER -> NETWORK:PORT, not {quote(text)}", remedy)
    inner = found["network"].replace("[", "").replace("]", "")
    network = _read_network(inner, text, remedy)
    if not found["ports"]:
        if found["protocol"]:
            raise Mistake(f"has a protocol without a port in {quote(text)}", remedy)
        return Allowance(peer, network)
    first, last = _read_ports(found["ports"], text)
    protocol: dict[str | None, Protocol | None] = {"tcp": "tcp", "udp": "udp"}
    return Allowance(peer, network, first, last, protocol.get(found["protocol"]))


def netmap(text: str) -> Netmap:
    """Read a network and the one that peers see in its place."""
    remedy = "write it as 192.168.1.0/24 -> 10.71.1.0/24"
    left, right = _sides(text, "NETWORK -> NETWORK", remedy)
    network, shown = (_read_network(side, text, remedy) for side in (left, right))
    if network.version != shown.version or network.prefixlen != shown.prefixlen:
        raise Mistake(
            f"must have two networks of one IP version and of the same size, not {quote(text)}",
            remedy,
        )
    return Netmap(network, shown)


def card(text: str) -> str:
    """Read through which interface packets of the tunnel are masqueraded; "" for none."""
    if text.lower() in ("off", "no"):
        return ""
    if text.lower() == "auto":
        return "auto"
    try:
        check_name(text)
    except Mistake:
        raise Mistake(
            f"must be auto, off or an interface, not {quote(text)}",
            "write auto for every way out, or the name of one, as eth0",
        ) from None
    return text


def clamp(text: str) -> Literal["auto", "off"] | int:
    """Read to what TCP's maximum segment size is limited."""
    lower = text.lower()
    if lower == "auto":
        return "auto"
    if lower == "off":
        return "off"
    if re.fullmatch(r"[0-9]{1,5}", text) is None or not 88 <= int(text) <= 65_495:
        raise Mistake(
            f"must be auto, off or a number of bytes from 88 to 65495, not {quote(text)}",
            "write auto for what the route allows",
        )
    return int(text)


def _sides(text: str, form: str, remedy: str) -> tuple[str, str]:
    sides = [side.strip() for side in ARROW.split(text)]
    if len(sides) != 2 or not all(sides):
        raise Mistake(f"must be {form}, not {quote(text)}", remedy)
    return sides[0], sides[1]


def _read_network(text: str, shown: str, remedy: str) -> IPv4Network | IPv6Network:
    try:
        found = allowed_ip(text)
    except Mistake:
        raise Mistake(f"has no network in {quote(shown)}", remedy) from None
    if isinstance(found, Doubtful):
        raise Mistake(f"has host bits set in {quote(shown)}", f"write {found.value.network}")
    if found.modifier:
        raise Mistake(f"has no network in {quote(shown)}", remedy)
    return found.network


def _read_address(text: str, shown: str, remedy: str) -> IPv4Address | IPv6Address:
    found = plain_address(text.strip("[]"))
    if found is None or found.is_multicast:
        raise Mistake(f"has no address of a host in {quote(shown)}", remedy)
    return found


def _read_ports(text: str, shown: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    first, last = int(low), int(high or low)
    if not 1 <= first <= last <= 65535:
        raise Mistake(
            f"must have ports from 1 to 65535, the lower one first, not {quote(shown)}",
            "write 80, or 8000-8009",
        )
    return first, last


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _bracketed(address: IPv4Address | IPv6Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)
