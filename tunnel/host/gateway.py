"""What a gateway's firewall and address translation are made of: nft rules for entries of a conf.

Nothing here touches the machine: `gates` gives values, `netfilter.render` puts them into the one
table of the tunnel. Verdicts of our chains do not bind other tables: what another firewall drops
stays dropped (`docker.py` deals with docker's), what we reject is rejected whatever others accept.
"""

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
)
from typing import Literal

Network = IPv4Network | IPv6Network
IpAddress = IPv4Address | IPv6Address
Publication = tuple[str, IpAddress | None, int, int, IpAddress, int]
"""Protocol, address here or any, first and last port here, target, its first port."""
Reach = tuple[Network, int, int, str | None]
"""Network, first and last port (0: all), protocol (None: TCP and UDP)."""

CHAINS = {
    "guard": "type filter hook prerouting priority -300; policy accept;",
    "dstnat": "type nat hook prerouting priority -100; policy accept;",
    "dstnat-local": "type nat hook output priority -100; policy accept;",
    "srcnat": "type nat hook postrouting priority 100; policy accept;",
    "clamp": "type filter hook forward priority -150; policy accept;",
    "forward": "type filter hook forward priority 0; policy accept;",
    "input": "type filter hook input priority 0; policy accept;",
    "killswitch": "",
    "kill-output": "type filter hook output priority 0; policy accept;",
    "kill-forward": "type filter hook forward priority 0; policy accept;",
}
"""The chains that gates may have rules in, each with its hook; one without is jumped to."""

BEGUN = "ct state established,related accept"
"""The first rule where connections are judged: only their first packet is."""
JUDGED = ("forward", "input")

REJECT = (
    "meta l4proto 6 counter reject with tcp reset",
    "counter reject with icmpx admin-prohibited",
)
"""How a connection is refused. The kernel limits the rate of ICMP errors, but not that of RST."""

TUNNELS = '{ "tun", "wireguard" }'
"""Kinds of interfaces (IFLA_INFO_KIND) that isolation keeps apart."""

LOCAL = {
    4: "{ 10.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16, 224.0.0.0/4, "
    "255.255.255.255 }",
    6: "{ fc00::/7, fe80::/10, ff00::/8 }",
}
"""Networks that a kill switch takes for the local one (RFC 1918, 3927, 4193, and multicast)."""

_DHCP = ((68, 67), (67, 68), (546, 547), (547, 546))
_NEIGHBOURS = "{ 133, 134, 135, 136, 143 }"
"""ICMPv6 types without which there is no IPv6 on a cable: RFC 4861 and 3810."""


@dataclass(frozen=True, slots=True)
class Gate:
    """An entry of the conf, as text, and its rules: the chain and the text of each.

    One that `stays` is there until `tunnel down`, also without a daemon.
    """

    entry: str
    rules: tuple[tuple[str, str], ...]
    stays: bool = False

    def __str__(self) -> str:
        return self.entry


def masquerade(interface: str, card: str) -> Gate:
    """Have packets from the tunnel leave by `card` ("auto": any) under this host's address."""
    out = f'!= {{ "lo", "{interface}" }}' if card == "auto" else f'"{card}"'
    rule = f'iifname "{interface}" oifname {out} counter masquerade'
    return Gate(f"Masquerade = {card}", (("srcnat", rule),))


def publish(interface: str, entry: str, publication: Publication) -> Gate:
    """Have ports of this host lead into the tunnel.

    The source becomes ours there, else the answer would take the target's own way out.
    """
    name, address, first, last, target, there = publication
    ip, proto = _ip(target), _protocol(name)
    here = f"{ip} daddr {address} " if address else f"meta nfproto {_family(target)} "
    port = f"{name} dport"
    rules: list[tuple[str, str]] = []
    # nft picks any free port of a range, so where the range is moved each port has its own rule.
    spans = [(first, last)] if first == there else [(n, n) for n in range(first, last + 1)]
    for low, high in spans:
        place = f"[{target}]" if target.version == 6 else str(target)
        to = f"{place}:{low - first + there}" if first != there else str(target)
        rule = f"{here}fib daddr type local {port} {_span(low, high)} counter dnat {ip} to {to}"
        # From 127.0.0.1 no packet may leave this host, and none from the wire may go there.
        loop = "ip daddr != 127.0.0.0/8" if target.version == 4 else "ip6 daddr != ::1"
        rules += [(chain, f"{loop} {rule}") for chain in ("dstnat", "dstnat-local")]
    span = _span(there, there + last - first)
    rules.append(
        (
            "srcnat",
            f'oifname "{interface}" ct status dnat {ip} daddr {target} {proto} {port} {span} '
            "counter masquerade",
        )
    )
    return Gate(f"Publish = {entry}", tuple(rules))


def isolate(interface: str) -> Gate:
    """Keep peers of this tunnel, and of others, from reaching each other by this host."""
    own = f'"{interface}"'
    ways = (
        f"iifname {own} oifname {own}",
        f"iifname {own} meta oifkind {TUNNELS}",
        f"meta iifkind {TUNNELS} oifname {own}",
    )
    rules = tuple(("forward", f"{way} {end}") for way in ways for end in REJECT)
    return Gate("Isolate = on", rules)


@dataclass(frozen=True, slots=True)
class PeerSource:
    """A peer as the sender of packets: its `networks`, without the `others` inside of them, which
    longer prefixes give to other peers.
    """

    name: str
    networks: tuple[Network, ...]
    others: tuple[Network, ...] = ()

    def matches(self, versions: Iterable[int] = (4, 6)) -> list[str]:
        """What matches its packets, for each of the IP versions that it has."""
        found = []
        for ip in sorted(f"ip{'' if version == 4 else '6'}" for version in versions):
            own = [str(net) for net in self.networks if _ip(net) == ip]
            others = [str(net) for net in self.others if _ip(net) == ip]
            if own:
                but = f" {ip} saddr != {_set(others)}" if others else ""
                found.append(f"{ip} saddr {_set(own)}{but}")
        return found


def allow(interface: str, entry: str, peer: PeerSource, reach: Reach) -> Gate:
    """Let a peer begin connections to `reach`."""
    network, first, last, protocol = reach
    ip = _ip(network)
    match = f"{ip} daddr {network} "
    if first:
        protocols = [protocol] if protocol else ["tcp", "udp"]
        match += f"meta l4proto {_set(str(_NUMBERS[each]) for each in protocols)} "
        match += f"th dport {_span(first, last)} "
    rules = tuple(
        (chain, f'iifname "{interface}" {source} {match}counter accept')
        for source in peer.matches([network.version])
        for chain in JUDGED
    )
    return Gate(f"Allow = {entry}", rules)


def limit(interface: str, peer: PeerSource) -> Gate:
    """Reject what a peer begins beyond what it is allowed; comes after its `allow`."""
    rules = tuple(
        (chain, f'iifname "{interface}" {source} {end}')
        for source in peer.matches()
        for end in REJECT
        for chain in JUDGED
    )
    return Gate(f"Allow: {peer.name} may reach nothing else", rules)


def clamp(interface: str, size: Literal["auto"] | int) -> Gate:
    """Limit the segments of forwarded TCP connections to `size`, or to what the route allows."""
    syn = "tcp flags & (syn | rst) == syn"
    to = "tcp option maxseg size set rt mtu"
    if size != "auto":
        to = f"tcp option maxseg size > {size} tcp option maxseg size set {size}"
    rules = tuple(
        ("clamp", f'{side} "{interface}" {syn} counter {to}') for side in ("iifname", "oifname")
    )
    return Gate(f"ClampMSS = {size}", rules)


def netmap(interface: str, entry: str, network: Network, shown: Network) -> Gate:
    """Have peers see `shown` in the place of `network`, address by address."""
    ip = _ip(network)
    return Gate(
        f"Netmap = {entry}",
        (
            (
                "dstnat",
                f'iifname "{interface}" {ip} daddr {shown} counter '
                f"dnat {ip} prefix to {ip} daddr map {{ {shown} : {network} }}",
            ),
            (
                "srcnat",
                f'oifname "{interface}" {ip} saddr {network} counter '
                f"snat {ip} prefix to {ip} saddr map {{ {network} : {shown} }}",
            ),
        ),
    )


def kill_switch(interface: str, networks: Iterable[Network], mark: int, *, dns: bool) -> Gate:
    """Refuse what should go to `networks` any other way than into the tunnel.

    If they hold all addresses of an IP version, that is everything of both but the local network,
    DHCP and neighbours; with `dns`, name servers of the local network too. `mark` is that of our
    own UDP (0: none).
    """
    networks = tuple(dict.fromkeys(networks))
    everything = hold_everything(networks)
    specific = [network for network in networks if not _is_of_one_link(network)]
    if everything:
        # Halves are another notation for a length of 0.
        specific = [network for network in specific if network.prefixlen > 1]
    begin = [f'oifname {{ "lo", "{interface}" }} return']
    if mark:
        begin.append(f"meta mark {mark:#x} return")
    to = [f"{_ip(net)} daddr {net} {end}" for net in specific for end in REJECT]
    if everything:
        udp = f"meta l4proto {socket.IPPROTO_UDP}"
        begin += [f"{udp} udp sport {a} udp dport {b} return" for a, b in _DHCP]
        begin.append(f"meta l4proto 58 icmpv6 type {_NEIGHBOURS} return")
        if dns:
            to += [f"meta l4proto {{ 6, 17 }} th dport {{ 53, 853 }} {end}" for end in REJECT]
        to += [f"ip daddr {LOCAL[4]} return", f"ip6 daddr {LOCAL[6]} return", *REJECT]
    hooks = [(chain, "jump killswitch") for chain in ("kill-output", "kill-forward")]
    rules = (*(("killswitch", rule) for rule in (*begin, *to)), *hooks)
    return Gate("KillSwitch = on", rules, stays=True)


def hold_everything(networks: Iterable[Network]) -> bool:
    """Whether there is a /0 among the networks, or they make one together, as two halves do."""
    networks = tuple(networks)
    four = collapse_addresses(net for net in networks if isinstance(net, IPv4Network))
    six = collapse_addresses(net for net in networks if isinstance(net, IPv6Network))
    return any(net.prefixlen == 0 for net in four) or any(net.prefixlen == 0 for net in six)


def _is_of_one_link(network: Network) -> bool:
    """Whether its addresses mean something else on each link: no packet to them goes astray, and
    without them there are no neighbours on a cable.
    """
    return network.is_link_local or network.is_multicast


def lines(gates: Iterable[Gate]) -> list[str]:
    """The chains of an nft table for `gates`, in which the rules keep the order of the gates."""
    found: dict[str, list[str]] = {}
    for gate in gates:
        for chain, rule in gate.rules:
            found.setdefault(chain, []).append(f"    {rule}{_comment(gate.entry, rule)}")
    text = []
    for chain, hook in CHAINS.items():
        if chain in found:
            text += [f"  chain {chain} {{", *([f"    {hook}"] if hook else [])]
            text += [*([f"    {BEGUN}"] if chain in JUDGED else []), *found[chain], "  }"]
    return text


_NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_MOST_COMMENT = 100
"""nft allows 128 bytes."""


def _comment(entry: str, rule: str) -> str:
    """Which entry of the conf a rule comes from, for `nft list` and `tunnel trace`."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "?" for c in entry)
    return "" if rule.startswith("jump") else f' comment "{plain[:_MOST_COMMENT]}"'


def _set(texts: Iterable[str]) -> str:
    return "{ " + ", ".join(texts) + " }"


def _ip(value: Network | IpAddress) -> str:
    return "ip" if value.version == 4 else "ip6"


def _family(value: IpAddress) -> str:
    return "ipv4" if value.version == 4 else "ipv6"


def _protocol(name: str) -> str:
    # A number, because nft knows names only by /etc/protocols, which a container may lack.
    return f"meta l4proto {_NUMBERS[name]}"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
