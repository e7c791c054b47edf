"""A lab for an ordinary user: root inside a user namespace of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tunnel.lab.errors import LabUnavailableError

_UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--propagation", "private"]
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21


def is_needed() -> bool:
    """Whether this process can only build a lab inside a user namespace.

    Judged by its capabilities: a container's root may have none of those that matter.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            wanted = 1 << _CAP_NET_ADMIN | 1 << _CAP_SYS_ADMIN
            return effective & wanted != wanted
    return os.geteuid() != 0


def check() -> None:
    """Raise LabUnavailableError, with the remedy, if this machine or user cannot build a lab."""
    if not os.path.exists("/dev/net/tun"):
        raise LabUnavailableError(
            "the kernel offers no /dev/net/tun",
            "load the module (sudo modprobe tun), or pass the device into the container",
        )
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise LabUnavailableError(
            "/dev/net/tun is not open to this user",
            "run it as root (sudo make lab), or open the device: sudo chmod 666 /dev/net/tun",
        )
    for program, package in (
        ("unshare", "util-linux"),
        ("nsenter", "util-linux"),
        ("ip", "iproute2"),
        ("ping", "iputils-ping"),
    ):
        if shutil.which(program) is None:
            raise LabUnavailableError(
                f"the program {program} is missing", f"sudo apt-get install {package}"
            )
    needed = is_needed()
    command = [*_UNSHARE, "true"] if needed else ["unshare", "--net", "--mount", "true"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise LabUnavailableError(
            f"namespaces cannot be made here: {made.stderr.strip()}",
            _namespace_remedy() if needed else "give the container CAP_SYS_ADMIN and CAP_NET_ADMIN",
        )


def _namespace_remedy() -> str:
    """The settings that forbid user namespaces here, as commands that allow them."""
    settings = [
        f"sudo sysctl -w {name}={allowing}"
        for name, forbidding, allowing in (
            ("kernel.unprivileged_userns_clone", "0", "1"),
            ("user.max_user_namespaces", "0", "15000"),
            ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        )
        if _sysctl(name) == forbidding
    ]
    return "run it as root (sudo make lab)" + "".join(f", or: {line}" for line in settings)


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return None


def enter_user_namespace(command: Sequence[str]) -> NoReturn:
    """Become `command`, run as root of new user, network and mount namespaces.

    Its /run is a private tmpfs, so that names of network namespaces can be made in it. Raises
    LabUnavailableError.
    """
    check()
    # On Debian an ordinary user's PATH lacks the folders of nft and sysctl.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    script = 'mount -t tmpfs -o mode=755 tunnel-lab /run && mkdir /run/netns && exec "$@"'
    os.execvp("unshare", [*_UNSHARE, "sh", "-c", script, "sh", *command])
