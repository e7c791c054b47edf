"""Two hosts in namespaces."""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.lab import Cable, Host, Lab


@dataclass(frozen=True)
class TwoHosts:
    """Hosts a (192.0.2.1, 2001:db8::1) and b (192.0.2.2, 2001:db8::2) on one veth."""

    lab: Lab
    a: Host
    b: Host
    link: Cable


def two_hosts(lab: Lab) -> TwoHosts:
    """Make them."""
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b, ["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"])
    return TwoHosts(lab, a, b, link)
