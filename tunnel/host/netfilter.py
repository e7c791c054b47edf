"""The one nftables table of a tunnel, put there and taken away in one transaction by nft(8).

Three chains are wg-quick(8)'s, for a full tunnel: packets to the tunnel's addresses which came in
elsewhere are dropped (anti-spoofing), and the mark of our UDP is kept in conntrack, so that
rp_filter with src_valid_mark judges the replies by the route our packets took. The others are those
of a gateway, see `gateway.py`.
"""

import hashlib
import re
import socket

from tunnel.host import gateway
from tunnel.host.errors import HostError
from tunnel.host.programs import INSTALL_NFT, run_program
from tunnel.host.state import Firewall

_WITHOUT = (
    "tunnels without a /0 in AllowedIPs work without it, and so does Table = off with routes, "
    "rules and a firewall of your own"
)
_LACKS = ("Protocol not supported", "Operation not supported", "Could not process rule: No such")
"""What nft says where the kernel lacks nf_tables, or the part of it that a rule needs."""


def table_name(interface: str) -> str:
    """The name of our table; characters that nft refuses in names are escaped as /XX."""
    return "tunnel-" + re.sub(r"[^A-Za-z0-9_.-]", lambda hit: f"/{ord(hit[0]):02x}", interface)


def render(interface: str, firewall: Firewall) -> str:
    """The nft commands which replace our table by this one, whether it was there or not."""
    name = table_name(interface)
    lines = [
        f"add table inet {name}",
        f"delete table inet {name}",
        f"table inet {name} {{",
        *(_full_tunnel(interface, firewall) if firewall.versions else []),
        *gateway.lines(firewall.gates),
        "}",
    ]
    return "\n".join([*lines, ""])


def _full_tunnel(interface: str, firewall: Firewall) -> list[str]:
    # A number, because nft knows names only by /etc/protocols, which a container may lack.
    udp = f"meta l4proto {socket.IPPROTO_UDP}"
    # A full tunnel of one family leaves the other's packets alone.
    only = f"meta nfproto ipv{firewall.versions[0]} " if len(firewall.versions) == 1 else ""
    guard = [
        f'    iifname != "{interface}" {"ip" if address.version == 4 else "ip6"} daddr {address} '
        "fib saddr type != local counter drop"
        for address in firewall.addresses
    ]
    return [
        "  chain preraw {",
        "    type filter hook prerouting priority -300; policy accept;",
        *guard,
        "  }",
        "  chain premangle {",
        "    type filter hook prerouting priority -150; policy accept;",
        # Unlike wg-quick's, only our own mark is restored: those of others stay.
        f"    {only}{udp} ct mark {firewall.mark:#x} meta mark set ct mark",
        "  }",
        "  chain postmangle {",
        "    type filter hook postrouting priority -150; policy accept;",
        f"    {only}{udp} meta mark {firewall.mark:#x} ct mark set meta mark",
        "  }",
    ]


def set_firewall(interface: str, firewall: Firewall) -> None:
    """Put our table in place, or replace it; checked first, then in one transaction."""
    check_firewall(interface, firewall)
    _nft("set firewall", interface, render(interface, firewall))


def check_firewall(interface: str, firewall: Firewall) -> None:
    """Raise HostError if `set_firewall` would; changes nothing."""
    _nft("check firewall", interface, render(interface, firewall), "-c")


def remove_firewall(interface: str) -> None:
    """Remove our table, if it is there."""
    name = table_name(interface)
    # `add` first, because deleting what is not there is an error.
    _nft("remove firewall", interface, f"add table inet {name}\ndelete table inet {name}\n")


def has_firewall(interface: str) -> bool:
    """Whether our table is there; False where there is no nft at all."""
    try:
        tables = _nft("list", "tables", "list tables\n")
    except HostError:
        return False
    return f"table inet {table_name(interface)}" in tables.splitlines()


def list_firewall(interface: str) -> str:
    """Our table as nft prints it, with what was counted. Raises HostError if it is not there."""
    return _nft("list", "firewall", f"list table inet {table_name(interface)}\n")


def fingerprint(interface: str) -> str:
    """What our table holds, as a short text which is the same for the same content; "" if it is
    not there, or there is no nft at all. What was counted does not matter.
    """
    name = table_name(interface)
    try:
        listed = _nft("list", "firewall", f"list table inet {name}\n", "--stateless")
    except HostError:
        return ""
    return hashlib.sha256(listed.encode()).hexdigest()


def _nft(step: str, subject: str, commands: str, *options: str) -> str:
    try:
        return run_program(
            step,
            subject,
            ["nft", *options, "-f", "-"],
            commands,
            install=f"{INSTALL_NFT}; iptables does not replace it; {_WITHOUT}",
            remedy="nft list ruleset shows what is there",
        )
    except HostError as error:
        if not any(text in error.reason for text in _LACKS):
            raise
        reason = f"the kernel lacks nf_tables, or a part of it: {error.reason}"
        remedy = f"modprobe -a nf_tables nft_fib_inet nft_ct, outside of a container; {_WITHOUT}"
        raise HostError(step, subject, reason, remedy) from error
