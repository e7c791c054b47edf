"""Name servers of another network namespace: written into the resolv.conf that is read in there.

No program manages such a file, so it is changed in place (it may be a bind mount) and put back from
what stands in it: our lines are between two marks, and those of before are there as comments.
"""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tunnel.host.dns import RESOLV_CONF, render
from tunnel.host.errors import HostError
from tunnel.host.state import Dns
from tunnel.linux.files import open_in_root

_OFF = "#tunnel# "
_MOST = 65536
"""Characters of such a file; resolvers read far fewer."""
_MADE = "# made by tunnel, as there was none\n"
_MARKED = re.compile(r"^# tunnel-\S+ begin$", re.MULTILINE)
_REPLACED = re.compile(r"^(?=nameserver|search|domain)", re.MULTILINE)
_NAMED = re.compile(r"/(?:var/)?run/netns/([^/]+)")
_OF_PROCESS = re.compile(r"(/proc/\d+)/(?:ns/net|root(/.*))")
_REMEDY = "make it a file that can be written, or take DNS out of the conf"


def file_of(netns: Path | str) -> str:
    """The resolv.conf of the programs in the network namespace at that path; empty if not known.

    `ip netns exec NAME` shows /etc/netns/NAME/resolv.conf in its place. A process has its own if it
    has another root, as in a container; else what it reads is the host's.
    """
    path = os.fspath(netns)
    if named := _NAMED.fullmatch(path):
        return f"/etc/netns/{named[1]}/resolv.conf"
    if process := _OF_PROCESS.fullmatch(path):
        file = f"{process[1]}/root{RESOLV_CONF}"
        with contextlib.suppress(OSError), _opened(file, os.O_RDONLY) as found:
            if not (RESOLV_CONF.exists() and os.path.samestat(_status(found), RESOLV_CONF.stat())):
                return file
    return ""


def is_same(one: str, other: str) -> bool:
    """Whether both are there, and are one file."""
    try:
        with _opened(one, os.O_RDONLY) as first, _opened(other, os.O_RDONLY) as second:
            return os.path.samestat(_status(first), _status(second))
    except OSError:
        return False


def stands(interface: str, dns: Dns) -> bool:
    """Whether the file has our lines."""
    try:
        with _opened(dns.file, os.O_RDONLY) as file:
            return _block(interface, dns) in _text(file)
    except OSError:
        return False


def set_servers(interface: str, dns: Dns) -> None:
    """Have these, and no others, in `dns.file`. Raises HostError."""
    with _step("set", dns):
        if not _OF_PROCESS.fullmatch(dns.file):
            Path(dns.file).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            with _opened(dns.file, os.O_RDWR) as file:
                _rewrite(file, with_servers(_text(file), interface, dns))
        except FileNotFoundError:
            # Never by a symbolic link that leads nowhere: it may lead somewhere on this host.
            with _opened(dns.file, os.O_RDWR | os.O_CREAT | os.O_EXCL) as file:
                _rewrite(file, with_servers(_MADE, interface, dns))


def unset_servers(interface: str, dns: Dns) -> None:
    """Put the file back as it was; no error if it is gone. Raises HostError."""
    with _step("unset", dns), contextlib.suppress(FileNotFoundError, ProcessLookupError):
        with _opened(dns.file, os.O_RDWR) as file:
            before = _text(file)
            after = without_servers(before, interface)
            if after != before and after != _MADE:
                _rewrite(file, after)
        if after == _MADE:
            _remove(dns.file)


def with_servers(text: str, interface: str, dns: Dns) -> str:
    """A resolv.conf with the lines of `dns` in front, and those of before as comments."""
    rest = without_servers(text, interface)
    if not _MARKED.search(rest):
        rest = _REPLACED.sub(_OFF, rest)
    return _block(interface, dns) + rest


def without_servers(text: str, interface: str) -> str:
    """The inverse of `with_servers`, whatever other tunnels have put there meanwhile."""
    name = re.escape(interface)
    block = re.compile(rf"^# tunnel-{name} begin\n.*?^# tunnel-{name} end\n", re.M | re.S)
    rest = block.sub("", text)
    if rest != text and not _MARKED.search(rest):
        rest = re.sub(f"^{_OFF}", "", rest, flags=re.MULTILINE)
    return rest


def _block(interface: str, dns: Dns) -> str:
    return f"# tunnel-{interface} begin\n{render(dns)}# tunnel-{interface} end\n"


def _remove(path: str) -> None:
    inside = _OF_PROCESS.fullmatch(path)
    if inside and inside[2]:
        way = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        folder = open_in_root(f"{inside[1]}/root", os.path.dirname(inside[2]), way)
        try:
            os.unlink(os.path.basename(inside[2]), dir_fd=folder)
        finally:
            os.close(folder)
        return
    os.unlink(path)
    with contextlib.suppress(OSError):  # others have files in there
        Path(path).parent.rmdir()


def _text(file: IO[str]) -> str:
    """All of the file, which a container may have made as long as it likes."""
    text = file.read(_MOST + 1)
    if len(text) > _MOST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return text


def _rewrite(file: IO[str], text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)


def _status(file: IO[str]) -> os.stat_result:
    return os.fstat(file.fileno())


@contextlib.contextmanager
def _opened(path: str, mode: int) -> Iterator[IO[str]]:
    """The file, of which a container may have made anything: no link of it leads out of there."""
    # A FIFO would keep us waiting.
    flags = mode | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    inside = _OF_PROCESS.fullmatch(path)
    if inside and inside[2]:
        descriptor = open_in_root(f"{inside[1]}/root", inside[2], flags)
    else:
        descriptor = os.open(path, flags | os.O_NOFOLLOW, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
    way = "r" if mode == os.O_RDONLY else "r+"
    with open(descriptor, way, errors="surrogateescape", newline="") as file:
        yield file


@contextlib.contextmanager
def _step(name: str, dns: Dns) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostError.from_errno(name, str(dns), error.errno or 0, _REMEDY) from error
