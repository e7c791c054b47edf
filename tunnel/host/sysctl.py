"""Kernel settings under /proc/sys; those of the calling thread's network namespace."""

import errno
import os
from pathlib import Path
from typing import Literal

from tunnel.host.errors import HostError


def read_sysctl(name: str) -> str:
    """The value of the setting, e.g. of "net.ipv4.ip_forward"."""
    return _read(_path(name), name)


def has_sysctl(name: str) -> bool:
    """Whether there is such a setting: one of an interface goes with it, or with its IPv6."""
    return _path(name).exists()


def _read(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise HostError.from_errno("read sysctl", name, error.errno or 0, _REMEDY) from error


def write_sysctl(name: str, value: str) -> None:
    """Set it. Nothing is written when it has that value already: /proc/sys may be read-only."""
    _write(_path(name), name, value)


def check_sysctl(name: str, value: str) -> None:
    """Raise HostError if `write_sysctl` would; changes nothing."""
    path = _path(name)
    if _read(path, name) != value and not os.access(path, os.W_OK):
        raise HostError.from_errno("set sysctl", f"{name} = {value}", errno.EROFS, _REMEDY)


def write_conf(
    interface: str, name: str, value: str, *, family: Literal["ipv4", "ipv6"] = "ipv4"
) -> None:
    """Set a setting of one interface; it goes with the interface."""
    # Not as a dotted name: that of an interface may hold dots.
    path = Path("/proc/sys/net", family, "conf", interface, name)
    _write(path, f"{name} of {interface}", value)


def _write(path: Path, name: str, value: str) -> None:
    if _read(path, name) == value:
        return
    try:
        path.write_text(value, encoding="ascii")
    except OSError as error:
        raise HostError.from_errno(
            "set sysctl", f"{name} = {value}", error.errno or 0, _REMEDY
        ) from error


_REMEDY = (
    "set it before the tunnel is started (/etc/sysctl.d), or let the program write to /proc/sys "
    "(a service: tunnel service install --with sysctl)"
)


def _path(name: str) -> Path:
    # As with sysctl(8): with slashes where the name of an interface may hold dots.
    return Path("/proc/sys", *name.split("/" if "/" in name else "."))
