"""What the filter refuses, and that what a daemon does goes on. In processes of their own."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

from tunnel.linux import seccomp

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64", "riscv64"), reason="no numbers for this machine"
)

# By the C library's names, so that a wrong number in our table is found. Their arguments are wrong
# ones: without the filter each fails, with another errno where that is root's.
REFUSED = """
import ctypes, errno, json, os
from tunnel.linux import rights, seccomp
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
assert seccomp.install()
left_out = (
    "reboot", "vhangup",  # in case that they are not refused
    "settimeofday", "clock_settime", "adjtimex", "clock_adjtime",  # the C library reads the time
)
results = {}
for name in seccomp.FORBIDDEN:
    function = getattr(libc, {"syslog": "klogctl"}.get(name, name), None)
    if function is not None and name not in left_out:
        ctypes.set_errno(0)
        assert function(*[ctypes.c_long(-1)] * 6) == -1, name
        results[name] = errno.errorcode[ctypes.get_errno()]
print(json.dumps(results))
"""

GOES_ON = """
import ctypes, errno, os, socket, subprocess, sys, threading
from tunnel.linux import seccomp
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
assert seccomp.install()
thread = threading.Thread(target=print, args=("thread",), kwargs={"flush": True})
thread.start()
thread.join()
for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
    socket.socket(family, socket.SOCK_DGRAM).close()
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()
for flags in (0x10000000, 0x20000, 0x50000000):  # a user, a mount, a user and a network namespace
    assert libc.unshare(flags) == -1 and ctypes.get_errno() == errno.EPERM
for family in (socket.AF_PACKET, 38, 40):  # AF_ALG, AF_VSOCK
    try:
        socket.socket(family, socket.SOCK_RAW)
    except OSError as error:
        print(errno.errorcode[error.errno])
print(subprocess.run(["true"]).returncode, flush=True)
print(os.waitstatus_to_exitcode(os.waitpid(os.fork() or os._exit(7), 0)[1]))
"""


def output_of(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_forbidden_call_is_refused_and_the_process_goes_on() -> None:
    results = json.loads(output_of(REFUSED))
    assert set(results.values()) == {"EPERM"}, results
    assert len(results) > 30, "the C library has most of them by name"
    assert set(results) <= set(seccomp.FORBIDDEN)


@pytest.mark.foreign("true")
def test_threads_sockets_and_programs_go_on_and_namespaces_do_not() -> None:
    words = output_of(GOES_ON).split()
    assert words == ["thread", "EAFNOSUPPORT", "EAFNOSUPPORT", "EAFNOSUPPORT", "0", "7"]
