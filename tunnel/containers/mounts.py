"""The files that a command sees inside: only the DNS servers of the tunnel are asked for names.

All of it is done in a mount namespace of the command's own, and leaves no file behind. A socket of
the file system is reached from any network namespace. So those of the services of this host that
look names up (nscd, systemd-resolved, Avahi) are hidden, and nsswitch.conf does not name them.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from tunnel.containers.errors import ContainerError
from tunnel.host import dns
from tunnel.host.state import Dns
from tunnel.linux import kernel
from tunnel.linux.namespaces import bind, mount, unmount

STAGING = Path("/tmp")
"""A folder that every system has. While things are set up, a file system of our own lies on it."""

NSSWITCH = Path("/etc/nsswitch.conf")
_HOSTS = re.compile(r"^([ \t]*hosts[ \t]*:).*$", re.MULTILINE)

RESOLVER_SOCKETS = (
    "/run/nscd/socket",
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/systemd/resolve/io.systemd.Resolve.Monitor",
    "/run/avahi-daemon/socket",
)

_NETWORK_FOLDERS = ("class/net", "devices/virtual/net")
"""Below /sys: where programs look for interfaces."""


@contextlib.contextmanager
def staging() -> Iterator[Path]:
    """A folder of a file system in memory that is seen here alone, and gone afterwards.

    Raises ContainerError.
    """
    try:
        mount("none", "/", "", kernel.MS_REC | kernel.MS_SLAVE)
        mount("tunnel-run", STAGING, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=700")
    except OSError as error:
        raise ContainerError(
            f"nothing can be mounted at {error.filename}: {error.strerror}; in a container its "
            "AppArmor profile may be in the way (docker run --security-opt apparmor=unconfined)"
        ) from error
    try:
        yield STAGING
    finally:
        unmount(STAGING)


def set_up(names: Dns | None, folder: Path) -> None:
    """Show the files of the tunnel; `folder` is that of `staging`. Raises ContainerError."""
    etc = folder / "etc"
    etc.mkdir(mode=0o755)
    try:
        if names is not None:
            _replace(dns.RESOLV_CONF, dns.render(names), etc)
        if NSSWITCH.exists():
            _replace(NSSWITCH, without_services(NSSWITCH.read_text(errors="surrogateescape")), etc)
        nothing = folder / "nothing"
        nothing.touch(mode=0o444)
        for path in RESOLVER_SOCKETS:
            if os.path.exists(path):
                bind(nothing, path)
    except OSError as error:
        raise ContainerError(
            f"cannot show the tunnel's DNS servers at {error.filename}: {error.strerror}"
        ) from error
    # Nothing is reached through it: where it is refused, the names of outer interfaces are seen.
    with contextlib.suppress(OSError):
        _show_interfaces(folder / "sys")


def without_services(nsswitch: str) -> str:
    """The text of nsswitch.conf(5) where hosts are looked up in files and by DNS only."""
    return _HOSTS.sub(r"\1 files dns", nsswitch)


def _replace(path: Path, text: str, folder: Path) -> None:
    """Show `text` at `path`, a file of /etc that may be a link, also one to nowhere."""
    file = folder / path.name
    file.write_text(text, errors="surrogateescape")
    file.chmod(0o644)
    if path.exists():
        bind(file, path)
    else:
        mount("tunnel-run", "/etc", "overlay", 0, f"lowerdir={folder}:/etc")


def _show_interfaces(folder: Path) -> None:
    """/sys shows the interfaces of the namespace that it was mounted in."""
    folder.mkdir()
    mount("sysfs", folder, "sysfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    for name in _NETWORK_FOLDERS:
        bind(folder / name, Path("/sys") / name)
