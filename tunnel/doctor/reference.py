"""docs/doctor.md but for its matrix: python -m tunnel.doctor.reference."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["BEGIN", "CODES", "END", "FAULTS", "NOTES", "page"]

FAULTS = {
    "address_is_own": "the address asked for is this host's own",
    "address_missed": "no peer's AllowedIPs cover the address asked for",
    "address_missing": "the interface lacks an address of the tunnel",
    "address_silent": "the address asked for does not answer, but the peer on the way to it is up",
    "allowed_ips_swallow": "AllowedIPs, or the network of Address, overlap one this host is on",
    "allowed_ips_twice": "two peers of the conf have the same network in AllowedIPs",
    "clock_set_back": "this host's clock was set back, so peers refuse its handshakes",
    "clock_wrong": "this host's clock was never set, or is years off",
    "conf_gone": "the conf that the tunnel was set up from is gone",
    "conf_invalid": "the conf has a mistake that `tunnel up` and `tunnel reload` refuse",
    "conntrack_full": "the connection tracking table has no room for new flows",
    "connected_route_missing": "the kernel's own route to the network of an address was deleted",
    "daemon_hangs": "the daemon is running, but does not answer",
    "daemon_privileges": "the daemon lacks the right to change routes and addresses",
    "dns_missing": "the conf has DNS, and no program here can set name servers",
    "docker_forward": "docker's firewall drops what this host should forward",
    "endpoint_in_tunnel": "the route to the peer's endpoint leads into the tunnel itself",
    "endpoint_is_self": "the peer's endpoint is an address of this host",
    "endpoint_moved": "the name in the peer's Endpoint has another address than the one in use",
    "endpoint_name": "the name in the peer's Endpoint has no address",
    "endpoint_refuses": "an ICMP error says that datagrams to the endpoint are rejected",
    "endpoint_unreachable": "this host has no route to the peer's endpoint",
    "firewall_drop": "a rule or policy of this host's firewall drops what the tunnel needs",
    "forward_closed": "a firewall drops what this host should forward",
    "forwarding_off": "this host should forward, but the kernel's IP forwarding is off",
    "holder_ended": "no holder is left: a restart interrupts the tunnel",
    "interface_down": "the interface is down",
    "interface_missing": "the interface is gone, or was renamed",
    "interface_taken": "another interface has the name of the tunnel",
    "ipv6_off": "IPv6 is switched off on the interface, or for new ones",
    "keepalive_late": "this host's connection tracking forgets the tunnel between two keepalives",
    "low_order_key": "a peer's PublicKey is a low-order point and cannot be used",
    "mode_differs": "one end has Mode = tap, and the other has not",
    "mtu_black_hole": "packets above some size are lost on the way without an ICMP error",
    "mtu_too_large": "full-size packets are fragmented: the MTU of the interface is too large",
    "nft_missing": "the firewall table that the conf needs cannot be set: there is no nft",
    "no_way_back": "a host behind this one has no route to the tunnel, which is not masqueraded",
    "not_ready": "the tunnel is coming up or going down",
    "not_running": "the tunnel is not up",
    "nothing_comes": "datagrams go to the peer, but nothing comes back",
    "own_key_as_peer": "a peer has this host's own public key",
    "peer_clock_back": "a peer's handshakes have older timestamps than one seen before",
    "peer_has_wrong_key": "handshakes arrive that were made for another public key than ours",
    "port_taken": "another program has the UDP port of the conf",
    "preshared_key_differs": "the peer's answers do not decrypt: the preshared keys differ",
    "private_key_as_peer": "a peer's PublicKey is our PrivateKey",
    "private_key_missing": "this host has no private key",
    "privileges": "the doctor lacks the rights for probes and traces",
    "quota_reached": "a peer has used up its Quota, and packets are dropped",
    "route_misses_tunnel": "packets to an address of AllowedIPs do not enter the tunnel",
    "route_taken": "another program has a route to a network of AllowedIPs",
    "rp_filter": "strict rp_filter drops packets that arrive on another interface",
    "source_not_allowed": "packets come from addresses outside their peer's AllowedIPs",
    "taken_away": "another program removed the tunnel's routes, rules, firewall table or settings",
    "traffic_leaks": "a rule or route of another program leads traffic past a full tunnel",
    "unknown_peer": "a host that knows our public key is not one of our peers",
    "up_refused": "`tunnel up` would fail for a reason without a code of its own",
}
"""Codes of findings: the exit code is 1. Some are notes where they may have harmless causes."""

NOTES = {
    "conf_doubtful": "the conf has something that `tunnel up` warns about",
    "conf_not_applied": "the conf differs from what is running",
    "datapath_python": "the slow datapath is in use",
    "dropped_earlier": "the tunnel had dropped packets before the doctor looked",
    "interface_elsewhere": "the daemon or the interface is in another network namespace",
    "no_ping": "the peer is up, but answers no pings",
    "offloads_off": "packets are handled one by one, without offloads",
    "peer_not_heard": "a peer that has to connect to us was not heard from lately",
    "route_drops": "routes of this host drop a part of what should go into the tunnel",
    "short_tails": "batches end with an empty message, as the kernel may damage them without it",
    "under_load": "handshakes arrive faster than they can be answered",
}
"""Codes that are only ever notes: they may be intended, and the exit code stays 0."""

CODES = FAULTS | NOTES

BEGIN, END = "<!-- matrix: begin -->\n", "<!-- matrix: end -->\n"
"""What is between them is made by the tests."""

_HEAD = """\
# The doctor

Made from the code by `python -m tunnel.doctor.reference docs/doctor.md`; the matrix by
`make doctor-matrix`.

    tunnel doctor                           all tunnels that run
    tunnel doctor wg0 --address 10.9.0.1    an address that cannot be reached
    tunnel doctor wg0 --forward             this host should forward for others

It checks the conf, the daemon, the clock, routes, rules, the firewall and kernel settings. It sends
a few echo requests through the tunnel and traces them. It changes nothing. Of a tunnel that is not
up, it says what `tunnel up` would fail at, by the same checks. It ends as soon as the
result is known: at once if all peers answer, after 7 s if a peer without a session does not, after
12 s (`--wait`) if a peer with a session does not. On a terminal it shows what it is waiting for.

Each finding has a code and says what is wrong, what shows it, and how to fix it. A fix is one line
of shell that can be run as it is, or a sentence that says what to do. The most likely cause comes
first. `tunnel reload` restores what another program removed, so it is the fix wherever it helps.

Packets dropped long ago are no fault. But a handshake that was refused (wrong key, clock set back)
explains the silence of its peer until one has completed.

"Nothing wrong" applies only to what was checked. Lines `not looked at` (in JSON: `skipped`) list
the rest: roaming peers that were not heard from lately are not woken, and the largest packet that
passes is not measured where nothing answers pings. If the daemon or the interface is in another
network namespace, the doctor runs its checks there.
"""

_MATRIX = """\
## What is found where

Each fault that the test lab can make, in each shape of conf. `a` is a client whose Endpoint is the
server `b`. In the column *hub*, b has three more peers, which sleep. In the column *namespace*, a's
doctor is started in another network namespace. A cell says whose doctor names the cause. Where only
b's does, and nothing passes, a's says that nothing comes back, and refers to b. A tick (✓) means
that the printed commands were run and fixed the fault. A number refers to the reason, below the
table, why a cell has no result.

"""


def page(matrix: str) -> str:
    """The text of docs/doctor.md; `matrix` is what the tests made."""
    parts = [_HEAD, "## Findings\n", _table(FAULTS), "## Notes\n", _table(NOTES)]
    return "\n".join(parts) + "\n" + _MATRIX + BEGIN + matrix + END


def matrix_in(text: str) -> str:
    """The matrix in a page; empty if it has none."""
    return text.partition(BEGIN)[2].partition(END)[0]


def _table(codes: dict[str, str]) -> str:
    rows = "".join(f"| `{code}` | {meaning} |\n" for code, meaning in sorted(codes.items()))
    return f"| code | meaning |\n| --- | --- |\n{rows}"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    kept = matrix_in(target.read_text()) if target.exists() else ""
    target.write_text(page(kept))
