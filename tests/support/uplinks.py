"""A host with two uplinks to a router, behind which the peer is."""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.lab import Host, Lab

# The peer, an unrelated network, and two uplinks, each with our own address and the gateway's.
PEER = {4: "203.0.113.1", 6: "2001:db8:3::1"}
UNRELATED = {4: "198.51.100.0/24", 6: "2001:db8:99::/64"}
UPLINK = {4: ("10.1.0.{}", "10.1.1.{}"), 6: ("2001:db8:a::{}", "2001:db8:b::{}")}
BITS = {4: 24, 6: 64}

MOVES = {
    "replaced": ["replace default via {new} metric 1024"],
    "better-metric": ["add default via {new} metric 10"],
    "more-specific": ["add {peer} via {new}"],
    "taken-away": ["add default via {new} metric 2000", "del default via {old} metric 1024"],
}
"""How the route to the peer moves from the first uplink (with metric 1024) to the second one."""

_LOST = """table inet lost {{
    chain lost {{
        type filter hook forward priority 0;
        {} daddr {} drop
    }}
}}"""


@dataclass(frozen=True)
class TwoUplinks:
    """Host a has eth0 and eth1 to the router, behind which b is. `outer` is the IP version."""

    a: Host
    router: Host
    b: Host
    outer: int

    @classmethod
    def make(cls, lab: Lab, outer: int) -> TwoUplinks:
        """Only b has a default route."""
        a, router, b = lab.host("a"), lab.router("r"), lab.host("b")

        def addresses(forms: dict[int, str], number: int) -> list[str]:
            return [f"{form.format(number)}/{BITS[version]}" for version, form in forms.items()]

        for link in (0, 1):
            forms = {version: UPLINK[version][link] for version in UPLINK}
            lab.link(a, router, addresses(forms, 1), addresses(forms, 2))
        forms = {4: "203.0.113.{}", 6: "2001:db8:3::{}"}
        lab.link(router, b, addresses(forms, 2), addresses(forms, 1))
        for name in ("all", "eth0", "eth1"):
            a.set_sysctl(f"net.ipv4.conf.{name}.rp_filter", "2")
        b.run(["ip", "route", "add", "default", "via", forms[4].format(2)])
        b.run(["ip", "-6", "route", "add", "default", "via", forms[6].format(2)])
        return cls(a, router, b, outer)

    @property
    def peer(self) -> str:
        """The outer address of b."""
        return PEER[self.outer]

    def own(self, link: int, number: int = 1) -> str:
        """Our address on that uplink."""
        return UPLINK[self.outer][link].format(number)

    def gateway(self, link: int) -> str:
        """The router's."""
        return self.own(link, 2)

    def route(self, words: str) -> None:
        """`ip route` with these words, on a."""
        self.a.run(["ip", f"-{self.outer}", "route", *words.split()])

    def move(self, how: str) -> None:
        """One of `MOVES`."""
        words = {"new": self.gateway(1), "old": self.gateway(0), "peer": self.peer}
        for line in MOVES[how]:
            self.route(line.format(**words))

    def lose(self, address: str) -> None:
        """Nothing that is sent to this address arrives any more, as with a modem without a line."""
        self.router.nft("flush ruleset")
        self.router.nft(_LOST.format({4: "ip", 6: "ip6"}[self.outer], address))
