"""A lab for an ordinary user: root inside a user namespace of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import NoReturn

from tunnel.lab.errors import LabUnavailableError
from tunnel.linux.namespaces import forbidding_settings, has_admin_capabilities

_UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--propagation", "private"]


def is_needed() -> bool:
    """Whether this process can only build a lab inside a user namespace."""
    return not has_admin_capabilities()


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
            "run the same command with sudo, or open the device: sudo chmod 666 /dev/net/tun",
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
    return ", or: ".join(["run the same command with sudo", *forbidding_settings()])


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
