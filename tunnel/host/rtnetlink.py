"""How this room enters a namespace and opens rtnetlink there, and turns errors into HostError."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final, Literal

from tunnel.host.errors import HostError
from tunnel.linux import netlink
from tunnel.linux import netns as linux_netns

VERSIONS: Final[tuple[Literal[4, 6], ...]] = (4, 6)
"""The IP versions, as `family` takes them."""

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_BUFFER = 1 << 16

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


class Rtnetlink:
    """A socket of rtnetlink(7), of the namespace it was made in, for one request at a time.

    `body` is a message without its header, `kind` its number. What the kernel refuses is an
    OSError.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def change(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Have something changed; it is done on return."""
        self._socket.send(netlink.message(kind, _REQUEST | _ACK | flags, body))
        for _ in self._answers():
            pass

    def get(self, kind: int, body: bytes) -> bytes:
        """What the kernel answers to a question about one thing."""
        self._socket.send(netlink.message(kind, _REQUEST, body))
        return next(self._answers())

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """All that it has of a kind."""
        self._socket.send(netlink.message(kind, _REQUEST | _DUMP, body))
        return list(self._answers())

    def _answers(self) -> Iterator[bytes]:
        while True:
            for kind, answer in netlink.messages(self._socket.recv(_BUFFER)):
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    netlink.raise_error(answer)
                    return
                yield answer


@contextmanager
def rtnetlink() -> Iterator[Rtnetlink]:
    """rtnetlink of the calling thread's namespace; closed at the end whatever happens."""
    try:
        opened = Rtnetlink()
    except OSError as error:
        raise HostError.from_errno("open", "rtnetlink", error.errno or 0) from error
    with closing(opened):
        yield opened


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
