"""How this room enters a namespace and opens rtnetlink there, and turns errors into HostError."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Literal

from tunnel.host.errors import HostError
from tunnel.host.iproute import IPRoute
from tunnel.linux import netns as linux_netns

VERSIONS: Final[tuple[Literal[4, 6], ...]] = (4, 6)
"""The IP versions, as `family` takes them."""

# What the kernel says when the thing to delete is not there (any more).
_ABSENT = frozenset(
    {errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENODEV, errno.EAFNOSUPPORT}
)


@contextmanager
def inside(netns: Path | str | None) -> Iterator[None]:
    """Run the body in the network namespace at the path `netns` (None: stay where we are).

    Raises HostError when it cannot be entered. The thread is back where it was afterwards.
    """
    with ExitStack() as stack:
        if netns is not None:
            try:
                stack.enter_context(linux_netns.inside(netns))
            except OSError as error:
                refused = isinstance(error, PermissionError)
                remedy = "run it as root" if refused else "see which there are: ip netns list"
                raise HostError.from_errno(
                    "enter namespace", str(netns), error.errno or 0, remedy
                ) from error
        yield


@contextmanager
def rtnetlink() -> Iterator[IPRoute]:
    """An IPRoute of the calling thread's namespace; closed at the end whatever happens."""
    try:
        netlink = IPRoute()
    except OSError as error:
        raise HostError.from_errno("open", "rtnetlink", error.errno or 0) from error
    with netlink:
        yield netlink


@contextmanager
def step(name: str, subject: object, remedy: str = "") -> Iterator[None]:
    """Turn an error of rtnetlink in the body into a HostError naming this step."""
    try:
        yield
    except OSError as error:
        raise HostError.from_errno(name, str(subject), error.errno or 0, remedy) from error


@contextmanager
def absent_is_fine(codes: frozenset[int] = _ABSENT) -> Iterator[None]:
    """Let the body ask for or delete something which may not be there: `codes` are no error."""
    try:
        yield
    except OSError as error:
        if error.errno not in codes:
            raise


def family(version: Literal[4, 6]) -> int:
    """The address family of an IP version."""
    return int(socket.AF_INET if version == 4 else socket.AF_INET6)


def find_ifindex(netlink: IPRoute, interface: str) -> int | None:
    """The number of the interface of that name, None if there is none."""
    try:
        return int(netlink.link("get", ifname=interface)[0]["index"])
    except OSError:
        return None
