"""What the machine would refuse of a desired state, found without changing anything.

Each check is the one that `apply` makes, or the answer that the kernel would give it.
"""

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from tunnel.host.bridges import check_bridge
from tunnel.host.dns import choose_backend
from tunnel.host.errors import HostError
from tunnel.host.netfilter import check_firewall
from tunnel.host.routes import find_taken
from tunnel.host.rtnetlink import inside, rtnetlink, step
from tunnel.host.state import Address, DesiredState, Item
from tunnel.host.sysctl import check_sysctl, read_sysctl

_IPV6 = Path("/proc/sys/net/ipv6")

Kind = Literal["interface", "port", "ipv6", "route", "dns", "firewall", "other"]


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Something that `tunnel up` would fail at: the `reason`, and the `remedy` (empty if in there).

    `subject` is the object that is refused, in the words of `tunnel diff`; empty if it is none.
    """

    kind: Kind
    reason: str
    remedy: str = ""
    subject: str = ""

    @classmethod
    def from_error(cls, kind: Kind, error: HostError) -> "Obstacle":
        """The error that `up` would end with."""
        reason = f"{error.step} {error.subject}".rstrip() + f": {error.reason}"
        return cls(kind, reason, error.remedy, error.subject)


def foresee(state: DesiredState, *, netns: Path | str | None = None) -> list[Obstacle]:
    """All errors that `apply` would raise, one after the other, for an interface that is new.

    Where IPv6 is off, that is one error. Raises HostError if the machine cannot be looked at.
    """
    found = []
    with inside(netns):
        for kind, check in _checks(state, is_moved=netns is not None):
            try:
                check()
            except HostError as error:
                found.append(Obstacle.from_error(kind, error))
        with rtnetlink() as netlink, step("list", "routes"):
            taken = find_taken(netlink, state.routes)
        found += (Obstacle.from_error("route", error) for error in taken)
    return found


def _checks(state: DesiredState, *, is_moved: bool) -> Iterator[tuple[Kind, Callable[[], object]]]:
    with_ipv6: list[Item] = [
        *(Address(each) for each in state.addresses if each.version == 6),
        *(route for route in state.routes if route.destination.version == 6),
    ]
    # In another namespace `move_link` turns it on, for our interface alone.
    if with_ipv6 and not (is_moved and _IPV6.exists()):
        yield "ipv6", partial(_check_ipv6, with_ipv6[0])
    if state.bridge:
        yield "interface", partial(_check_bridge, state.bridge)
    if state.dns is not None and not state.dns.file:
        yield "dns", choose_backend
    for sysctl in state.sysctls:
        yield "other", partial(check_sysctl, sysctl.name, sysctl.value)
    if state.firewall is not None:
        yield "firewall", partial(check_firewall, state.interface, state.firewall)


def _check_bridge(bridge: str) -> None:
    with rtnetlink() as netlink, step("look at", f"bridge {bridge}"):
        check_bridge(netlink, bridge)


def _check_ipv6(first: Item) -> None:
    """Raise the kernel's answer to an object of IPv6 where it is off for new interfaces."""
    if not _IPV6.exists():
        raise HostError.from_errno("add", str(first), errno.EAFNOSUPPORT)
    if read_sysctl("net.ipv6.conf.default.disable_ipv6") == "1":
        raise HostError.from_errno("add", str(first), errno.EACCES)
