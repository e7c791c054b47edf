"""confine.py UNIT PROGRAM…: run the program with what the unit's [Service] leaves it.

Its capability set, no_new_privs, and a seccomp filter of its SystemCallFilter,
RestrictAddressFamilies, RestrictNamespaces and MemoryDenyWriteExecute, made by libseccomp. For
machines on which systemd itself cannot be booted.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

ALLOW = 0x7FFF0000
DENY = 0x00050000 | errno.EPERM
EQUAL, MASKED_EQUAL = 4, 7
PROT_EXEC, PROT_WRITE = 4, 2
FAMILIES = 46

libc = ctypes.CDLL(None, use_errno=True)
seccomp = ctypes.CDLL("libseccomp.so.2")
seccomp.seccomp_init.restype = ctypes.c_void_p
seccomp.seccomp_load.argtypes = [ctypes.c_void_p]
seccomp.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp of seccomp(3)."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


seccomp.seccomp_rule_add_array.argtypes = [
    ctypes.c_void_p,
    ctypes.c_uint32,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.POINTER(Comparison),
]


def settings(unit: str) -> dict[str, list[str]]:
    """All values of each key, in order."""
    found: dict[str, list[str]] = {}
    for line in Path(unit).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def calls_in(group: str) -> set[str]:
    """The system calls of a group, as systemd knows it, groups within it resolved."""
    if not group.startswith("@"):
        return {group}
    command = ["systemd-analyze", "--no-pager", "syscall-filter", group]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    names = [line.strip() for line in lines[1:] if line.strip() and "#" not in line]
    return set[str]().union(*map(calls_in, names))


def allowed_calls(lines: list[str]) -> set[str]:
    """What a list of SystemCallFilter= values allows: the first is a list of what is allowed."""
    # systemd adds what every program needs to be started and to end.
    allowed = calls_in("@default")
    for line in lines:
        groups = line.removeprefix("~").split()
        calls = set[str]().union(*map(calls_in, groups))
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    return allowed | {"execve"}


def add_rule(context: int, action: int, name: str, *comparisons: Comparison) -> None:
    number = seccomp.seccomp_syscall_resolve_name(name.encode())
    if number >= 0:
        array = (Comparison * len(comparisons))(*comparisons)
        done = seccomp.seccomp_rule_add_array(context, action, number, len(comparisons), array)
        assert done == 0, (name, done)


def load_filters(unit: dict[str, list[str]]) -> None:
    """Two filters: of calls that are allowed, and of arguments that are not. Both must agree."""
    calls = seccomp.seccomp_init(DENY)
    for name in sorted(allowed_calls(unit["SystemCallFilter"])):
        add_rule(calls, ALLOW, name)
    arguments = seccomp.seccomp_init(ALLOW)
    allowed = {getattr(socket, name) for name in unit["RestrictAddressFamilies"][0].split()}
    for family in set(range(FAMILIES)) - allowed:
        add_rule(arguments, DENY, "socket", Comparison(0, EQUAL, family, 0))
    assert unit["RestrictNamespaces"] == ["yes"]
    add_rule(arguments, DENY, "unshare")
    add_rule(arguments, DENY, "setns")
    assert unit["MemoryDenyWriteExecute"] == ["yes"]
    both = PROT_EXEC | PROT_WRITE
    add_rule(arguments, DENY, "mmap", Comparison(2, MASKED_EQUAL, both, both))
    for name in ("mprotect", "pkey_mprotect"):
        add_rule(arguments, DENY, name, Comparison(2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC))
    # The one of calls last: it forbids loading another.
    for context in (arguments, calls):
        assert seccomp.seccomp_load(context) == 0


def main() -> None:
    unit = settings(sys.argv[1])
    capabilities = unit["CapabilityBoundingSet"][0].lower().replace("cap_", "").split()
    limits = "-all," + ",".join(f"+{name}" for name in capabilities)
    if sys.argv[2] == "--confined":
        load_filters(unit)
        os.execvp(sys.argv[3], sys.argv[3:])
    assert unit["NoNewPrivileges"] == ["yes"]
    again = [sys.executable, __file__, sys.argv[1], "--confined", *sys.argv[2:]]
    # libseccomp would set no_new_privs too; setpriv does so before it gives the rights away.
    os.execvp("setpriv", ["setpriv", "--no-new-privs", f"--bounding-set={limits}", *again])


if __name__ == "__main__":
    main()
