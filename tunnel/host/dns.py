"""Name servers of the tunnel: by resolvconf(8) where there is one, else by systemd-resolved."""

import os
import shutil
from pathlib import Path

from tunnel.host.errors import HostError
from tunnel.host.programs import run_program
from tunnel.host.state import Dns

RESOLVCONF = "resolvconf"
RESOLVED = "resolved"
RESOLV_CONF = Path("/etc/resolv.conf")

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
    raise HostError("set", "DNS", "neither resolvconf nor systemd-resolved is there", _INSTALL)


def render(dns: Dns) -> str:
    """The lines of resolv.conf(5) which resolvconf takes."""
    lines = [f"nameserver {server}" for server in dns.servers]
    if dns.search:
        lines.append(f"search {' '.join(dns.search)}")
    return "\n".join([*lines, ""])


def read_servers() -> tuple[str, ...]:
    """The name servers of resolv.conf(5) as they stand there now, in order."""
    try:
        lines = RESOLV_CONF.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    found = (line.split() for line in lines if line.startswith("nameserver"))
    return tuple(words[1] for words in found if len(words) > 1)


def still_stands(dns: Dns, index: int, backend: str, set_then: str) -> bool:
    """Whether no other program has changed what `set_dns` did; for `set_then` see below."""
    if backend == RESOLVED:
        from tunnel.host import resolved

        return resolved.still_stands(index, dns)
    return is_in_resolv_conf(dns, set_then)


def is_in_resolv_conf(dns: Dns, set_then: str) -> bool:
    """Whether resolv.conf still is as resolvconf made it for `dns`; `set_then` are the servers that
    it had then, separated by blanks.

    Where resolvconf gave it a local resolver, ours do not stand in it, and any change counts.
    Others may come and go, but none of them before ours.
    """
    before, now = tuple(set_then.split()), read_servers()
    ours = {str(server) for server in dns.servers}
    if not before or now == before:
        return True
    return ours <= set(before) and ours <= set(now) and now[0] in {*ours, *before}


def set_dns(interface: str, index: int, dns: Dns, backend: str, *, again: bool = False) -> None:
    """Make these the name servers, before all others; replaces what was set for the interface.

    `again` is for a resolv.conf that another program has changed since.
    """
    if backend == RESOLVED:
        from tunnel.host import resolved

        resolved.set_link(index, dns)
        return
    # -m 0 puts it first, -x makes it exclusive.
    argv = ["resolvconf", "-a", _record(interface), "-m", "0", "-x"]
    # Where it refuses, its second line is what to do about it.
    run_program("set", str(dns), argv, render(dns), install=_INSTALL, said=2)
    if again:
        # What is on record with resolvconf did not change, so it would leave the file alone.
        run_program("set", str(dns), ["resolvconf", "-u"], install=_INSTALL)


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
