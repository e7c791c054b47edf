"""A filter of system calls that this process and its children never need: seccomp(2).

What is forbidden fails with EPERM, and the kernel's log names the call (audit type 1326). All other
calls are let through. Sources: seccomp(2), linux/seccomp.h, and the numbers of the kernel's tables
(arch/x86/entry/syscalls/syscall_64.tbl; scripts/syscall.tbl, which arm64 and riscv64 share).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tunnel.linux import bpf, kernel

_libc = ctypes.CDLL(None, use_errno=True)

_ALLOW: Final = 0x7FFF_0000
_ERRNO: Final = 0x0005_0000
_SET_MODE_FILTER: Final = 1
_FLAG_LOG: Final = 0x2
# Before Linux 5.16 a filter would else turn on a costly mitigation, which is for processes that run
# code of others.
_FLAG_SPEC_ALLOW: Final = 0x4

_NUMBER, _ARCHITECTURE = 0, 4
"""Offsets in struct seccomp_data; the lower halves of the arguments follow from `_argument` on."""
_X32: Final = 0x4000_0000
"""The bit of the numbers of x86's third ABI, by which a call has a second name."""

_NAMESPACES: Final = 0x7E02_0000
"""Every CLONE_NEW… flag that clone(2) takes."""
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_FAMILIES: Final = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)

# By name: the number on x86_64, and in the table that newer architectures share; None where there
# is none.
FORBIDDEN: Final[dict[str, tuple[int, int | None]]] = {
    # Other processes, and what is in their memory.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "perf_event_open": (298, 241),
    # Large parts of the kernel that weaknesses were found in again and again.
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # The kernel itself, and the machine.
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "personality": (135, 92),
    # Another view of the files.
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
}


@dataclass(frozen=True, slots=True)
class _Machine:
    """AUDIT_ARCH_… of linux/audit.h, and the numbers of the calls whose arguments matter."""

    architecture: int
    column: int
    seccomp: int
    clone: int
    clone3: int
    unshare: int
    setns: int
    socket: int
    ioctl: int


_GENERIC: Final = (1, 277, 220, 435, 97, 268, 198, 29)
_MACHINES: Final = {
    "x86_64": _Machine(0xC000_003E, 0, 317, 56, 435, 272, 308, 41, 16),
    "aarch64": _Machine(0xC000_00B7, *_GENERIC),
    "riscv64": _Machine(0xC000_00F3, *_GENERIC),
}


def install() -> bool:
    """Have the filter from now on, in this thread and all that it starts; it cannot be removed.

    False on a machine whose numbers are not known here. Needs no_new_privs or CAP_SYS_ADMIN. Raises
    OSError, for instance where the kernel has no seccomp.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None or struct.calcsize("P") != 8:
        return False
    program = _program(machine)
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the length, and a pointer behind its padding.
    fprog = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    flags = _FLAG_LOG | _FLAG_SPEC_ALLOW
    if _libc.syscall(machine.seccomp, _SET_MODE_FILTER, flags, fprog):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return True


def _program(machine: _Machine) -> list[bpf.Instruction]:
    refuse = (bpf.RET, 0, 0, _ERRNO | errno.EPERM)
    # What libc takes for a kernel that does not have the call, and goes on with clone.
    absent = (bpf.RET, 0, 0, _ERRNO | errno.ENOSYS)
    allow = (bpf.RET, 0, 0, _ALLOW)
    numbers = [columns[machine.column] for columns in FORBIDDEN.values()]
    return [
        (bpf.LD_W, 0, 0, _ARCHITECTURE),
        (bpf.JEQ, 1, 0, machine.architecture),
        absent,
        (bpf.LD_W, 0, 0, _NUMBER),
        (bpf.JGE, 0, 1, _X32),
        absent,
        *_for_call(machine.clone3, [absent]),
        *_for_call(
            machine.clone,
            [_argument(0), (bpf.JSET, 0, 1, _NAMESPACES), refuse, allow],
        ),
        # A network namespace takes CAP_SYS_ADMIN, which says whether the tunnel may move.
        *_for_call(machine.unshare, _one_of(_argument(0), [kernel.CLONE_NEWNET], refuse)),
        *_for_call(machine.setns, _one_of(_argument(1), [kernel.CLONE_NEWNET], refuse)),
        *_for_call(
            machine.socket,
            _one_of(_argument(0), _FAMILIES, (bpf.RET, 0, 0, _ERRNO | errno.EAFNOSUPPORT)),
        ),
        # Keystrokes for the terminal of who called.
        *_for_call(
            machine.ioctl,
            [
                _argument(1),
                (bpf.JEQ, 1, 0, _TIOCSTI),
                (bpf.JEQ, 0, 1, _TIOCLINUX),
                refuse,
                allow,
            ],
        ),
        *(
            instruction
            for number in numbers
            if number is not None
            for instruction in _for_call(number, [refuse])
        ),
        allow,
    ]


def _for_call(number: int, then: Sequence[bpf.Instruction]) -> list[bpf.Instruction]:
    """`then`, which returns, for the call of that number; the number stays loaded for others."""
    return [(bpf.JEQ, 0, len(then), number), *then]


def _one_of(
    load: bpf.Instruction, values: Sequence[int], otherwise: bpf.Instruction
) -> list[bpf.Instruction]:
    """Allow the call if what is loaded is one of the values, and return `otherwise` if not."""
    found = [(bpf.JEQ, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [load, *found, otherwise, (bpf.RET, 0, 0, _ALLOW)]


def _argument(place: int) -> bpf.Instruction:
    """Load the lower 32 bits of an argument, all that the kernel looks at in these."""
    return (bpf.LD_W, 0, 0, 16 + 8 * place)
