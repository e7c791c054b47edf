"""Bad networks, by what the kernel has: loss, rate, firewalls, NAT, black holes of the MTU.

Each function changes one host and is undone by a call that says so, or by the end of the lab.
What the kernel cannot do without netem (delay, reordering, duplicates, damage) is done by
`tunnel.lab.wire`.
"""

from __future__ import annotations

from enum import StrEnum

from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

from tunnel.lab.errors import LabError
from tunnel.lab.host import Host


class Hook(StrEnum):
    """Netfilter's five hooks, as nftables names them."""

    PREROUTING = "prerouting"
    INPUT = "input"
    FORWARD = "forward"
    OUTPUT = "output"
    POSTROUTING = "postrouting"


def set_loss(host: Host, interface: str, percent: int) -> None:
    """Lose that share of what leaves by `interface`, at random; 0 ends it.

    The sender gets no error (netdev's egress hook is past the socket).
    """
    if not 0 <= percent <= 100:
        raise LabError(f"loss is between 0 and 100 percent, not {percent}")
    table = f"netdev lab_loss_{interface}"
    rules = f"table {table}\ndelete table {table}\n"
    if percent:
        rules += f"""table {table} {{
    chain egress {{
        type filter hook egress device "{interface}" priority 0;
        numgen random mod 100 <= {percent - 1} counter drop
    }}
}}
"""
    host.nft(rules)


def set_rate(host: Host, interface: str, megabits: float | None) -> None:
    """Let no more than that many Mbit/s leave by `interface`, queueing 50 ms; None ends it."""
    if megabits is None:
        host.run(["tc", "qdisc", "delete", "dev", interface, "root"])
        return
    # A burst below one GSO frame would lose every large frame whole.
    burst = max(128_000, int(megabits * 1e6 / 8 / 250))
    shape = f"tbf rate {megabits}mbit burst {burst} latency 50ms"
    host.run(["tc", "qdisc", "replace", "dev", interface, "root", *shape.split()])


def block(host: Host, hook: Hook, match: str) -> None:
    """Drop what matches an nft expression at a hook, IPv4 and IPv6: `udp dport 51820`.

    In OUTPUT and POSTROUTING the sender gets EPERM. One rule at a time for each hook.
    """
    table = f"inet lab_block_{hook}"
    host.nft(
        f"""table {table}
delete table {table}
table {table} {{
    chain block {{
        type filter hook {hook} priority 10; policy accept;
        {match} counter drop
    }}
}}
"""
    )


def unblock(host: Host, hook: Hook) -> None:
    """Take back `block`; nothing happens if there is none."""
    table = f"inet lab_block_{hook}"
    host.nft(f"table {table}\ndelete table {table}\n")


def masquerade(router: Host, outside: str, *, udp_timeout: int | None = None) -> None:
    """Make `router` a NAT, port restricted, as a home router is.

    What leaves by interface `outside` gets the router's address; what comes in there passes
    only as an answer. A mapping of UDP is forgotten after `udp_timeout` seconds of silence.
    """
    router.nft(
        f"""table inet lab_nat
delete table inet lab_nat
table inet lab_nat {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{outside}" masquerade
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "{outside}" ct state established,related accept
        iifname "{outside}" counter drop
    }}
}}
"""
    )
    if udp_timeout is not None:
        for name in ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"):
            router.set_sysctl(f"net.netfilter.{name}", str(udp_timeout))


def end_masquerade(router: Host) -> None:
    """Take back `masquerade`."""
    router.nft("table inet lab_nat\ndelete table inet lab_nat\n")
    forget_mappings(router)


def forget_mappings(router: Host) -> None:
    """Empty the table of connections, as when a NAT is switched off and on again."""

    def flush() -> None:
        with NFCTSocket() as conntrack:
            conntrack.flush()

    router.call(flush)


def set_mtu(host: Host, interface: str, mtu: int) -> None:
    """Change the MTU of one end; the other end keeps its own."""
    host.ip(f"link set {interface} mtu {mtu}")


def make_mtu_black_hole(router: Host, interface: str, mtu: int) -> None:
    """Let `router` forward no more than `mtu` bytes out of `interface`, and send no ICMP error."""
    set_mtu(router, interface, mtu)
    block(
        router,
        Hook.OUTPUT,
        "icmp type destination-unreachable counter drop\n        icmpv6 type packet-too-big",
    )
