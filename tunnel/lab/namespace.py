"""What a lab needs from Linux namespaces, and from /proc about the processes in them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tunnel.lab.errors import LabError
from tunnel.linux.processes import end_processes, pids_in

NETNS_DIRECTORY = Path("/run/netns")

_SPACES = (("net", "net"), ("mount", "mnt"), ("uts", "uts"))

HOLDER_SCRIPT = r"""
set -eu
name=$1 etc=$2
hostname "$name" 2>/dev/null || echo "$name" 2>/dev/null >/proc/sys/kernel/hostname || true
# Copies of other hosts' namespace mounts would keep those alive after their removal.
umount -l -R /run/netns 2>/dev/null || true
resolv=$(readlink -m /etc/resolv.conf)
mount -t tmpfs -o mode=755 tunnel-lab /run
mkdir -p /run/netns /run/lock
case $resolv in
/run/*) mkdir -p "$(dirname "$resolv")" && : >"$resolv" ;;
esac
# A minimal system has no /etc/hosts to mount over. Laid below /etc, $etc lends it one.
if [ ! -e /etc/hosts ]; then mount -t overlay -o "lowerdir=/etc:$etc" tunnel-lab /etc || true; fi
for file in resolv.conf hosts; do
    if [ -e "/etc/$file" ]; then mount --bind "$etc/$file" "/etc/$file"; fi
done
# /sys/class/net shows the namespace sysfs was mounted in; an overmount is what an ordinary
# user can do, and where even that is refused sysfs keeps showing the outer machine.
umount -l /sys 2>/dev/null || true
mount -t sysfs sysfs /sys 2>/dev/null || true
echo ready
# The pipe ends with the owner of the lab, even when that one was killed by SIGKILL: then
# nothing may go on running in here. A lab that is kept writes `keep` first.
if read -r word && [ "$word" = keep ]; then exec sleep infinity; fi
mine=$(readlink /proc/self/ns/net)
for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    if [ "$pid" != $$ ] && [ "$(readlink "$process/ns/net" 2>/dev/null)" = "$mine" ]; then
        kill -9 "$pid" 2>/dev/null || true
    fi
done
"""
"""Runs as the one long-lived process of a host, inside its namespaces.

Arguments: the host's name and the directory with its own resolv.conf and hosts.
"""

HOLDER_MARK = "TUNNEL_LAB_HOLDER"
"""In the environment of that process alone."""


def enter_command(pid: int, *, joins_user: bool = False) -> list[str]:
    """The words to put before a command so that it runs in the host that `pid` holds.

    `joins_user` is for the user who made it, outside of its user namespace.
    """
    user = [f"--user=/proc/{pid}/ns/user", "--preserve-credentials"] if joins_user else []
    spaces = [f"--{option}=/proc/{pid}/ns/{name}" for option, name in _SPACES]
    return ["nsenter", *user, *spaces]


def outer_uid() -> int:
    """Our user as seen outside of our user namespace; that is root's number only for root."""
    inside = os.geteuid()
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, outside, count = map(int, line.split())
        if first <= inside < first + count:
            return outside + inside - first
    return inside


def start_time(pid: int) -> int | None:
    """Clock ticks after boot at which process `pid` began; None if there is no such process.

    PID and start time together name a process for good, a PID alone is reused.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def end_host(inode: int, netns: str | None, *, holder: int | None) -> None:
    """End the processes in a network namespace, the holder last, and remove its name."""
    for pids in _batches(inode, holder):
        end_processes(pids)
    if netns is not None:
        remove_name(netns)
    if holder is not None:
        end_processes([holder])


def _batches(inode: int, holder: int | None) -> Iterator[list[int]]:
    """What runs in a namespace, again until nothing does: a process may fork as it is ended."""
    for _ in range(10):
        pids = [pid for pid in pids_in(inode) if pid != holder]
        if not pids:
            return
        yield pids
    raise LabError(f"processes {pids_in(inode)} keep starting others")


def remove_name(netns: str) -> None:
    """Remove a name below /run/netns; the namespace itself goes with its last process."""
    if (NETNS_DIRECTORY / netns).exists():
        check_run(["ip", "netns", "delete", netns])


def check_run(arguments: Sequence[str]) -> None:
    """Run a program to its end. LabError with its output if it fails."""
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise LabError(f"{' '.join(arguments)}: {(result.stdout + result.stderr).strip()}")
