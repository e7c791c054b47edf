"""The kernel settings with which this host forwards packets."""

from collections.abc import Iterable
from pathlib import Path

from tunnel.host.links import packet_tunnels
from tunnel.host.record import STATE_DIR, load_record
from tunnel.host.state import Sysctl
from tunnel.host.sysctl import read_sysctl

FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
"""What turns forwarding on, by IP version."""

REDIRECTS = "net.ipv4.conf.all.send_redirects"
"""Whether a host that forwards packets back into the interface they came by says so to the sender.

Between peers there is no shorter way, and after a redirect the kernel holds ICMP errors back for a
second. It takes this and the interface's own setting (`machine`) to have none.
"""

_ADVERTISEMENTS = "net/ipv6/conf/{}/accept_ra"


def forwarding(
    interface: str, versions: Iterable[int], *, state_dir: Path = STATE_DIR
) -> list[Sysctl]:
    """The settings for forwarding of these IP versions, for the caller's namespace.

    An interface that takes its IPv6 routes from router advertisements would stop to do so
    on a host that forwards: it is to go on (accept_ra = 2). Into tunnels such as ours none come,
    and those come and go. Raises HostError.
    """
    versions = set(versions)
    wanted = [Sysctl(REDIRECTS, "0"), Sysctl(FORWARDING[4], "1")] if 4 in versions else []
    if 6 not in versions:
        return wanted
    record = load_record(interface, state_dir)
    ours = {item.name for item in record.items if isinstance(item, Sysctl)} if record else set()
    others = {"lo", interface} | packet_tunnels()
    folder = Path("/proc/thread-self/net").resolve()  # as /proc/sys, of the caller's namespace
    for line in (folder / "dev_snmp6").iterdir():
        name = _ADVERTISEMENTS.format(line.name)
        if line.name not in others and (name in ours or read_sysctl(name) == "1"):
            wanted.append(Sysctl(name, "2"))
    # After those: they would lose their routes in between.
    return [*wanted, Sysctl(FORWARDING[6], "1")]
