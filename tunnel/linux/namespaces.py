"""New namespaces, mounts in them, and why this machine may refuse them to an ordinary user.

Sources: unshare(2), user_namespaces(7), mount(2), prctl(2), signalfd(2).
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from signal import Signals

from tunnel.linux import kernel
from tunnel.linux.rights import Capability

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(kinds: int) -> None:
    """Move the calling process into new namespaces of `kinds` (CLONE_NEW… flags).

    With CLONE_NEWUSER it has one thread only, and no user is mapped yet. Raises OSError.
    """
    _check(_libc.unshare(kinds))


def map_own_user(uid: int, gid: int) -> None:
    """Let user and group have the same numbers in our new user namespace as outside of it.

    Raises OSError.
    """
    # Else an ordinary user may not write the map of groups.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def mount(source: str, target: Path | str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2). Raises OSError with the name of the target."""
    found = _libc.mount(
        source.encode(),
        os.fsencode(target),
        kind.encode(),
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _check(found, str(target))


def bind(source: Path | str, target: Path | str) -> None:
    """Show the file or folder `source` at `target`, which exists. Raises OSError."""
    mount(os.fspath(source), target, "", kernel.MS_BIND | kernel.MS_REC)


def unmount(target: Path | str) -> None:
    """Take a mount away at once; what is open in it stays open. Raises OSError."""
    _check(_libc.umount2(os.fsencode(target), kernel.MNT_DETACH), str(target))


def end_with_parent(number: Signals) -> None:
    """Have the kernel send us this signal when our parent ends. Raises OSError."""
    _check(_libc.prctl(kernel.PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0))


def signal_descriptor(numbers: Iterable[int]) -> int:
    """A descriptor from which these signals, which are blocked, are read (signalfd(2)).

    It does not block. Raises OSError.
    """
    mask = sum(1 << (number - 1) for number in numbers)
    # sigset_t of glibc and musl: 1024 bits, of which the kernel has 64.
    buffer = mask.to_bytes(8, sys.byteorder) + bytes(120)
    flags = os.O_NONBLOCK | os.O_CLOEXEC
    descriptor: int = _libc.signalfd(-1, buffer, flags)
    _check(descriptor)
    return descriptor


def has_admin_capabilities() -> bool:
    """Whether this process may make network and mount namespaces without a user namespace.

    Judged by its capabilities: a container's root may have none of those that matter.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            wanted = 1 << Capability.NET_ADMIN | 1 << Capability.SYS_ADMIN
            return effective & wanted == wanted
    return os.geteuid() == 0


def forbidding_settings() -> list[str]:
    """The settings that forbid user namespaces here, as commands that allow them."""
    return [
        f"sudo sysctl -w {name}={allowing}"
        for name, forbidding, allowing in (
            ("kernel.unprivileged_userns_clone", "0", "1"),
            ("user.max_user_namespaces", "0", "15000"),
            ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        )
        if _sysctl(name) == forbidding
    ]


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return None


def _check(result: int, name: str | None = None) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
