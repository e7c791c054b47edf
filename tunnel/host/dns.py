"""Name servers of the tunnel: by resolvconf(8) where there is one, else by systemd-resolved."""

import os
import shutil

from tunnel.host.errors import HostError
from tunnel.host.programs import run_program
from tunnel.host.state import Dns

RESOLVCONF = "resolvconf"
RESOLVED = "resolved"

_INSTALL = "apt-get install openresolv (or systemd-resolved), or take DNS out of the conf"


def choose_backend() -> str:
    """RESOLVCONF or RESOLVED, whichever this machine has. HostError if neither."""
    program = shutil.which("resolvconf")
    # systemd's resolvconf is resolvectl by another name, and wants the bare interface name:
    # then use the service itself.
    if program and os.path.basename(os.path.realpath(program)) != "resolvectl":
        return RESOLVCONF
    # Only now, because D-Bus is a big import that most tunnels can do without.
    from tunnel.host import resolved

    if resolved.is_running():
        return RESOLVED
    raise HostError("set DNS", "", "neither resolvconf nor systemd-resolved is there", _INSTALL)


def render(dns: Dns) -> str:
    """The lines of resolv.conf(5) which resolvconf takes."""
    lines = [f"nameserver {server}" for server in dns.servers]
    if dns.search:
        lines.append(f"search {' '.join(dns.search)}")
    return "\n".join([*lines, ""])


def set_dns(interface: str, index: int, dns: Dns, backend: str) -> None:
    """Make these the name servers, before all others; replaces what was set for the interface."""
    if backend == RESOLVED:
        from tunnel.host import resolved

        resolved.set_link(index, dns)
        return
    # -m 0 puts it first, -x makes it exclusive.
    argv = ["resolvconf", "-a", _record(interface), "-m", "0", "-x"]
    run_program("set", str(dns), argv, render(dns), install=_INSTALL)


def unset_dns(interface: str, index: int, backend: str) -> None:
    """Take them away again; no error if they are gone."""
    if backend == RESOLVED:
        from tunnel.host import resolved

        resolved.revert_link(index)
    elif backend == RESOLVCONF and shutil.which("resolvconf"):
        argv = ["resolvconf", "-d", _record(interface), "-f"]
        run_program("unset", "dns", argv, "", install=_INSTALL)


def _record(interface: str) -> str:
    # The prefix sorts us among the tunnels in resolvconf's interface-order.
    return f"tun.{interface}"
